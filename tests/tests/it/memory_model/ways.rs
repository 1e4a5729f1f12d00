//! The ways to run a case, and what each has to agree on with the model.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bulkhead_node::image;
use execution::check::{check, returns_memory};
use execution::memory::{Blob, Memory, PAGE_BYTES, PageVersion, WASM_PAGE_BYTES};
use execution::root::MemoryRoot;
use execution::{
    Answer, Backend, BackendError, Ending, Execution, Invocation, Limits, Module, Outcome, Snapshot,
};
use in_process::{Engine, InProcess, InProcessOptions};
use sandbox_host::{Role, SandboxOptions, Sandboxed};

use super::actions::{KINDS, Message, STABLE_PAGES_MAX, Step};
use super::canister::{self, Canister};
use super::model::{Expected, Model};
use crate::processes;

/// Bytes of page versions that a canister of a case may have.
const ARENA_BYTES: u64 = 64 << 20;
/// Instances, and workers, that a way keeps warm: fewer than the three canisters of a case have in two roles.
const WARM_MAX: usize = 4;

/// What differs, and where.
pub(super) type Difference = String;

/// A way to run messages.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) backend: Box<dyn Backend>,
    /// The sandbox behind it, if there is one.
    pub(crate) sandbox: Option<Arc<Sandboxed>>,
}

/// Starts the sandbox.
pub(super) fn sandbox(options: SandboxOptions) -> Arc<Sandboxed> {
    Arc::new(
        Sandboxed::start(image::launchers().expect("launchers start"), options).expect("the sandbox starts"),
    )
}

pub(crate) fn in_process(engine: &Engine) -> Way {
    let options = InProcessOptions { instances_max: WARM_MAX, ..InProcessOptions::default() };
    let backend = Box::new(InProcess::new(engine.clone(), &options));
    Way { name: "in-process, warm", backend, sandbox: None }
}

pub(crate) fn in_process_fresh(engine: &Engine) -> Way {
    Way { name: "in-process, fresh", backend: Box::new(FreshInstances(engine.clone())), sandbox: None }
}

pub(crate) fn sandboxed() -> Way {
    let sandbox = sandbox(SandboxOptions { workers_max: WARM_MAX, pool: 1, ..SandboxOptions::default() });
    let backend = Box::new(Shared(Arc::clone(&sandbox)));
    Way { name: "sandboxed, warm", backend, sandbox: Some(sandbox) }
}

pub(crate) fn sandboxed_fresh() -> Way {
    let sandbox = sandbox(SandboxOptions { workers_max: WARM_MAX, pool: 1, ..SandboxOptions::default() });
    let backend = Box::new(FreshWorkers { sandbox: Arc::clone(&sandbox), messages: AtomicU64::new(0) });
    Way { name: "sandboxed, fresh", backend, sandbox: Some(sandbox) }
}

/// A sandbox that others look into.
struct Shared(Arc<Sandboxed>);

impl Backend for Shared {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        self.0.execute(snapshot, invocation)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.0.query(snapshot, invocation, overlay)
    }
}

/// A new backend for every message.
struct FreshInstances(Engine);

impl FreshInstances {
    fn backend(&self) -> InProcess {
        InProcess::new(self.0.clone(), &InProcessOptions::default())
    }
}

impl Backend for FreshInstances {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        self.backend().execute(snapshot, invocation)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.backend().query(snapshot, invocation, overlay)
    }
}

/// A new worker for every message: new code always means a new worker, so each message comes with the same
/// code under another name.
struct FreshWorkers {
    sandbox: Arc<Sandboxed>,
    messages: AtomicU64,
}

impl FreshWorkers {
    fn renamed(&self, snapshot: &Snapshot) -> Snapshot {
        let Module { hash, wasm_bytes, interface, code } = &*snapshot.module;
        let file = std::fs::File::from(code.file().try_clone_to_owned().expect("a descriptor"));
        let mut bytes = vec![0; code.len()];
        file.read_exact_at(&mut bytes, 0).expect("a sealed file can be read");
        let mut hash = *hash;
        hash.0[..8].copy_from_slice(&self.messages.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let code = Blob::new(&bytes).expect("the kernel gives a memory file");
        let module = Module { hash, wasm_bytes: *wasm_bytes, interface: interface.clone(), code };
        Snapshot { module: Arc::new(module), ..snapshot.clone() }
    }
}

impl Backend for FreshWorkers {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        self.sandbox.execute(&self.renamed(snapshot), invocation)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        let overlay = overlay.map(|overlay| self.renamed(overlay));
        self.sandbox.query(&self.renamed(snapshot), invocation, overlay.as_ref())
    }
}

/// What came of a case in one way, beyond agreeing with the model.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// All outcomes without what lies in pages: to be equal in all ways.
    pub(super) outcomes: Vec<Outcome>,
    /// Messages whose worker had been killed.
    pub(super) doomed: u64,
    /// Messages that a worker served which had served its canister before.
    pub(super) warm: u64,
}

/// A case on its way.
struct Case<'a> {
    way: &'a Way,
    canisters: Vec<Canister>,
    kept: Vec<(usize, Canister)>,
    hashing: Vec<Hashing>,
    /// Workers that the case has killed.
    killed: BTreeSet<i32>,
    messages: u64,
    account: Account,
}

impl Way {
    /// Runs a case; `number` is its own, so that no two cases share a canister.
    pub(super) fn run(
        &self,
        number: u64,
        modules: &[Arc<Module>],
        steps: &[Step],
    ) -> Result<Account, Difference> {
        let limits = Limits { stable_bytes: STABLE_PAGES_MAX * WASM_PAGE_BYTES, ..Limits::application() };
        let limits = Arc::new(limits);
        let number_of = |index: u64| number * KINDS.len() as u64 + index;
        let canisters: Vec<Canister> = (0..)
            .zip(modules)
            .map(|(index, module)| Canister::new(number_of(index), module, &limits, ARENA_BYTES))
            .collect();
        let mut case = Case {
            way: self,
            hashing: canisters.iter().map(|_| Hashing::default()).collect(),
            canisters,
            kept: Vec::new(),
            killed: BTreeSet::new(),
            messages: 0,
            account: Account::default(),
        };
        for (index, step) in steps.iter().enumerate() {
            case.step(step).map_err(|what| format!("{}, action {index}: {what}", self.name))?;
        }
        for hashing in &mut case.hashing {
            hashing.settle().map_err(|what| format!("{}, at the end: {what}", self.name))?;
        }
        Ok(case.account)
    }
}

impl Case<'_> {
    fn step(&mut self, step: &Step) -> Result<(), Difference> {
        match step {
            Step::Message { canister, message, committed, on } => {
                let target = self.target(*canister, *on);
                let outcome = self.message(&target, message, None)?;
                if *committed {
                    let after = canister::after(&target.snapshot, &outcome);
                    require_state(&after, &message.expected.after)?;
                    self.canisters[*canister].snapshot = after;
                }
                self.account.outcomes.push(without_pages(outcome));
                Ok(())
            }
            Step::Composite { canister, messages } => {
                let target = self.target(*canister, None);
                let mut overlay: Option<Snapshot> = None;
                for message in messages {
                    let outcome = self.message(&target, message, overlay.as_ref())?;
                    overlay = Some(canister::after(overlay.as_ref().unwrap_or(&target.snapshot), &outcome));
                    self.account.outcomes.push(without_pages(outcome));
                }
                Ok(())
            }
            Step::Keep { canister } => {
                self.kept.push((*canister, self.canisters[*canister].clone()));
                Ok(())
            }
            Step::Drop { kept } => {
                self.kept.remove(*kept);
                Ok(())
            }
            Step::Kill { worker } => {
                self.kill(*worker);
                Ok(())
            }
            Step::Nothing => Ok(()),
            Step::Hash { canister, on, roots } => {
                let snapshot = self.target(*canister, *on).snapshot;
                self.hashing[*canister].start(snapshot, *roots)
            }
        }
    }

    fn target(&self, canister: usize, on: Option<usize>) -> Canister {
        on.map_or(&self.canisters[canister], |kept| &self.kept[kept].1).clone()
    }

    fn kill(&mut self, worker: proptest::sample::Index) {
        let pids = self.way.sandbox.as_ref().map_or_else(Vec::new, |sandbox| sandbox.pids());
        if !pids.is_empty() {
            let pid = *worker.get(&pids);
            processes::kill(pid.cast_unsigned());
            self.killed.insert(pid);
        }
    }

    /// Runs a message, again if its worker has been killed, and compares what came of it with the model.
    fn message(
        &mut self,
        target: &Canister,
        message: &Message,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, Difference> {
        self.messages += 1;
        let invocation = target.invocation(self.messages, message.entry.clone(), message.scratch);
        let before = self.worker(&invocation);
        let doomed = before.is_some_and(|pid| self.killed.contains(&pid));
        self.account.doomed += u64::from(doomed);
        let run = || canister::run(&*self.way.backend, &target.snapshot, &invocation, overlay);
        let outcome = match run() {
            Err(BackendError::WorkerDied { .. }) if doomed => run(),
            first => first,
        };
        let outcome = outcome.map_err(|error| error.to_string())?;
        self.account.warm += u64::from(before.is_some() && before == self.worker(&invocation));
        let before = overlay.unwrap_or(&target.snapshot);
        let checked = check(&invocation, before, outcome).map_err(|violation| violation.to_string())?;
        require(&message.expected, before, &invocation, checked.outcome())?;
        Ok(checked.into_outcome())
    }

    /// The worker that is there for a message's canister and side; `None` also where there are no workers.
    fn worker(&self, invocation: &Invocation) -> Option<i32> {
        let role = if invocation.entry.is_replicated() { Role::Update } else { Role::Query };
        let serves = Some((invocation.system.canister, role));
        let workers = self.way.sandbox.as_ref()?.status().workers;
        workers.iter().find(|worker| worker.canister == serves).map(|worker| worker.pid)
    }
}

/// The hashes of one canister's memories, kept up to date on a thread of their own.
#[derive(Default)]
struct Hashing {
    idle: [MemoryRoot; 2],
    busy: Option<JoinHandle<([MemoryRoot; 2], bool)>>,
}

impl Hashing {
    /// Waits for the hashes under way, then starts on those of `snapshot`.
    fn start(&mut self, snapshot: Snapshot, wanted: [[u8; 32]; 2]) -> Result<(), Difference> {
        self.settle()?;
        let [mut heap, mut stable] = std::mem::take(&mut self.idle);
        self.busy = Some(std::thread::spawn(move || {
            let got = [heap.root(&snapshot.heap), stable.root(&snapshot.stable)];
            ([heap, stable], got == wanted)
        }));
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Difference> {
        if let Some(busy) = self.busy.take() {
            let same;
            (self.idle, same) = busy.join().expect("hashing doesn't panic");
            if !same {
                return Err("the hash of a memory is another than that of its bytes from scratch".into());
            }
        }
        Ok(())
    }
}

/// Compares an outcome with the model's.
fn require(
    expected: &Expected,
    before: &Snapshot,
    invocation: &Invocation,
    outcome: &Outcome,
) -> Result<(), Difference> {
    let keeps = returns_memory(&invocation.entry) && expected.end.is_ok();
    require_end(expected, outcome)?;
    let same = |what: &str, got: u64, wanted: &BTreeSet<u64>| {
        let message = || format!("{got} {what} pages written, and not those of {wanted:?}");
        (got == wanted.len() as u64).then_some(()).ok_or_else(message)
    };
    same("heap", outcome.heap_pages_dirty, &expected.heap)?;
    same("stable", outcome.stable_pages_dirty, &expected.stable)?;
    let Some(effects) = &outcome.effects else { return Ok(()) };
    let globals = if keeps { expected.after.globals().to_vec() } else { before.globals.to_vec() };
    if effects.globals[..] != globals {
        return Err(format!("globals {:?}, not {globals:?}", effects.globals));
    }
    let delta = &effects.memory;
    if !keeps {
        let nothing = *delta == execution::MemoryDelta::default();
        return nothing.then_some(()).ok_or_else(|| format!("memory of a query: {delta:?}"));
    }
    let after = &expected.after;
    require_delta("heap", &before.heap, delta.heap_pages, &delta.heap, &expected.heap, &after.heap)?;
    require_delta(
        "stable",
        &before.stable,
        delta.stable_pages,
        &delta.stable,
        &expected.stable,
        &after.stable,
    )
}

fn require_end(expected: &Expected, outcome: &Outcome) -> Result<(), Difference> {
    match (&expected.end, &outcome.ending) {
        (Ok(reply), Ending::Returned) => {
            let answer = outcome.effects.as_ref().and_then(|effects| effects.answer.as_ref());
            let Some(Answer::Reply(got)) = answer else { return Err(format!("no reply: {answer:?}")) };
            difference("the reply", got, reply)
        }
        (Err(words), Ending::Trapped(trap)) if trap.text.contains(words) => Ok(()),
        (wanted, got) => {
            let wanted = wanted.as_ref().map(|_| "a reply");
            Err(format!("{got:?}, not {wanted:?}"))
        }
    }
}

fn require_delta(
    what: &str,
    before: &Memory,
    grown: Option<u64>,
    written: &[(u64, PageVersion)],
    pages: &BTreeSet<u64>,
    after: &[u8],
) -> Result<(), Difference> {
    let size = after.len() as u64 / WASM_PAGE_BYTES;
    let wanted = (size != before.wasm_pages()).then_some(size);
    if grown != wanted {
        return Err(format!("{what} size {grown:?}, not {wanted:?}"));
    }
    let listed: Vec<u64> = written.iter().map(|(page, _)| *page).collect();
    if !listed.iter().eq(pages) {
        return Err(format!("{what} pages {listed:?} written, not {pages:?}"));
    }
    written.iter().try_for_each(|(page, version)| {
        let at = *page as usize * PAGE_BYTES;
        difference(&format!("written {what} page {page}"), version.bytes(), &after[at..at + PAGE_BYTES])
    })
}

/// Compares a state of record with the model's, byte by byte.
fn require_state(snapshot: &Snapshot, model: &Model) -> Result<(), Difference> {
    for (what, memory, wanted) in
        [("heap", &snapshot.heap, &model.heap), ("stable memory", &snapshot.stable, &model.stable)]
    {
        if memory.bytes() != wanted.len() as u64 {
            return Err(format!("{what} of {} bytes, not {}", memory.bytes(), wanted.len()));
        }
        let mut got = vec![0; wanted.len()];
        memory.read(0, &mut got);
        difference(what, &got, wanted)?;
    }
    Ok(())
}

/// Where bytes differ first.
fn difference(what: &str, got: &[u8], wanted: &[u8]) -> Result<(), Difference> {
    if got == wanted {
        return Ok(());
    }
    let at = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
    Err(match at {
        Some(at) => format!("{what}: byte {at} is {}, not {}", got[at], wanted[at]),
        None => format!("{what}: {} bytes, not {}", got.len(), wanted.len()),
    })
}

/// An outcome without what the model has already seen.
fn without_pages(mut outcome: Outcome) -> Outcome {
    if let Some(effects) = &mut outcome.effects {
        effects.memory.heap.clear();
        effects.memory.stable.clear();
        effects.answer = None;
    }
    outcome
}
