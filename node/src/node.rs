//! The composition root: engine, sandbox, policy, selector and rounds, put together from options.

mod instruments;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use execution::{
    Backend, BackendError, Compiler, Cycles, Ingress, IngressStatus, InvalidModule, MessageId, Module,
    Nanoseconds, Outcome, Principal, QueryAnswer, RoundObserver, RoundReport, SchedulerOptions, Subnet,
    SubnetConfig, SubnetState, UserError,
};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess};
use rollout::{
    Arm, Bounds, DivergenceRecord, LiveOptions, LivePolicy, Mode, Observed, Observer, PhaseRecorder,
    Recorder, Reproducer, Sandbox, Selector, ShadowCounts, ShadowOptions, Start,
};
use rustix::process::{Pid, Signal};
use sandbox_host::{
    Confinement, Launchers, LiveWorker, SandboxOptions, SandboxStatus, Sandboxed, SandboxedCompiler, Unwanted,
};
use sandbox_os::tsc;
use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::bundle::Bundles;
use crate::code_cache::{CachingCompiler, CodeCache, CodeCacheStatus, Fingerprint};
use crate::image;
use crate::key::{KeyError, SecretSigner};
use crate::log::{AppendError, Message};
use crate::modules::{KeepingCompiler, Modules};
use crate::observation::Observation;
use crate::outcomes::Outcomes;
use crate::recording::{self, RecordError, Recorded, Recording};
use crate::watch::{self, Given, Watch};

pub use instruments::Instruments;

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where the mode comes from.
    pub policy: PolicySource,
    /// Replicated limits and canister ids.
    pub preset: Preset,
    /// Executor threads; `None`: one for each core.
    pub threads: Option<usize>,
    /// Whether each executed message carries its canister's state root.
    pub message_roots: bool,
    /// A directory for uploaded modules, and for the first of each kind of difference that shadow finds, with all that
    /// it takes to see it again; `None`: nothing is kept.
    pub evidence: Option<PathBuf>,
}

/// Where the mode comes from.
#[derive(Clone, Debug)]
pub enum PolicySource {
    /// Always the same.
    Fixed(Mode),
    /// A file, read again whenever it changes. What it says of the node's bounds is in force as it is at the
    /// start.
    File {
        /// The file.
        path: PathBuf,
        /// The subnet that the node belongs to, as the file calls it.
        subnet: String,
        /// The node, as the file calls it.
        node: String,
        /// Where accepted policies are kept; see [`rollout::LiveOptions::generations`].
        generations: Option<PathBuf>,
    },
}

/// A named set of replicated limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// A system subnet: nothing is charged.
    System,
    /// An application subnet of 13 nodes.
    Application,
}

impl Preset {
    /// What it stands for.
    #[must_use]
    pub fn config(self) -> SubnetConfig {
        match self {
            Self::System => SubnetConfig::system(),
            Self::Application => SubnetConfig::application(),
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Application => "application",
        }
    }
}

impl NodeOptions {
    /// A node that stays in one mode.
    #[must_use]
    pub fn fixed(mode: Mode, preset: Preset) -> Self {
        Self {
            policy: PolicySource::Fixed(mode),
            preset,
            threads: None,
            message_roots: false,
            evidence: None,
        }
    }
}

/// Why a node doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The engine refused its profile.
    #[error("could not start the engine: {0}")]
    Engine(String),
    /// No worker can be started, or confined as is required.
    #[error("nothing can run sandboxed here: {0}. `bulkhead sandbox report` says what is missing")]
    Sandbox(BackendError),
    /// The policy file is missing or bad.
    #[error("{0}")]
    Policy(String),
    /// The node's key has no place.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A node: a subnet, the backends that run it and the policy that chooses between them.
pub struct Node {
    subnet: Subnet,
    preset: Preset,
    compiled: Compiled,
    selector: Arc<Selector>,
    observations: Arc<Observations>,
    sandbox: Option<Arc<Sandboxed>>,
    phases: Arc<PhaseRecorder>,
    evidence: Option<PathBuf>,
    /// While what it does is observed.
    watch: Option<Watch>,
    /// While that goes to a log. A lock, because queries are asked through a shared reference.
    recording: Option<Mutex<Recording>>,
}

/// The engine that modules are compiled for, and the compiler with those that are compiled.
#[derive(Clone)]
struct Compiled {
    engine: Engine,
    compiler: Arc<ModuleCompiler>,
    /// Those that are compiled, on disk.
    code_cache: Option<Arc<CodeCache>>,
    /// Whether modules are compiled in processes of their own.
    in_sandbox: bool,
}

/// What the node measured of an execution, beside its deterministic result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The mode that it ran in.
    pub mode: Mode,
    /// Time in the backend.
    pub duration: Duration,
}

/// The committed executions since the last round began, by invocation.
#[derive(Debug, Default)]
struct Observations {
    measured: Mutex<HashMap<u64, Measured>>,
    /// Whether somebody asks for what executions gave.
    watching: AtomicBool,
    given: Given,
    outcomes: Outcomes,
    /// Where differences are kept.
    bundles: Option<Bundles>,
}

/// Where a node was before a round.
#[derive(Clone)]
pub(crate) struct Before {
    state: SubnetState,
    watch: Option<Watch>,
}

impl Observations {
    fn measured(&self) -> MutexGuard<'_, HashMap<u64, Measured>> {
        lock(&self.measured)
    }

    fn clear(&self) {
        self.measured().clear();
        self.given.clear();
    }
}

impl Observer for Observations {
    fn on_executed(&self, observed: &Observed) {
        if observed.arm != Arm::ShadowCandidate {
            let measured = Measured { mode: observed.mode, duration: observed.duration };
            self.measured().insert(observed.invocation, measured);
            self.outcomes.count(observed);
        }
    }

    fn on_outcome(&self, invocation: u64, outcome: &Outcome) {
        if self.watching.load(Ordering::Relaxed) {
            self.given.keep(invocation, outcome);
        }
    }

    fn on_new_divergence(&self, reproducer: &Reproducer<'_>) -> Option<Result<String, String>> {
        let kept = self.bundles.as_ref()?.keep(reproducer);
        if let Err(why) = &kept {
            tracing::warn!("a difference could not be kept to be seen again: {why}");
        }
        Some(kept)
    }
}

impl Node {
    /// Puts a node together. The launcher is started before the node holds anything but its policy. This process's
    /// limit of open files is raised as far as it goes.
    ///
    /// # Errors
    /// The engine, the sandbox or the policy file.
    pub fn new(options: NodeOptions) -> Result<Self, NodeError> {
        Self::with(options, None, None)
    }

    /// Another node without canisters, of the same kind of subnet and with the modules that are compiled
    /// here, in `mode` for ever.
    ///
    /// # Errors
    /// As for [`Node::new`].
    pub fn twin(&self, mode: Mode) -> Result<Self, NodeError> {
        Self::with(NodeOptions::fixed(mode, self.preset), Some(self.compiled.clone()), None)
    }

    /// Like [`Node::twin`], with `backend` in the sandbox's place, and [`NodeOptions::evidence`].
    ///
    /// # Errors
    /// As for [`Node::new`].
    pub fn twin_on(
        &self,
        mode: Mode,
        backend: Arc<dyn Backend>,
        evidence: Option<PathBuf>,
    ) -> Result<Self, NodeError> {
        let options = NodeOptions { evidence, ..NodeOptions::fixed(mode, self.preset) };
        Self::with(options, Some(self.compiled.clone()), Some(backend))
    }

    /// Another node of the same subnet, without canisters, which follows a policy of its own and uses the modules that
    /// are compiled here.
    ///
    /// # Errors
    /// As for [`Node::new`].
    pub fn peer(&self, policy: PolicySource) -> Result<Self, NodeError> {
        let evidence = self.evidence.clone();
        let options = NodeOptions { policy, evidence, ..NodeOptions::fixed(Mode::InProcess, self.preset) };
        Self::with(options, Some(self.compiled.clone()), None)
    }

    /// What it measures, for other threads.
    #[must_use]
    pub fn instruments(&self) -> Instruments {
        Instruments {
            selector: Arc::clone(&self.selector),
            sandbox: self.sandbox.clone(),
            phases: Arc::clone(&self.phases),
            observations: Arc::clone(&self.observations),
            limits: Arc::clone(&self.subnet.config().limits),
        }
    }

    /// The engine that its modules are compiled for.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.compiled.engine
    }

    fn with(
        options: NodeOptions,
        compiled: Option<Compiled>,
        sandboxed: Option<Arc<dyn Backend>>,
    ) -> Result<Self, NodeError> {
        bounds::raise_open_files();
        let live = match &options.policy {
            PolicySource::Fixed(mode) => LivePolicy::fixed(*mode),
            PolicySource::File { path, subnet, node, generations } => {
                let options =
                    LiveOptions { generations: generations.clone(), ..LiveOptions::new(path, subnet, node) };
                LivePolicy::start(options).map_err(|error| NodeError::Policy(error.to_string()))?
            }
        };
        let bounds = live.load().policy.bounds().clone();
        let launchers = match options.policy {
            _ if sandboxed.is_some() => None,
            PolicySource::Fixed(Mode::InProcess) => None,
            PolicySource::Fixed(Mode::Sandboxed | Mode::Shadow) | PolicySource::File { .. } => {
                Some(image::launchers().map_err(NodeError::Sandbox)?)
            }
        };
        let phases = Arc::new(PhaseRecorder::default());
        let sandbox = launchers
            .clone()
            .map(|launchers| start_sandbox(launchers, &bounds, &live, &phases))
            .transpose()?;
        if let Some(sandbox) = &sandbox {
            match sandbox.probe() {
                Ok(()) => {}
                // A limit that is met now is waited for later.
                Err(error @ BackendError::Spawn(_)) if live.load().mode() == Mode::Sandboxed => {
                    return Err(NodeError::Sandbox(error));
                }
                Err(error) => tracing::warn!("nothing can run sandboxed here now: {error}"),
            }
            if let Some(reduced @ Confinement::Reduced(_)) = sandbox.status().confinement {
                tracing::warn!("confinement of the sandbox's workers is {reduced}");
            }
        }
        let sandboxed = sandboxed.or_else(|| sandbox.clone().map(|sandbox| sandbox as Arc<dyn Backend>));
        let config = options.preset.config().signed_by(SecretSigner::development()?);
        // With a sandbox, no module is compiled in this process, whoever else would.
        let compiled = match compiled.filter(|compiled| compiled.in_sandbox || launchers.is_none()) {
            Some(compiled) => compiled,
            None => Compiled::new(&config, launchers, &bounds)?,
        };
        let modules = options.evidence.as_ref().map(|state| Arc::new(Modules::new(state.join("modules"))));
        let bundles = options.evidence.as_ref().zip(modules.clone()).map(|(state, modules)| {
            let node = match &options.policy {
                PolicySource::File { node, .. } => node,
                PolicySource::Fixed(_) => "-",
            };
            Bundles::new(state.join("divergences"), node, modules)
        });
        let observations = Arc::new(Observations { bundles, ..Observations::default() });
        let selector = Arc::new(Selector::with(
            live,
            Arc::new(InProcess::new(compiled.engine.clone(), &bounds::in_process(&bounds))),
            Sandbox::from(sandboxed),
            Arc::new(Recorder::new()),
            Some(Arc::clone(&observations) as Arc<dyn Observer>),
            ShadowOptions::default(),
        ));
        let scheduler = SchedulerOptions {
            threads: options.threads.unwrap_or_else(|| SchedulerOptions::default().threads),
            message_roots: options.message_roots,
            memory: bounds::memory(&bounds),
            // They start no program.
            on_thread_start: Some(Arc::new(|_| tsc::may_be_shut())),
            observer: Some(Arc::clone(&selector) as Arc<dyn RoundObserver>),
        };
        let backend = Arc::clone(&selector) as Arc<dyn Backend>;
        let mut compiler = Arc::clone(&compiled.compiler) as Arc<dyn Compiler>;
        if let Some(modules) = modules {
            compiler = Arc::new(KeepingCompiler { modules, compiler });
        }
        let subnet = Subnet::new(config, backend, compiler, scheduler);
        let preset = options.preset;
        Ok(Self {
            subnet,
            preset,
            compiled,
            selector,
            observations,
            sandbox,
            phases,
            evidence: options.evidence,
            watch: None,
            recording: None,
        })
    }

    /// Records everything from now on into a file at `path`, over a log that is there; the node must be as new.
    /// See [`Node::record`].
    ///
    /// # Errors
    /// The file can't be made, or the log can't be begun.
    pub fn record_to(&mut self, path: &Path) -> Result<(), RecordError> {
        self.record(recording::create(path)?).map_err(|error| RecordError::new(path, error))
    }

    /// Records everything from now on into `file`, which should be empty; the node must be as new.
    ///
    /// A recording that fails later doesn't stop the node: ask [`Node::recording_failure`].
    ///
    /// # Errors
    /// The log can't be begun.
    pub fn record(&mut self, file: File) -> Result<(), AppendError> {
        self.recording = Some(Mutex::new(Recording::begin(file, self.preset)?));
        self.watch();
        Ok(())
    }

    /// Why nothing is recorded any more, if a recording failed.
    #[must_use]
    pub fn recording_failure(&self) -> Option<String> {
        let recording = self.recording.as_ref()?;
        lock(recording).failure().map(ToString::to_string)
    }

    /// Ends the recording and writes it to the disk; `None`: there is none.
    ///
    /// # Errors
    /// It failed, now or before.
    pub fn finish_recording(&mut self) -> Result<Option<Recorded>, AppendError> {
        let recording = self.recording.take().map(Mutex::into_inner);
        recording.map(|recording| recording.unwrap_or_else(PoisonError::into_inner).finish()).transpose()
    }

    /// Observes what is done from now on.
    pub fn watch(&mut self) {
        self.watch.get_or_insert_default();
        self.observations.watching.store(true, Ordering::Relaxed);
    }

    /// Runs a round with the messages taken in before.
    pub fn round(&mut self, time: Nanoseconds, seed: [u8; 32]) -> RoundReport {
        let (report, observed) = self.observed_round(time, seed);
        if let Some(recording) = &self.recording {
            lock(recording).round(time, seed, observed);
        }
        report
    }

    /// Runs a round, and says what it gave; nothing, where nobody watches.
    pub fn observed_round(&mut self, time: Nanoseconds, seed: [u8; 32]) -> (RoundReport, Vec<Observation>) {
        self.observations.clear();
        // The thread that asks for it runs canisters too.
        let report = tsc::may_be_shut_during(|| self.subnet.round(time, seed));
        let observed = match &mut self.watch {
            Some(watch) => watch.round(&mut self.subnet, &report, &self.observations.given),
            None => Vec::new(),
        };
        (report, observed)
    }

    /// Where it is, for [`Node::go_back`].
    pub(crate) fn before(&self) -> Before {
        Before { state: self.subnet.state().clone(), watch: self.watch.clone() }
    }

    /// Undoes what was run since `before` was asked for. What is recorded stays recorded.
    pub(crate) fn go_back(&mut self, before: Before) {
        let Before { state, watch } = before;
        self.subnet.go_back(state);
        self.watch = watch;
        self.observations.clear();
    }

    /// Takes a message in for the next round.
    ///
    /// # Errors
    /// The canister or the system refuses it; nothing is changed then.
    pub fn submit(&mut self, message: Ingress) -> Result<MessageId, UserError> {
        let recorded = self.recording.is_some().then(|| message.clone());
        let result = self.subnet.submit(message);
        if let Some(watch) = &mut self.watch {
            watch.submitted(result.as_ref().ok().copied());
            // What an inspection gave is its result.
            self.observations.given.clear();
        }
        if let Some((recording, message)) = self.recording.as_ref().zip(recorded) {
            lock(recording).submit(&message, &result);
        }
        result
    }

    /// Forgets the message that was refused last, and counted by who observes the node.
    pub(crate) fn forget_refused(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.forget_refused();
        }
    }

    /// How far a message is.
    #[must_use]
    pub fn status(&self, id: &MessageId) -> IngressStatus {
        self.subnet.status(id)
    }

    /// Asks a canister on the committed state.
    #[must_use]
    pub fn query(&self, sender: Principal, canister: Principal, method: &str, arg: &[u8]) -> QueryAnswer {
        let answer = self.subnet.query(sender, canister, method, arg);
        if let Some(recording) = &self.recording {
            let observed = watch::query(&answer, &self.observations.given);
            let message = Message {
                sender,
                receiver: canister,
                method: method.into(),
                arg: arg.into(),
                nonce: Cow::default(),
            };
            lock(recording).query(message, observed);
        }
        answer
    }

    /// Asks a canister, and says what the query gave, if somebody watches.
    #[must_use]
    pub fn observed_query(&self, message: &Message<'_>) -> Vec<Observation> {
        let Message { sender, receiver, method, arg, nonce: _ } = message;
        let answer = self.subnet.query(*sender, *receiver, method, arg);
        watch::query(&answer, &self.observations.given)
    }

    /// The state after the last round.
    #[must_use]
    pub fn state(&self) -> &SubnetState {
        self.subnet.state()
    }

    /// The state root after the last round.
    pub fn state_root(&mut self) -> [u8; 32] {
        self.subnet.state_root()
    }

    /// The root of the certified state after the last round.
    #[must_use]
    pub fn certified_root(&self) -> [u8; 32] {
        self.subnet.certified().root()
    }

    /// What was measured of an execution; `None` for executions before the last round.
    #[must_use]
    pub fn measured(&self, invocation: u64) -> Option<Measured> {
        self.observations.measured().get(&invocation).copied()
    }

    /// The policy that chooses between its backends.
    #[must_use]
    pub fn policy(&self) -> &Arc<LivePolicy> {
        self.selector.live()
    }

    /// The latencies of all executions so far.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        self.selector.recorder()
    }

    /// Waits at most `patience` until shadow has compared all that ran in it. False: it has not.
    pub fn settle_shadow(&self, patience: Duration) -> bool {
        self.selector.settle(patience)
    }

    /// What shadow has compared so far.
    #[must_use]
    pub fn shadow_counts(&self) -> ShadowCounts {
        self.selector.shadow_counts()
    }

    /// Its backends: in-process and sandboxed.
    ///
    /// # Errors
    /// It can't sandbox.
    pub fn backends(&self) -> Result<[Arc<dyn Backend>; 2], BackendError> {
        self.selector.backends()
    }

    /// The differences that shadow found.
    #[must_use]
    pub fn divergences(&self) -> Vec<DivergenceRecord> {
        self.selector.divergences()
    }

    /// The sandbox's workers, counts and layers; `None` without a sandbox.
    #[must_use]
    pub fn sandbox(&self) -> Option<SandboxStatus> {
        self.sandbox.as_ref().map(|sandbox| sandbox.status())
    }

    /// What came of the compiled modules on disk; `None` without a directory for them.
    #[must_use]
    pub fn code_cache(&self) -> Option<CodeCacheStatus> {
        self.compiled.code_cache.as_ref().map(|cache| cache.status())
    }

    /// Layers of confinement that this kernel or user can't give the workers; empty without a worker.
    #[must_use]
    pub fn layers_off(&self) -> Vec<&'static str> {
        let layers = self.sandbox().map(|status| status.layers).unwrap_or_default();
        layers.into_iter().filter(|(_, is_on)| !is_on).map(|(name, _)| name).collect()
    }

    /// What the layers that are on amount to; `None` without a worker.
    #[must_use]
    pub fn confinement(&self) -> Option<Confinement> {
        self.sandbox()?.confinement
    }

    /// Kills a worker as the kernel or an operator might; nothing but a retry may come of it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill_worker(&self, worker: &LiveWorker) -> std::io::Result<()> {
        let pid = Pid::from_raw(worker.pid).ok_or(std::io::ErrorKind::InvalidInput)?;
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        // Still a worker, so the handle is its own: its number is nobody else's before it leaves the list.
        let lives = self.sandbox().is_some_and(|now| now.workers.iter().any(|live| live.pid == worker.pid));
        if !lives {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        Ok(rustix::process::pidfd_send_signal(handle, Signal::KILL)?)
    }

    /// Makes an empty canister as an operator does, with `creator` and itself as controllers.
    ///
    /// # Errors
    /// The subnet has no ids left.
    pub fn create_canister(&mut self, creator: Principal, cycles: Cycles) -> Result<Principal, UserError> {
        let created = self.subnet.create_canister(creator, None, cycles);
        if let Some(recording) = &self.recording {
            lock(recording).create(creator, cycles, &created);
        }
        created
    }

    /// Compiles a module, or finds it compiled.
    ///
    /// # Errors
    /// What failed around the module; the inner error is the module's own.
    pub fn compile(&self, wasm: &[u8]) -> Result<Result<Arc<Module>, InvalidModule>, BackendError> {
        self.compiled.compiler.compile(wasm)
    }

    /// Compiles modules on all cores, so that installing them finds them compiled. What is wrong with a
    /// module is told when it is installed.
    pub fn compile_ahead(&self, modules: &[&[u8]]) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let compiler = &*self.compiled.compiler;
        std::thread::scope(|scope| {
            for _ in 0..threads.min(modules.len()) {
                scope.spawn(|| {
                    while let Some(module) = modules.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _told_at_install = compiler.compile(module);
                    }
                });
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks hold is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_sandbox(
    launchers: Arc<Launchers>,
    bounds: &Bounds,
    live: &Arc<LivePolicy>,
    phases: &Arc<PhaseRecorder>,
) -> Result<Arc<Sandboxed>, NodeError> {
    let live = Arc::clone(live);
    let unwanted: Unwanted = Arc::new(move |began| live.is_rolled_back(began));
    let (phases, beside) = (Arc::clone(phases), Arc::clone(phases));
    let observer: sandbox_host::Observer = Arc::new(move |spent| {
        let start = if spent.cold { Start::Cold } else { Start::Warm };
        phases.record(start, [spent.prepare, spent.worker, spent.pages]);
    });
    let round_trips: sandbox_host::RoundTripObserver = Arc::new(move |took| beside.record_round_trip(took));
    let options = SandboxOptions {
        unwanted: Some(unwanted),
        observer: Some(observer),
        round_trips: Some(round_trips),
        ..bounds::sandbox(bounds)
    };
    let sandbox = Sandboxed::start(launchers, options);
    sandbox.map(Arc::new).map_err(NodeError::Sandbox)
}

impl Compiled {
    /// A compiler with nothing compiled but what is on disk: in processes of `launchers`, if there are any, else in this
    /// process.
    fn new(
        config: &SubnetConfig,
        launchers: Option<Arc<Launchers>>,
        bounds: &Bounds,
    ) -> Result<Self, NodeError> {
        let engine = Engine::new().map_err(|error| NodeError::Engine(error.to_string()))?;
        let limits = Arc::clone(&config.limits);
        let Some(launchers) = launchers else {
            let compiler = Arc::new(ModuleCompiler::new(engine.clone(), limits));
            return Ok(Self { engine, compiler, code_cache: None, in_sandbox: false });
        };
        let compiler = SandboxedCompiler::start(launchers, Arc::clone(&limits), bounds::compiler(bounds));
        let mut compiler: Box<dyn Compiler> = Box::new(compiler);
        let code_cache = bounds::code_cache(bounds).map(|options| {
            let profile = engine.raw().precompile_compatibility_hash();
            let fingerprint = Fingerprint::of(profile, &limits, image::IMAGES.compiler);
            Arc::new(CodeCache::open(options, fingerprint))
        });
        if let Some(cache) = &code_cache {
            compiler = Box::new(CachingCompiler::new(Arc::clone(cache), compiler));
        }
        let compiler = Arc::new(ModuleCompiler::keeping(compiler));
        Ok(Self { engine, compiler, code_cache, in_sandbox: true })
    }
}

/// Runs `work` on a thread that may run rounds.
///
/// # Panics
/// If `work` does.
pub fn on_executor_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("rounds".to_owned())
            .stack_size(execution::EXECUTOR_STACK_BYTES)
            .spawn_scoped(scope, work)
            .expect("a thread can be started");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
