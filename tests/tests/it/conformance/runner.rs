//! Runs each check in every mode and compares what came of it, step by step.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bulkhead_node::image;
use bulkhead_node::node::on_executor_stack;
use execution::state::SubnetState;
use execution::{
    Backend, BackendError, Compiler, Executed, Execution, Ingress, IngressStatus, Invocation, Limits,
    MessageId, Outcome, Principal, SchedulerOptions, Snapshot, Subnet, SubnetConfig, UserError,
};
use in_process::compile::ModuleCompiler;
use in_process::{Engine, InProcess, InProcessOptions};
use rollout::{LivePolicy, Mode, Recorder, Selector};
use sandbox_host::source::{LauncherSource, WorkerSource};
use sandbox_host::{SandboxOptions, Sandboxed};
use sha2::{Digest as _, Sha256};

use crate::certificate::verified;
use crate::compile::{Compared, compilers};

use super::check::{Act, Check, Code, IDS, Ids, Want, user};
use super::management::{self, Install};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Time of the first round.
const START: u64 = 1_700_000_000 * SECOND + 7;
/// Rounds that a message gets before it counts as waiting.
const ROUNDS_MAX: usize = 4;
/// How long shadow may take to compare what ran.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to run a check.
struct Way {
    name: &'static str,
    backend: Arc<dyn Backend>,
    shadow: Option<Arc<Selector>>,
}

/// Everything that is slow to start: once per process.
struct Rig {
    engine: Engine,
    ways: Vec<Way>,
    compilers: Arc<LauncherSource>,
}

/// A new instance for every run.
struct Fresh(Engine);

impl Backend for Fresh {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        InProcess::new(self.0.clone(), &options()).execute(snapshot, invocation)
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        InProcess::new(self.0.clone(), &options()).query(snapshot, invocation, overlay)
    }
}

/// Each message in two slices, the second of which has room for all that is left over when the first ends.
struct Sliced {
    engine: Engine,
    backend: Arc<dyn Backend>,
}

impl Backend for Sliced {
    fn execute(&self, snapshot: &Snapshot, invocation: &Invocation) -> Result<Execution, BackendError> {
        let slice = match Fresh(self.engine.clone()).execute(snapshot, invocation)? {
            Execution::Finished(whole) if whole.instructions <= invocation.slice => {
                whole.instructions * 2 / 3 + 1
            }
            // It has slices anyway.
            _ => invocation.slice,
        };
        if slice == invocation.slice {
            return self.backend.execute(snapshot, invocation);
        }
        match self.backend.execute(snapshot, &Invocation { slice, ..invocation.clone() })? {
            Execution::Paused(run) => run.resume(slice),
            finished @ Execution::Finished(_) => Ok(finished),
        }
    }

    fn query(
        &self,
        snapshot: &Snapshot,
        invocation: &Invocation,
        overlay: Option<&Snapshot>,
    ) -> Result<Outcome, BackendError> {
        self.backend.query(snapshot, invocation, overlay)
    }
}

/// Few instances, so that some are evicted.
fn options() -> InProcessOptions {
    InProcessOptions { instances_max: 8, ..InProcessOptions::default() }
}

fn rig() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| {
        let sandbox = SandboxOptions { workers_max: 12, ..SandboxOptions::default() };
        let sandbox = Sandboxed::start(image::launchers().expect("launchers start"), sandbox)
            .expect("the sandbox starts");
        let sandbox: Arc<dyn Backend> = Arc::new(sandbox);
        let engine = Engine::new().expect("the engine starts");
        let in_process = || -> Arc<dyn Backend> { Arc::new(InProcess::new(engine.clone(), &options())) };
        let shadow = Arc::new(Selector::new(
            LivePolicy::fixed(Mode::Shadow),
            in_process(),
            Some(Arc::clone(&sandbox)),
            Arc::new(Recorder::new()),
        ));
        let ways = vec![
            Way { name: "in-process", backend: in_process(), shadow: None },
            Way { name: "fresh", backend: Arc::new(Fresh(engine.clone())), shadow: None },
            Way { name: "sandboxed", backend: Arc::clone(&sandbox), shadow: None },
            Way {
                name: "sandboxed, in slices",
                backend: Arc::new(Sliced { engine: engine.clone(), backend: sandbox }),
                shadow: None,
            },
            Way { name: "shadow", backend: Arc::clone(&shadow) as Arc<dyn Backend>, shadow: Some(shadow) },
        ];
        Rig { engine, ways, compilers: compilers() }
    })
}

/// Runs the checks of an area, each in all modes; names each that fails with what it expected and got.
pub(super) fn run(area: u64, checks: fn() -> Vec<Check>) {
    let failures = on_executor_stack(|| {
        let checks = checks();
        // Canisters of different checks have different ids: warm instances and workers stay apart.
        let first = |n: usize| (area << 20) + (n as u64) * 16;
        checks.iter().enumerate().flat_map(|(n, check)| run_check(check, first(n))).collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn run_check(check: &Check, first_canister: u64) -> Vec<String> {
    let rig = rig();
    let mut limits = Limits::application();
    (check.limits)(&mut limits);
    let limits = Arc::new(limits);
    // Every module is compiled in a process of its own too, to the same bytes.
    let source = Arc::clone(&rig.compilers) as Arc<dyn WorkerSource>;
    let compared = Box::new(Compared::new(&rig.engine, source, &limits));
    let compiler: Arc<dyn Compiler> = Arc::new(ModuleCompiler::keeping(compared));
    let mut failures = Vec::new();
    let mut base: Option<Vec<String>> = None;
    for way in &rig.ways {
        let config =
            SubnetConfig { limits: Arc::clone(&limits), first_canister, ..SubnetConfig::application() };
        let options = SchedulerOptions { threads: 1, message_roots: true, ..SchedulerOptions::default() };
        let (backend, compiler) = (Arc::clone(&way.backend), Arc::clone(&compiler));
        let subnet_of = move |state| {
            let (backend, compiler) = (Arc::clone(&backend), Arc::clone(&compiler));
            Subnet::with_state(config.clone(), state, backend, compiler, options.clone())
        };
        let mut world = World::new(Box::new(subnet_of), first_canister);
        world.prepare(check);
        for (n, step) in check.steps.iter().enumerate() {
            let got = world.act(&step.act);
            world.transcript.push(format!("step {}: {got:?}", n + 1));
            // The other modes are held against this one, which is held against what is wanted.
            if base.is_none() && !got.is(&step.want) {
                failures.push(format!("{} step {}: wanted {:?}, got {got:?}", check.id, n + 1, step.want));
            }
        }
        failures
            .extend(world.failures.drain(..).map(|failure| format!("{} {}: {failure}", check.id, way.name)));
        failures.extend(shadow_failures(check, way, &world.ids));
        let transcript = world.finish();
        match &base {
            None => base = Some(transcript),
            Some(base) => failures.extend(difference(check, way, base, &transcript)),
        }
    }
    failures
}

fn difference(check: &Check, way: &Way, base: &[String], other: &[String]) -> Option<String> {
    let lines = base.len().max(other.len());
    let at = (0..lines).find(|&line| base.get(line) != other.get(line))?;
    let text = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "nothing".to_owned());
    Some(format!(
        "{} {} differs:\n  in-process: {}\n  {}: {}",
        check.id,
        way.name,
        text(base),
        way.name,
        text(other)
    ))
}

fn shadow_failures(check: &Check, way: &Way, ids: &Ids) -> Vec<String> {
    let Some(selector) = &way.shadow else { return Vec::new() };
    if !selector.settle(PATIENCE) {
        return vec![format!("{} shadow: not all was compared in {PATIENCE:?}", check.id)];
    }
    // Other checks' canisters have other ids.
    let divergences = selector.divergences();
    let own = divergences.iter().filter(|record| ids.contains(&record.first.canister));
    own.map(|record| format!("{} shadow: {:?}", check.id, record.first)).collect()
}

/// What a step gave.
#[derive(Clone, PartialEq)]
enum Got {
    Reply(Vec<u8>),
    Error(UserError),
    Refused(UserError),
    Waiting,
    Seen(String),
    Nothing,
}

impl fmt::Debug for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) if reply.len() > 256 => {
                write!(f, "reply of {} bytes, SHA-256 {}", reply.len(), hex::encode(Sha256::digest(reply)))
            }
            Self::Reply(reply) => write!(f, "reply {} ({})", hex::encode(reply), reply.escape_ascii()),
            Self::Error(error) => write!(f, "error {error}"),
            Self::Refused(error) => write!(f, "refused {error}"),
            Self::Waiting => f.write_str("no answer"),
            Self::Seen(seen) => write!(f, "{seen}"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Got {
    fn is(&self, want: &Want) -> bool {
        let fits = |error: &UserError, code: &str, part: &str| {
            error.code.to_string() == code && error.description.contains(part)
        };
        match (self, want) {
            (_, Want::Anything) | (Self::Waiting, Want::Waiting) => true,
            (Self::Reply(got), Want::Reply(want)) => got == want,
            (Self::Reply(got), Want::ReplyPart(part)) => String::from_utf8_lossy(got).contains(part.as_str()),
            (Self::Reply(got), Want::ReplyBytes(bytes)) => got.len() == *bytes,
            (Self::Reply(got), Want::ReplyRead(read, text)) => read(got) == *text,
            (Self::Error(error), Want::Error(code, part))
            | (Self::Refused(error), Want::Refused(code, part)) => fits(error, code, part),
            (Self::Seen(got), Want::Seen(want)) => got == want,
            _ => false,
        }
    }
}

/// A check on its way in one mode.
struct World {
    subnet: Subnet,
    /// Makes a subnet that goes on from a state.
    subnet_of: Box<dyn Fn(SubnetState) -> Subnet>,
    ids: Ids,
    time: u64,
    nonce: u64,
    /// Of the last run.
    instructions: u64,
    messages: Vec<Result<MessageId, UserError>>,
    /// Everything that has to be equal in all modes.
    transcript: Vec<String>,
    failures: Vec<String>,
}

impl World {
    fn new(subnet_of: Box<dyn Fn(SubnetState) -> Subnet>, first_canister: u64) -> Self {
        let ids = [0, 1, 2].map(|n: u64| {
            let mut id = [1; 10];
            id[..8].copy_from_slice(&(first_canister + n).to_be_bytes());
            Principal::from_slice(&id)
        });
        let [transcript, failures] = [Vec::new(), Vec::new()];
        Self {
            subnet: subnet_of(SubnetState::new()),
            subnet_of,
            ids,
            time: START,
            nonce: 0,
            instructions: 0,
            messages: Vec::new(),
            transcript,
            failures,
        }
    }

    /// Makes and fills the canisters.
    fn prepare(&mut self, check: &Check) {
        assert!(check.canisters.len() <= IDS, "{} has too many canisters", check.id);
        for (n, canister) in check.canisters.iter().enumerate() {
            let id = self.subnet.create_canister(user(), None, canister.cycles).expect("there are ids");
            assert_eq!(id, self.ids[n]);
            if !matches!(canister.code, Code::Empty) {
                let code = canister.code.bytes(&self.ids);
                let arg = management::install(Install::Install, id, &code, &[]);
                let got = self.update(Principal::management_canister(), "install_code", arg, user());
                if !matches!(got, Got::Reply(_)) {
                    self.failures.push(format!("install of canister {n}: {got:?}"));
                }
            }
        }
        self.messages.clear();
    }

    fn act(&mut self, act: &Act) -> Got {
        match act {
            Act::Update { to, method, arg, from } => {
                let to = to.map_or(Principal::management_canister(), |to| self.ids[to]);
                let arg = arg(&self.ids);
                self.update(to, method, arg, *from)
            }
            Act::Query { to, method, arg, from } => {
                let arg = arg(&self.ids);
                let to = to.map_or(Principal::management_canister(), |to| self.ids[to]);
                let answer = self.subnet.query(*from, to, method, &arg);
                self.note(&answer.executed);
                match answer.result {
                    Ok(reply) => Got::Reply(reply),
                    Err(error) => Got::Error(error),
                }
            }
            Act::Again(message) => self.answer(*message),
            Act::Rounds { rounds, seconds } => {
                for _ in 0..*rounds {
                    self.round(seconds * SECOND);
                }
                Got::Nothing
            }
            Act::Cost => Got::Seen(self.instructions.to_string()),
            Act::Abort => {
                self.subnet.abort_paused();
                Got::Nothing
            }
            Act::Restart => {
                self.subnet = (self.subnet_of)(self.subnet.state().clone());
                Got::Nothing
            }
            Act::Look { to, look } => {
                let canister = self.subnet.state().canisters.get(&self.ids[*to]);
                Got::Seen(canister.map_or_else(|| "gone".to_owned(), |canister| look(canister)))
            }
            Act::Read { to, path, from } => Got::Seen(self.read(self.ids[*to], path, *from)),
            Act::Certificate { to, from } => {
                let answer = self.subnet.query(*from, self.ids[*to], "certificate", &[]);
                self.note(&answer.executed);
                match answer.result {
                    Ok(reply) => {
                        let certificate = verified(&reply, &self.subnet.config().root_key, Some(self.time));
                        Got::Seen(hex::encode(certificate.data(self.ids[*to]).expect("certified data")))
                    }
                    Err(error) => Got::Error(error),
                }
            }
        }
    }

    fn read(&self, id: Principal, path: &[&str], from: Principal) -> String {
        let below = path.iter().map(|label| label.as_bytes());
        let labels: Vec<Vec<u8>> =
            [&b"canister"[..], id.as_slice()].into_iter().chain(below).map(<[u8]>::to_vec).collect();
        match self.subnet.read_state(from, id, &[vec![b"time".to_vec()], labels.clone()]) {
            Ok(certificate) => {
                let key = &self.subnet.config().root_key;
                let certificate = verified(&certificate.to_cbor(), key, Some(self.time));
                certificate.value(&labels).map_or_else(|| "absent".to_owned(), hex::encode)
            }
            Err(_) => "refused".to_owned(),
        }
    }

    fn update(&mut self, to: Principal, method: &str, arg: Vec<u8>, from: Principal) -> Got {
        self.nonce += 1;
        let nonce = self.nonce.to_be_bytes().to_vec();
        let message =
            Ingress { sender: from, receiver: to, method: method.to_owned(), arg: Arc::from(arg), nonce };
        let submitted = self.subnet.submit(message);
        self.messages.push(submitted);
        let message = self.messages.len() - 1;
        for _ in 0..ROUNDS_MAX {
            let more = self.round(SECOND);
            if !more || self.answer(message) != Got::Waiting {
                break;
            }
        }
        self.answer(message)
    }

    fn answer(&self, message: usize) -> Got {
        match &self.messages[message] {
            Err(error) => Got::Refused(error.clone()),
            Ok(id) => match self.subnet.status(id) {
                IngressStatus::Replied(reply) => Got::Reply(reply.to_vec()),
                IngressStatus::Rejected(error) => Got::Error(error),
                IngressStatus::Received
                | IngressStatus::Processing
                | IngressStatus::Done
                | IngressStatus::Unknown => Got::Waiting,
            },
        }
    }

    /// Runs a round; whether work is left.
    fn round(&mut self, passed: u64) -> bool {
        self.time += passed;
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&self.time.to_be_bytes());
        let report = self.subnet.round(self.time, seed);
        self.note(&report.executed);
        self.failures.extend(report.failures.iter().map(|failure| format!("{failure:?}")));
        let root = hex::encode(self.subnet.state_root());
        let certified = hex::encode(self.subnet.certified().root());
        self.transcript.push(format!("state root {root}, certified {certified}"));
        report.more
    }

    /// Everything of a run but its number, which is the node's own.
    fn note(&mut self, executed: &[Executed]) {
        for run in executed {
            self.instructions = run.instructions;
            self.transcript.push(format!("{:?}", Executed { invocation: 0, ..run.clone() }));
        }
    }

    fn finish(self) -> Vec<String> {
        self.transcript
    }
}
