//! The system-call lists, as data: one line a rule, with its reason. Everything not listed kills the process.
//!
//! SETUP is the launcher's deny-list, in force across exec: the image is ours and has read no input yet.
//! LOAD and RUN are the worker's own allow-lists, COMPILE is the compiler's. `SECURITY.md` repeats them; a test
//! compares.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::socket::PACKET_FILES_MAX;

/// One allowed (or, in SETUP, denied) call.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Name as in syscalls(2).
    pub name: &'static str,
    /// Number on x86-64.
    pub number: libc::c_long,
    /// What the arguments must be; all of them.
    pub arguments: &'static [Argument],
    /// Why it is in the list.
    pub reason: &'static str,
}

/// A condition on one argument, on all 64 bits.
#[derive(Clone, Debug)]
pub struct Argument {
    /// 0 to 5.
    pub index: u8,
    /// The condition.
    pub test: Test,
}

/// Conditions that the lists use.
#[derive(Clone, Debug)]
pub enum Test {
    /// Equal.
    Is(u64),
    /// None of these bits set.
    Without(u64),
    /// Not equal.
    Not(u64),
    /// Below.
    Below(u64),
    /// The bits of the mask (first) have the value (second).
    Masked(u64, u64),
}

const fn is(index: u8, value: u64) -> Argument {
    Argument { index, test: Test::Is(value) }
}

const fn below(index: u8, value: u64) -> Argument {
    Argument { index, test: Test::Below(value) }
}

const fn without(index: u8, bits: u64) -> Argument {
    Argument { index, test: Test::Without(bits) }
}

const fn masked(index: u8, mask: u64, value: u64) -> Argument {
    Argument { index, test: Test::Masked(mask, value) }
}

const fn rule(
    name: &'static str,
    number: libc::c_long,
    arguments: &'static [Argument],
    reason: &'static str,
) -> Rule {
    Rule { name, number, arguments, reason }
}

/// The descriptor of a worker's socket.
pub const SOCKET: u64 = 3;
/// Number that the code file gets, the first descriptor of the load request: the lowest, and 0 to 2 are closed.
const CODE: u64 = 0;
/// Numbers that the descriptors of the load request get: below this, the socket's left out.
const LOADED: u64 = PACKET_FILES_MAX as u64 + 1;
const PROT_WRITE: u64 = libc::PROT_WRITE as u64;
const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const NOSIGNAL: u64 = libc::MSG_NOSIGNAL as u64;
const TRUNC: u64 = libc::MSG_TRUNC as u64;
const PRIVATE: u64 = libc::MAP_PRIVATE as u64;
const ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;
/// Flags of mmap but those that say where, and that nothing is reserved for it: MAP_POPULATE above all would let a worker
/// stay in the kernel for seconds.
const MAP_KIND: u64 =
    !((libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE | libc::MAP_STACK) as u64);
/// Protections but reading and writing.
const NOT_DATA: u64 = !((libc::PROT_READ | libc::PROT_WRITE) as u64);

/// Denied from before exec on: nothing in a worker's start-up needs them, and each would undo a layer.
pub const SETUP: &[Rule] = &[
    rule("ptrace", libc::SYS_ptrace, &[], "reads and changes other processes"),
    rule("process_vm_readv", libc::SYS_process_vm_readv, &[], "reads other processes"),
    rule("process_vm_writev", libc::SYS_process_vm_writev, &[], "changes other processes"),
    rule("bpf", libc::SYS_bpf, &[], "kernel attack surface"),
    rule("perf_event_open", libc::SYS_perf_event_open, &[], "kernel attack surface, clock"),
    rule("userfaultfd", libc::SYS_userfaultfd, &[], "kernel attack surface"),
    rule("io_uring_setup", libc::SYS_io_uring_setup, &[], "calls past the filter"),
    rule("keyctl", libc::SYS_keyctl, &[], "kernel attack surface"),
    rule("add_key", libc::SYS_add_key, &[], "kernel attack surface"),
    rule("mount", libc::SYS_mount, &[], "would undo the empty root"),
    rule("umount2", libc::SYS_umount2, &[], "would undo the empty root"),
    rule("pivot_root", libc::SYS_pivot_root, &[], "would undo the empty root"),
    rule("chroot", libc::SYS_chroot, &[], "would undo the empty root"),
    rule("unshare", libc::SYS_unshare, &[], "would give capabilities in a new namespace"),
    rule("setns", libc::SYS_setns, &[], "would leave the namespaces"),
    rule("socket", libc::SYS_socket, &[], "network and other families"),
    rule("connect", libc::SYS_connect, &[], "network and other families"),
    rule("clone3", libc::SYS_clone3, &[], "processes and threads"),
    rule("fork", libc::SYS_fork, &[], "processes"),
    rule("vfork", libc::SYS_vfork, &[], "processes"),
    rule("kill", libc::SYS_kill, &[], "signals to others"),
    rule("init_module", libc::SYS_init_module, &[], "kernel attack surface"),
    rule("finit_module", libc::SYS_finit_module, &[], "kernel attack surface"),
    rule("kexec_load", libc::SYS_kexec_load, &[], "kernel attack surface"),
];

/// LOAD: from before the first byte is read until code and memory are mapped.
pub const LOAD: &[Rule] = &[
    rule(
        "recvmsg",
        libc::SYS_recvmsg,
        &[is(0, SOCKET), is(2, libc::MSG_CMSG_CLOEXEC as u64)],
        "the load request with its descriptors",
    ),
    rule(
        "recvfrom",
        libc::SYS_recvfrom,
        &[is(0, SOCKET), is(3, TRUNC), is(4, 0), is(5, 0)],
        "further packets",
    ),
    rule("sendto", libc::SYS_sendto, &[is(0, SOCKET), is(3, NOSIGNAL), is(4, 0), is(5, 0)], "replies"),
    rule(
        "mmap",
        libc::SYS_mmap,
        &[without(2, NOT_DATA), masked(3, MAP_KIND, PRIVATE | ANONYMOUS)],
        "heap, stable memory, signal stack",
    ),
    rule(
        "mmap",
        libc::SYS_mmap,
        &[without(2, NOT_DATA), masked(3, MAP_KIND, PRIVATE), below(4, LOADED)],
        "code file; heap as a private copy of the arena's pages",
    ),
    rule(
        "mmap",
        libc::SYS_mmap,
        &[without(2, NOT_DATA | PROT_WRITE), masked(3, MAP_KIND, libc::MAP_SHARED as u64), below(4, LOADED)],
        "arena window: shared is never writable",
    ),
    rule("mprotect", libc::SYS_mprotect, &[without(2, PROT_EXEC)], "opens reserved memory"),
    rule("mprotect", libc::SYS_mprotect, &[without(2, PROT_WRITE)], "makes the code file executable"),
    rule("munmap", libc::SYS_munmap, &[], "gives memory back when a load fails"),
    rule(
        "close",
        libc::SYS_close,
        // Received descriptors get the lowest free numbers, and 0 to 2 are closed.
        &[Argument { index: 0, test: Test::Not(SOCKET) }],
        "descriptors once mapped",
    ),
    rule(
        "statx",
        libc::SYS_statx,
        &[is(0, CODE), is(2, libc::AT_EMPTY_PATH as u64)],
        "size of the code file",
    ),
    rule("mseal", libc::SYS_mseal, &[is(2, 0)], "code never moves, changes or goes after this"),
    rule("sigaltstack", libc::SYS_sigaltstack, &[], "stack for trap signals"),
    rule("rt_sigreturn", libc::SYS_rt_sigreturn, &[], "return from trap signals"),
    rule(
        "prctl",
        libc::SYS_prctl,
        &[is(0, libc::PR_SET_MDWE as u64), is(1, libc::PR_MDWE_REFUSE_EXEC_GAIN as u64)],
        "no memory becomes executable after this",
    ),
    rule("prctl", libc::SYS_prctl, &[is(0, libc::PR_SET_NO_NEW_PRIVS as u64)], "installing RUN repeats it"),
    rule(
        "seccomp",
        libc::SYS_seccomp,
        &[is(0, libc::SECCOMP_SET_MODE_FILTER as u64), is(1, 0)],
        "installs RUN; no flags, so no listener",
    ),
    rule("exit_group", libc::SYS_exit_group, &[], "the end"),
];

/// RUN: from before the first message, caller, argument or System API value on.
pub const RUN: &[Rule] = &[
    rule("recvfrom", libc::SYS_recvfrom, &[is(0, SOCKET), is(3, TRUNC), is(4, 0), is(5, 0)], "requests"),
    rule(
        "sendto",
        libc::SYS_sendto,
        &[is(0, SOCKET), is(3, NOSIGNAL), is(4, 0), is(5, 0)],
        "replies; carries no descriptor",
    ),
    rule("mprotect", libc::SYS_mprotect, &[without(2, !3)], "memory.grow; never executable"),
    rule("rt_sigreturn", libc::SYS_rt_sigreturn, &[], "return from trap signals"),
    rule("exit_group", libc::SYS_exit_group, &[], "the end"),
];

/// COMPILE: from before a compiler reads its first byte on. Its output are bytes: nothing is ever executable.
pub const COMPILE: &[Rule] = &[
    rule("recvfrom", libc::SYS_recvfrom, &[is(0, SOCKET), is(3, TRUNC), is(4, 0), is(5, 0)], "the module"),
    rule(
        "sendto",
        libc::SYS_sendto,
        &[is(0, SOCKET), is(3, NOSIGNAL), is(4, 0), is(5, 0)],
        "what it was compiled to; carries no descriptor",
    ),
    rule("brk", libc::SYS_brk, &[], "the C heap"),
    rule(
        "mmap",
        libc::SYS_mmap,
        &[is(0, 0), is(2, READ_WRITE), is(3, PRIVATE | ANONYMOUS)],
        "large blocks of the C heap; no file, never executable",
    ),
    rule("mremap", libc::SYS_mremap, &[is(3, libc::MREMAP_MAYMOVE as u64)], "large blocks that grow"),
    rule("munmap", libc::SYS_munmap, &[], "large blocks given back"),
    rule("exit_group", libc::SYS_exit_group, &[], "the end"),
];

/// A filter ready to be installed.
#[derive(Debug, Clone)]
pub struct Filter(BpfProgram);

impl Filter {
    /// SETUP: the listed calls kill, all others pass.
    #[must_use]
    pub fn setup() -> Self {
        Self::build(SETUP, SeccompAction::Allow, SeccompAction::KillProcess)
    }

    /// LOAD: the listed calls pass, all others kill.
    #[must_use]
    pub fn load() -> Self {
        Self::only(LOAD)
    }

    /// RUN: the listed calls pass, all others kill.
    #[must_use]
    pub fn run() -> Self {
        Self::only(RUN)
    }

    /// The listed calls pass, all others kill.
    #[must_use]
    pub fn only(rules: &[Rule]) -> Self {
        Self::build(rules, SeccompAction::KillProcess, SeccompAction::Allow)
    }

    /// COMPILE: the listed calls pass, all others kill.
    #[must_use]
    pub fn compile() -> Self {
        Self::build(COMPILE, SeccompAction::KillProcess, SeccompAction::Allow)
    }

    /// All that are in force in RUN, in the order in which they were installed.
    pub(crate) fn all() -> [Self; 3] {
        [Self::setup(), Self::load(), Self::run()]
    }

    /// Its instructions.
    pub(crate) fn instructions(&self) -> &[seccompiler::sock_filter] {
        &self.0
    }

    fn build(rules: &[Rule], otherwise: SeccompAction, listed: SeccompAction) -> Self {
        let mut by_number = std::collections::BTreeMap::<i64, Vec<SeccompRule>>::new();
        for rule in rules.iter().filter(|rule| !rule.arguments.is_empty()) {
            let conditions = rule.arguments.iter().map(condition).collect();
            let chain = by_number.entry(rule.number).or_default();
            chain.push(SeccompRule::new(conditions).expect("every rule has a condition here"));
        }
        // No chain at all means any arguments, whatever other rules of the call say.
        by_number.extend(
            rules.iter().filter(|rule| rule.arguments.is_empty()).map(|rule| (rule.number, Vec::new())),
        );
        // A foreign architecture (int 0x80) is refused by seccompiler's own check, with KILL_PROCESS.
        let filter = SeccompFilter::new(by_number, otherwise, listed, TargetArch::x86_64)
            .expect("the two actions differ and the list is short");
        Self(filter.try_into().expect("the lists are far below the kernel's 4,096 instructions"))
    }

    /// Puts the filter in force for this thread, for good. Also sets no_new_privs.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn install(&self) -> Result<(), seccompiler::Error> {
        seccompiler::apply_filter(&self.0)
    }
}

fn condition(argument: &Argument) -> SeccompCondition {
    let (operator, value) = match argument.test {
        Test::Is(value) => (SeccompCmpOp::Eq, value),
        Test::Without(bits) => (SeccompCmpOp::MaskedEq(bits), 0),
        Test::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask), value),
        Test::Not(value) => (SeccompCmpOp::Ne, value),
        Test::Below(value) => (SeccompCmpOp::Lt, value),
    };
    SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, operator, value)
        .expect("argument indices are below 6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_has_five_calls_and_load_contains_them() {
        assert_eq!(RUN.len(), 5);
        for rule in RUN {
            assert!(LOAD.iter().any(|load| load.number == rule.number), "{} is missing in LOAD", rule.name);
        }
    }

    #[test]
    fn every_rule_gives_its_reason_and_every_list_builds() {
        for rule in SETUP.iter().chain(LOAD).chain(RUN).chain(COMPILE) {
            assert!(!rule.reason.is_empty(), "{} has no reason", rule.name);
        }
        let _ = (Filter::setup(), Filter::load(), Filter::run(), Filter::compile());
    }

    /// The rows of `SECURITY.md`'s table of one list.
    fn rows(rules: &[Rule]) -> String {
        let condition = |argument: &Argument| match argument.test {
            Test::Is(value) => format!("{} = {value:#x}", argument.index),
            Test::Without(bits) => format!("{} without {bits:#x}", argument.index),
            Test::Not(value) => format!("{} not {value:#x}", argument.index),
            Test::Below(value) => format!("{} below {value:#x}", argument.index),
            Test::Masked(mask, value) => format!("{} & {mask:#x} = {value:#x}", argument.index),
        };
        rules.iter().fold(String::new(), |rows, rule| {
            let arguments: Vec<String> = rule.arguments.iter().map(condition).collect();
            let arguments = if arguments.is_empty() { "any".to_owned() } else { arguments.join(", ") };
            rows + &format!("| {} | {arguments} | {} |\n", rule.name, rule.reason)
        })
    }

    #[test]
    fn the_security_document_lists_the_filters_as_they_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../SECURITY.md");
        let document = std::fs::read_to_string(path).unwrap();
        for (name, rules) in [("RUN", RUN), ("LOAD", LOAD), ("COMPILE", COMPILE), ("SETUP", SETUP)] {
            let rows = rows(rules);
            assert!(document.contains(&rows), "SECURITY.md should have for {name}:\n{rows}");
        }
    }
}
