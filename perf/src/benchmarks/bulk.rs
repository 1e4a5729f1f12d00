//! A whole GiB written, and read, in one message.

use std::sync::{Arc, Mutex};

use execution::Backend;
use sandbox_host::{Phases, SandboxOptions};

use super::{Bench, GIB, Mode};
use crate::canister::Canister;
use crate::kernel::{self, Mapping, MemoryFile, PAGE_BYTES};
use crate::modules::{self, Heap};
use crate::peer::{Peer, Role, Task};
use crate::report::{Compared, Finding, Target, Unit};
use crate::sample::{Samples, time};

/// Messages of one kind that are counted.
const MESSAGES: usize = 3;
const TARGET: Target = Target::AtMost(1.2);

/// 1 GiB in one update: both backends, both widths of heap.
pub(super) fn bulk(bench: &Bench) -> Result<Vec<Finding>, String> {
    let mut limit = Limit::new()?;
    let mut findings = Vec::new();
    for heap in Heap::ALL {
        for mode in Mode::ALL {
            findings.extend(Series::new(bench, mode, heap, &mut limit)?.run()?);
        }
    }
    Ok(findings)
}

/// The same with bare system calls: a process writes its private mapping of a memory file, this one copies it.
struct Limit {
    peer: Peer,
    copy: Mapping,
}

impl Limit {
    fn new() -> Result<Self, String> {
        let pages = GIB as usize / PAGE_BYTES;
        let copy = Mapping::shared(&MemoryFile::filled(pages)?)?;
        Ok(Self { peer: Peer::start(Role::Memory(pages))?, copy })
    }

    /// Writes with a copy-on-write fault for each page, then a copy to warm memory.
    fn write(&mut self) -> Result<f64, String> {
        self.peer.run(Task::Forget)?;
        time(|| {
            let address = self.peer.run(Task::Write)?;
            kernel::copy(self.peer.pid(), address, self.copy.bytes_mut())
        })
    }

    /// The same with a copy to memory that nobody has touched: as an arena is when its canister is new.
    fn write_first(&mut self) -> Result<f64, String> {
        let mut fresh = Mapping::shared(&MemoryFile::sparse(GIB as usize / PAGE_BYTES)?)?;
        self.peer.run(Task::Forget)?;
        time(|| {
            let address = self.peer.run(Task::Write)?;
            kernel::copy(self.peer.pid(), address, fresh.bytes_mut())
        })
    }

    /// Reads pages that the process has mapped.
    fn read_again(&mut self) -> Result<f64, String> {
        time(|| self.peer.run(Task::Read).map(drop))
    }

    /// Reads with a fault for each range of pages.
    fn read_first(&mut self) -> Result<f64, String> {
        self.peer.run(Task::Forget)?;
        self.read_again()
    }
}

/// A backend that knows no canister, and where it notes the phases of its last message.
type Started = (Arc<dyn Backend>, Arc<Mutex<Option<Phases>>>);

fn start(mode: Mode, bench: &Bench) -> Result<Started, String> {
    let last = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&last);
    let observer = move |phases: &Phases| *noted.lock().expect("no holder panics") = Some(*phases);
    let options = SandboxOptions { observer: Some(Arc::new(observer)), ..SandboxOptions::default() };
    Ok((mode.start(bench, options)?, last))
}

/// A canister with a heap of 1 GiB on a backend of its own, and the limit to compare it with.
struct Series<'a> {
    bench: &'a Bench,
    mode: Mode,
    heap: Heap,
    canister: Canister,
    limit: &'a mut Limit,
}

/// Durations of a canister's messages and of the limit beside them, and the phases of the last message.
struct Durations {
    limit: Samples,
    measured: Samples,
    phases: String,
}

impl<'a> Series<'a> {
    fn new(bench: &'a Bench, mode: Mode, heap: Heap, limit: &'a mut Limit) -> Result<Self, String> {
        let canister = Canister::from_text(&*bench.compiler, &modules::memory(heap, GIB, 0), 1)?;
        Ok(Self { bench, mode, heap, canister, limit })
    }

    fn run(mut self) -> Result<Vec<Finding>, String> {
        let started = start(self.mode, self.bench)?;
        let write_first = self.messages(&started, "store", 1, Limit::write_first)?;
        let _second = self.messages(&started, "store", 1, Limit::write)?;
        let write = self.messages(&started, "store", MESSAGES, Limit::write)?;
        let fill = self.messages(&started, "fill", MESSAGES, Limit::write)?;
        let read = self.messages(&started, "load", MESSAGES, Limit::read_again)?;
        drop(started);
        let started = start(self.mode, self.bench)?;
        let read_first = self.messages(&started, "load", 1, Limit::read_first)?;
        let written = write.measured.median();
        let mut findings = vec![
            self.finding(
                "write-first",
                "the first message writes 1 GiB by word, no slot is warm",
                &write_first,
            ),
            self.finding("write", "a later message writes 1 GiB by word", &write),
            self.finding("fill", "a later message writes 1 GiB by memory.fill", &fill),
            self.finding("read-first", "a new instance's first message reads 1 GiB", &read_first),
            self.finding("read", "a later message reads 1 GiB", &read),
        ];
        if self.mode == Mode::Sandboxed && self.heap == Heap::Bits64 {
            findings.push(self.hash(written)?);
        }
        Ok(findings)
    }

    fn messages(
        &mut self,
        (backend, last): &Started,
        method: &str,
        count: usize,
        limit: fn(&mut Limit) -> Result<f64, String>,
    ) -> Result<Durations, String> {
        let (mut limits, mut measured) = (Vec::new(), Vec::new());
        for _ in 0..count {
            measured.push(time(|| self.canister.update(&**backend, method))?);
            limits.push(limit(self.limit)?);
        }
        Ok(Durations {
            limit: limits.into_iter().collect(),
            measured: measured.into_iter().collect(),
            phases: phases(*last.lock().expect("no holder panics")),
        })
    }

    fn finding(&self, what: &str, describe: &str, durations: &Durations) -> Finding {
        let Durations { limit, measured, phases } = durations;
        let against = match what {
            "read" | "read-first" => "a bare process that reads a private mapping",
            "write-first" => {
                "a bare process that writes a private mapping, fault by fault, and a copy of it to fresh memory"
            }
            _ => {
                "a bare process that writes a private mapping, fault by fault, and a copy of it to warm memory"
            }
        };
        let (bits, backend) = (self.heap.bits(), self.mode.name());
        Finding::new(
            format!("bulk-{what}-{bits}-{backend}"),
            &Compared { limit: limit.median(), measured: measured.median(), unit: Unit::Time },
            TARGET,
            limit.quantile(1.0) < 1.5 * limit.quantile(0.0),
            format!("{describe}, {bits}-bit heap, {backend}, against {against}{phases}"),
        )
    }

    /// Hashing what was written: a part of the node's work that is the same for both backends.
    fn hash(&self, written: f64) -> Result<Finding, String> {
        let hash = time(|| {
            std::hint::black_box(self.canister.heap_root());
            Ok(())
        })?;
        Ok(Finding::new(
            "bulk-hash",
            &Compared { limit: written, measured: hash, unit: Unit::Time },
            Target::None,
            true,
            "the state root's hash of 1 GiB of pages, from scratch, against the message that wrote them"
                .into(),
        ))
    }
}

fn phases(last: Option<Phases>) -> String {
    last.map_or(String::new(), |phases| {
        let show = |duration: std::time::Duration| Unit::Time.show(duration.as_nanos() as f64);
        format!(
            "; of the last message, the worker took {}, checking and copying pages {}",
            show(phases.worker),
            show(phases.pages)
        )
    })
}
