//! One process with a thread for each canister, against a process for each: where each message changes mappings.
//!
//! This is the claim that many processes outdo many threads, because they don't share an address space. It holds for
//! backends that map, protect or give up pages in each message; the product's modes do neither, so it says nothing of
//! them, and these are figures to read.

use super::Bench;
use crate::contention::Workload;
use crate::peer::{Peer, Role};
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::Samples;

const ROUNDS: usize = 5;

/// Fresh mappings with fragments (B3 of performance.md section 9).
pub(super) fn mapping(_: &Bench) -> Result<Vec<Finding>, String> {
    let what = "a fresh mapping with 16 fragments, 32 pages read and 32 written, unmapped";
    Ok(vec![compare("mapping", what, Workload::Map)?])
}

/// Written pages found by the kernel's help (B4, likewise).
pub(super) fn write_tracking(_: &Bench) -> Result<Vec<Finding>, String> {
    let protect = "32 pages made writable and written one by one, then read-only again";
    let copy = "32 pages copied at their first write, then given up one by one";
    Ok(vec![
        compare("write-tracking-protect", protect, Workload::Protect)?,
        compare("write-tracking-copy", copy, Workload::Copy)?,
    ])
}

fn compare(id: &str, what: &str, workload: Workload) -> Result<Finding, String> {
    let cores = sandbox_os::place::cores();
    let (control, sides) = (Sides::start(Workload::Compute, &cores)?, Sides::start(workload, &cores)?);
    let [mut computing, mut alone, mut threads, mut processes] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        computing.push(control.processes()? / control.threads()?);
        alone.push(sides.alone()?);
        threads.push(sides.threads()?);
        processes.push(sides.processes()?);
    }
    let [computing, alone, threads, processes] =
        [computing, alone, threads, processes].map(|rates| rates.into_iter().collect::<Samples>().median());
    Ok(Finding::new(
        id,
        &Compared { limit: threads, measured: processes, unit: Unit::Rate },
        Target::None,
        true,
        format!(
            "messages that do nothing but: {what}; {count} processes against {count} threads of one process, one \
             a core; one alone {}; where messages only compute the ratio is {computing:.2}",
            Unit::Rate.show(alone),
            count = cores.len(),
        ),
    ))
}

/// The same work, by the threads of one process and by several processes.
struct Sides<'a> {
    one: Peer,
    many: Vec<Peer>,
    cores: &'a [usize],
}

impl<'a> Sides<'a> {
    fn start(workload: Workload, cores: &'a [usize]) -> Result<Self, String> {
        let start = || Peer::start(Role::Work(workload));
        Ok(Self { one: start()?, many: cores.iter().map(|_| start()).collect::<Result<_, _>>()?, cores })
    }

    /// Messages a second of one thread.
    fn alone(&self) -> Result<f64, String> {
        self.one.begin_work(&self.cores[..1])?;
        self.one.rate()
    }

    /// Messages a second of one process with a thread on each core.
    fn threads(&self) -> Result<f64, String> {
        self.one.begin_work(self.cores)?;
        self.one.rate()
    }

    /// Messages a second of processes with one thread each.
    fn processes(&self) -> Result<f64, String> {
        self.many.iter().zip(self.cores).try_for_each(|(peer, &core)| peer.begin_work(&[core]))?;
        self.many.iter().map(Peer::rate).sum()
    }
}
