//! What canisters cost that are installed and do nothing.

use std::sync::Arc;
use std::time::Duration;

use execution::Principal;
use sandbox_os::machine;

use super::{Bench, Mode};
use crate::kernel;
use crate::modules::{self, Heap, WASM_PAGE_BYTES};
use crate::process::{own_pid, page_tables, smaps};
use crate::report::{Compared, Finding, Target, Unit};
use crate::rounds::Rounds;
use crate::sample::{Samples, Timed, interleaved_timed, time};

/// Numbers of installed canisters. The first is the measure of the others.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Canisters that get messages.
const ACTIVE: usize = 10;
/// Rounds of a sample.
const ROUNDS: u32 = 100;
const SAMPLES: usize = 15;
/// How often storage is charged, of all canisters there are: the one part of a round that grows with them.
const CHARGE_INTERVAL: Duration = Duration::from_secs(100);
/// Such rounds that are timed.
const CHARGES: usize = 5;
/// How long answered messages are remembered. Installs are messages: without this to pass, 10,000 installed canisters
/// would be 10,000 remembered messages as well.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Messages that are remembered, where that is what is measured.
const LONG_HISTORY: usize = 10_000;
/// What throughput may lose, against 10 installed canisters (P9 of issue 6).
const AGAINST_FEW: Target = Target::AtLeast(0.9);
/// How far two subnets of 10 canisters may be apart.
const CONTROL: f64 = 0.05;

/// Messages a second to ten canisters, by the number of those installed; what an installed one takes of memory; and what
/// remembered messages cost.
pub(super) fn installed(bench: &Bench) -> Result<Vec<Finding>, String> {
    // A canister's arena is a file, and all these subnets are there at once.
    let room = usize::try_from(machine::open_files_max()).unwrap_or(usize::MAX) / 3 * 2;
    let (sizes, too_many): (Vec<usize>, Vec<usize>) = SIZES.into_iter().partition(|size| *size <= room);
    let mut findings = Vec::new();
    for mode in Mode::ALL {
        findings.extend(BySize::measure(bench, mode, &sizes)?.findings());
        findings.extend(too_many.iter().map(|size| {
            let why = format!("{size} canisters need more open files than {room}");
            Finding::absent(id(*size, mode), why)
        }));
    }
    Ok(findings)
}

fn id(size: usize, mode: Mode) -> String {
    format!("installed-{size}-{}", mode.name())
}

/// What was measured of subnets that differ in size only.
struct BySize<'a> {
    mode: Mode,
    sizes: &'a [usize],
    /// Rounds, by size; then the first size again, and at last with a long history.
    rounds: Vec<Samples>,
    /// Messages that the last one remembered in the end.
    remembered: usize,
    /// Nanoseconds of a round in which storage is charged, by size.
    charging: Vec<f64>,
    /// Bytes of an installed canister in this process.
    memory: f64,
}

impl<'a> BySize<'a> {
    fn measure(bench: &Bench, mode: Mode, sizes: &'a [usize]) -> Result<Self, String> {
        let mut control = Active::new(bench, mode, sizes[0])?;
        kernel::give_back_free_memory();
        let before = own_bytes()?;
        let mut subnets =
            sizes.iter().map(|size| Active::new(bench, mode, *size)).collect::<Result<Vec<_>, _>>()?;
        let memory = (own_bytes()? - before) / sizes.iter().sum::<usize>() as f64;
        let mut remembering = Active::new(bench, mode, sizes[0])?;
        remembering.remember(LONG_HISTORY)?;
        let mut variants: Vec<_> = subnets
            .iter_mut()
            .chain([&mut control])
            .map(|subnet| (subnet, true))
            .chain([(&mut remembering, false)])
            .map(|(subnet, forgets)| move || subnet.sample(forgets))
            .collect();
        let mut variants: Vec<Timed<'_>> = variants.iter_mut().map(|variant| variant as Timed<'_>).collect();
        let rounds = interleaved_timed(SAMPLES, &mut variants)?;
        let charging = subnets.iter_mut().map(Active::charging_round).collect::<Result<_, _>>()?;
        let remembered = remembering.rounds.remembered();
        Ok(Self { mode, sizes, rounds, remembered, charging, memory })
    }

    /// Messages a second.
    fn rate(&self, at: usize) -> f64 {
        1e9 * ACTIVE as f64 / self.rounds[at].median()
    }

    /// All sizes against the first.
    fn findings(&self) -> Vec<Finding> {
        let (few, again) = (self.rate(0), self.rate(self.sizes.len()));
        let held = self.rounds[0].steady() && (again / few - 1.0).abs() < CONTROL;
        let compared = |at| Compared { limit: few, measured: self.rate(at), unit: Unit::Rate };
        let by_size = (1..self.sizes.len()).map(|at| {
            Finding::new(id(self.sizes[at], self.mode), &compared(at), AGAINST_FEW, held, self.describe(at))
        });
        let history = Finding::new(
            format!("installed-history-{}", self.mode.name()),
            &compared(self.sizes.len() + 1),
            Target::None,
            held,
            self.describe_history(),
        );
        by_size.chain([history]).collect()
    }

    fn describe_history(&self) -> String {
        format!(
            "empty updates a second in rounds of {ACTIVE}, one for each of {} installed canisters, {}, with {LONG_HISTORY} \
             remembered messages, in the end {}, against at most {}",
            self.sizes[0],
            self.mode.name(),
            self.remembered,
            ROUNDS as usize * ACTIVE
        )
    }

    fn describe(&self, at: usize) -> String {
        format!(
            "empty updates a second in rounds of {ACTIVE}, one for each of {ACTIVE} canisters, {} installed, {}, \
             against {} installed; each takes {} of this process's memory; a round in which storage is charged, \
             one in {} s, takes {}",
            self.sizes[at],
            self.mode.name(),
            self.sizes[0],
            Unit::Bytes.show(self.memory),
            CHARGE_INTERVAL.as_secs(),
            Unit::Time.show(self.charging[at])
        )
    }
}

/// Memory of this process and its page tables, bytes.
fn own_bytes() -> Result<f64, String> {
    Ok(smaps(own_pid(), &["Pss:"])? + page_tables(own_pid())?)
}

/// A subnet of which some canisters get messages.
struct Active {
    rounds: Rounds,
    canisters: Vec<Principal>,
    no_arg: Arc<[u8]>,
}

impl Active {
    fn new(bench: &Bench, mode: Mode, size: usize) -> Result<Self, String> {
        let text = modules::memory(Heap::Bits32, WASM_PAGE_BYTES, 0);
        let wasm = wat::parse_str(text).map_err(|error| error.to_string())?;
        let mut rounds = mode.rounds(bench)?;
        let mut canisters: Vec<_> =
            (0..size).map(|_| rounds.install(&wasm, &[])).collect::<Result<_, _>>()?;
        canisters.truncate(ACTIVE);
        let mut subnet = Self { rounds, canisters, no_arg: Arc::from([]) };
        subnet.forget()?;
        Ok(subnet)
    }

    /// Lets all messages be forgotten that were answered.
    fn forget(&mut self) -> Result<(), String> {
        self.rounds.pass(REMEMBERED);
        self.rounds.round()?;
        match self.rounds.remembered() {
            0 => Ok(()),
            left => Err(format!("{left} benchmark messages are remembered for longer than {REMEMBERED:?}")),
        }
    }

    /// Runs rounds until so many messages are remembered.
    fn remember(&mut self, messages: usize) -> Result<(), String> {
        while self.rounds.remembered() < messages {
            self.round()?;
        }
        Ok(())
    }

    /// Nanoseconds of a round, with what rounds before left in the history or without.
    fn sample(&mut self, forgets: bool) -> Result<f64, String> {
        if forgets {
            self.forget()?;
        }
        let nanoseconds = time(|| (0..ROUNDS).try_for_each(|_| self.round()))?;
        Ok(nanoseconds / f64::from(ROUNDS))
    }

    /// A message to each of the active ones, and its answer.
    fn round(&mut self) -> Result<(), String> {
        let messages = self
            .canisters
            .iter()
            .map(|canister| self.rounds.submit(*canister, "empty", &self.no_arg))
            .collect::<Result<Vec<_>, _>>()?;
        self.rounds.finish(&messages)
    }

    /// Nanoseconds of a round in which storage is charged.
    fn charging_round(&mut self) -> Result<f64, String> {
        let timed: Samples = (0..CHARGES)
            .map(|_| {
                self.rounds.pass(CHARGE_INTERVAL);
                time(|| self.round())
            })
            .collect::<Result<_, _>>()?;
        Ok(timed.median())
    }
}
