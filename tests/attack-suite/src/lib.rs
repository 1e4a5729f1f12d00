//! The attacks that the sandbox has to contain (`confinement` section 4), each performed, each with its control.
//!
//! A row says: this attack, in this phase, stopped by this, was contained; and the same attack without what stops it
//! works. An attack of a worker on the kernel and the machine is a [`trial::Trial`]; an attack on the node is a function
//! that performs it and adds its rows. Both are registered in [`attacks::all`].

pub mod attacks;
pub mod images;
pub mod perturbed;
pub mod stage;
pub mod table;
pub mod trial;
pub mod witness;

/// Whether this machine's processor faults on CPUID when a process asks it to (Linux says `cpuid_fault` then): many of
/// AMD's, and many virtual machines, don't.
///
/// # Panics
/// If `/proc/cpuinfo` can't be read.
#[must_use]
pub fn faults_on_cpuid() -> bool {
    let processors = std::fs::read_to_string("/proc/cpuinfo").expect("Linux says what its processors can");
    processors
        .lines()
        .filter(|line| line.starts_with("flags"))
        .all(|line| line.split_whitespace().any(|flag| flag == "cpuid_fault"))
}
