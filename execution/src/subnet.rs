//! A subnet as its driver sees it: messages in, rounds, answers out.

mod admission;
mod inputs;
mod round;
mod routing;

pub(crate) use round::{RoundWork, failure};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::certification::{self, Certificate, CertifiedState, ReadStateError, Uncertified};
use crate::executors::{Executors, SchedulerOptions};
use crate::query::{QueryAnswer, QueryView};
use crate::root::{Root, StateRoot};
use crate::run::{Env, Step};
use crate::schedule::Schedule;
use crate::state::{
    CanisterState, Change, ChangeDetails, IngressStatus, ManagementCall, MessageId, Shared, SubnetConfig,
    SubnetState,
};
use crate::{Backend, BackendError, Compiler, Cycles, ErrorCode, ModuleHash, Principal, UserError};

/// Rounds in a row that a canister may fail before it is quarantined on this node.
const FAILED_ROUNDS_MAX: u32 = 3;

/// Rounds that a canister waits at most before it is tried again where a resource was lacking.
const WAIT_ROUNDS_MAX: u32 = 64;

/// Rounds in a row that a canister failed in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failing {
    /// Those that count towards quarantine.
    rounds: u32,
    /// Those that lacked a resource of the node.
    lacking: u32,
    /// The round in which it is tried again.
    resumes: u64,
}

impl Failing {
    fn is_quarantined(&self) -> bool {
        self.rounds >= FAILED_ROUNDS_MAX
    }

    /// Counts a failure in `round`. One that lacked a resource of the node doesn't count towards quarantine: what waits
    /// for it waits until there is enough, and is tried ever less often. One in which nothing was tried, because the
    /// canister's workers had kept ending before, doesn't either: the next one that tries does.
    fn note(&mut self, error: &BackendError, round: u64) {
        if matches!(error, BackendError::Exhausted { .. }) {
            let wait = 1_u32.checked_shl(self.lacking).unwrap_or(u32::MAX).min(WAIT_ROUNDS_MAX);
            self.lacking = self.lacking.saturating_add(1);
            self.resumes = round.saturating_add(wait.into());
        } else if !matches!(error, BackendError::BackOff { .. }) {
            self.rounds = self.rounds.saturating_add(1);
        }
    }
}

/// Calls of the management canister that failed around the guest, each by itself.
#[derive(Default)]
pub(crate) struct StuckCalls(Vec<StuckCall>);

struct StuckCall {
    call: Arc<ManagementCall>,
    failing: Failing,
    /// The code that the canister had which the call is about.
    code: Option<ModuleHash>,
}

impl StuckCalls {
    fn get(&self, call: &Arc<ManagementCall>) -> Option<&Failing> {
        self.0.iter().find(|stuck| Arc::ptr_eq(&stuck.call, call)).map(|stuck| &stuck.failing)
    }

    /// Whether this node has given up on the call until [`Subnet::release`].
    pub(crate) fn is_set_aside(&self, call: &Arc<ManagementCall>) -> bool {
        self.get(call).is_some_and(Failing::is_quarantined)
    }

    /// Whether the call isn't to be tried before a later round.
    pub(crate) fn waits(&self, call: &Arc<ManagementCall>, round: u64) -> bool {
        self.get(call).is_some_and(|failing| failing.resumes > round)
    }

    /// Counts a failure of a call in `round`; says in how many it has failed.
    pub(crate) fn note(
        &mut self,
        call: &Arc<ManagementCall>,
        code: Option<ModuleHash>,
        error: &BackendError,
        round: u64,
    ) -> u32 {
        let mut failing = self.get(call).copied().unwrap_or_default();
        failing.note(error, round);
        self.forget(call);
        self.0.push(StuckCall { call: Arc::clone(call), failing, code });
        failing.rounds
    }

    /// Calls about a canister that were set aside when it had other code than now: what they would do is not what their
    /// sender saw before him.
    fn overtaken(&self, id: &Principal, code: Option<ModuleHash>) -> Vec<Arc<ManagementCall>> {
        let overtaken = |stuck: &&StuckCall| {
            stuck.call.about == Some(*id) && stuck.failing.is_quarantined() && stuck.code != code
        };
        self.0.iter().filter(overtaken).map(|stuck| Arc::clone(&stuck.call)).collect()
    }

    pub(crate) fn forget(&mut self, call: &Arc<ManagementCall>) {
        self.0.retain(|stuck| !Arc::ptr_eq(&stuck.call, call));
    }

    fn forget_about(&mut self, id: &Principal) {
        self.0.retain(|stuck| stuck.call.about != Some(*id));
    }
}

/// A subnet: its state and what runs it.
pub struct Subnet {
    pub(crate) config: Arc<SubnetConfig>,
    pub(crate) state: SubnetState,
    pub(crate) schedule: Schedule,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) compiler: Arc<dyn Compiler>,
    executors: Executors,
    options: SchedulerOptions,
    invocations: Arc<AtomicU64>,
    /// Canisters whose last round failed. Node-local.
    failing: BTreeMap<Principal, Failing>,
    /// Calls of the management canister whose last try failed around the guest: an install whose module can't be
    /// compiled here fails apart from what else its canister does. Node-local.
    pub(crate) stuck: StuckCalls,
    roots: StateRoot,
    /// Messages between two slices, by the canister that has them in hand. Node-local: the state has what it takes to
    /// begin them again.
    paused: BTreeMap<Principal, Step>,
    certified: Arc<CertifiedState>,
    /// What may have changed of it since.
    uncertified: Uncertified,
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subnet")
            .field("id", &self.config.subnet_id)
            .field("round", &self.state.round)
            .field("canisters", &self.state.canisters.len())
            .finish_non_exhaustive()
    }
}

impl Subnet {
    /// An empty subnet.
    #[must_use]
    pub fn new(
        config: SubnetConfig,
        backend: Arc<dyn Backend>,
        compiler: Arc<dyn Compiler>,
        options: SchedulerOptions,
    ) -> Self {
        Self::with_state(config, SubnetState::new(), backend, compiler, options)
    }

    /// A subnet that goes on from `state`, e.g. in another mode.
    #[must_use]
    pub fn with_state(
        config: SubnetConfig,
        state: SubnetState,
        backend: Arc<dyn Backend>,
        compiler: Arc<dyn Compiler>,
        options: SchedulerOptions,
    ) -> Self {
        Self {
            certified: Arc::new(CertifiedState::new(&state, Arc::clone(&config.signer))),
            uncertified: Uncertified::default(),
            config: Arc::new(config),
            schedule: Schedule::of(&state),
            state,
            backend,
            compiler,
            executors: Executors::new(&options),
            options,
            invocations: Arc::new(AtomicU64::new(1)),
            failing: BTreeMap::new(),
            stuck: StuckCalls::default(),
            roots: StateRoot::default(),
            paused: BTreeMap::new(),
        }
    }

    /// What is fixed for the subnet's life.
    #[must_use]
    pub fn config(&self) -> &SubnetConfig {
        &self.config
    }

    /// The state after the last round.
    #[must_use]
    pub fn state(&self) -> &SubnetState {
        &self.state
    }

    /// The state root; costs what changed since it was last asked for.
    pub fn state_root(&mut self) -> Root {
        self.roots.root(&self.state)
    }

    /// The public state after the last round, of which certificates show parts.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedState> {
        &self.certified
    }

    /// Certifies the state at the end of a round.
    fn certify(&mut self) {
        let changed = std::mem::take(&mut self.uncertified);
        // In place, unless somebody still shows the state before.
        Arc::make_mut(&mut self.certified).advance(&self.state, &changed);
    }

    /// Shows `sender` a part of the certified state. See [`QueryView::read_state`].
    ///
    /// # Errors
    /// As there.
    pub fn read_state(
        &self,
        sender: Principal,
        effective_canister: Principal,
        paths: &[Vec<Vec<u8>>],
    ) -> Result<Certificate, ReadStateError> {
        self.queries().read_state(sender, effective_canister, paths)
    }

    /// How far an ingress message is.
    #[must_use]
    pub fn status(&self, id: &MessageId) -> IngressStatus {
        self.state.ingress.status(id)
    }

    /// The committed state for queries, which may go on while rounds do.
    #[must_use]
    pub fn queries(&self) -> QueryView {
        QueryView {
            env: self.env(1),
            canisters: self.state.canisters.clone(),
            certified: Arc::clone(&self.certified),
        }
    }

    /// Asks a canister on the committed state.
    #[must_use]
    pub fn query(&self, sender: Principal, canister: Principal, method: &str, arg: &[u8]) -> QueryAnswer {
        if self.is_quarantined(&canister) {
            return QueryAnswer { result: Err(crate::text::unavailable(canister)), executed: Vec::new() };
        }
        self.queries().query(sender, canister, method, arg)
    }

    /// Makes an empty canister without asking the management canister, as a node's operator.
    /// `controllers`: `None` for `creator` and the canister itself.
    ///
    /// # Errors
    /// IC0101 when the subnet's id range is used up.
    pub fn create_canister(
        &mut self,
        creator: Principal,
        controllers: Option<Vec<Principal>>,
        cycles: Cycles,
    ) -> Result<Principal, UserError> {
        let id = self.next_id()?;
        let mut controllers = controllers.unwrap_or_else(|| vec![creator, id]);
        controllers.sort_unstable();
        controllers.dedup();
        let mut canister = CanisterState::new(id, controllers.clone(), cycles, self.state.time);
        canister.history.push(Change {
            time: self.state.time,
            version: 0,
            origin: creator,
            origin_version: None,
            by_user: true,
            details: ChangeDetails::Creation(controllers),
        });
        self.put(canister);
        Ok(id)
    }

    /// Whether this node has given up on a canister until [`Subnet::release`] or new code.
    #[must_use]
    pub fn is_quarantined(&self, id: &Principal) -> bool {
        self.failing.get(id).is_some_and(Failing::is_quarantined)
    }

    /// Gives up all paused messages, as before a checkpoint: each begins again from its start in a later round. Part
    /// of the replicated input: all nodes of a subnet do it after the same round.
    pub fn abort_paused(&mut self) {
        for id in std::mem::take(&mut self.paused).into_keys() {
            self.begin_again(id);
        }
    }

    /// Goes back to an earlier state of this subnet, e.g. from before a round that this node could not run whole. What
    /// only this node knew of canisters (failures, paused runs) is forgotten: messages in hand begin again.
    pub fn go_back(&mut self, state: SubnetState) {
        self.certified = Arc::new(CertifiedState::new(&state, Arc::clone(&self.config.signer)));
        self.uncertified = Uncertified::default();
        self.schedule = Schedule::of(&state);
        self.failing.clear();
        self.stuck = StuckCalls::default();
        self.paused.clear();
        self.state = state;
    }

    /// Lets a quarantined canister run again, and calls about it that were set aside be tried again. Those that newer
    /// code has overtaken meanwhile are answered with an error.
    pub fn release(&mut self, id: &Principal) {
        self.failing.remove(id);
        for call in self.stuck.overtaken(id, self.code_of(id)) {
            self.state.management.retain(|waiting| !Arc::ptr_eq(waiting, &call));
            let error = UserError::new(
                ErrorCode::STATE_UNAVAILABLE,
                "This node could not do it before newer code was installed. Send it again if it is still wanted.",
            );
            self.answer_management(&call, Err(error));
        }
        self.stuck.forget_about(id);
    }

    /// The hash of a canister's code.
    pub(crate) fn code_of(&self, id: &Principal) -> Option<ModuleHash> {
        self.state.canister(id)?.code.as_ref().map(|code| code.module.hash)
    }

    pub(crate) fn env(&self, active: usize) -> Env {
        let limits = &self.config.limits;
        let available = limits.subnet_memory_bytes.saturating_sub(self.state.memory_bytes);
        Env {
            config: Arc::clone(&self.config),
            backend: Arc::clone(&self.backend),
            compiler: Arc::clone(&self.compiler),
            time: self.state.time,
            invocations: Arc::clone(&self.invocations),
            // Divided, so that canisters that run in parallel can't take more than there is.
            memory_available: available / (active.max(1) as u64),
            callbacks_available: limits.callbacks_shared.saturating_sub(self.state.callbacks_shared)
                / active.max(1),
            message_bytes_available: limits.message_memory_bytes.saturating_sub(self.state.message_bytes)
                / (active.max(1) as u64),
            message_roots: self.options.message_roots,
            memory: self.options.memory.clone(),
            observer: self.options.observer.clone(),
        }
    }

    /// The id of the next canister: 10 bytes, its number big endian and 01 01.
    pub(crate) fn next_id(&mut self) -> Result<Principal, UserError> {
        let number = self.config.first_canister.checked_add(self.state.canisters_made);
        let number = number.filter(|_| self.state.canisters_made < self.config.canisters_max);
        let Some(number) = number else {
            let text = format!("Subnet {} has no canister ids left", self.config.subnet_id);
            return Err(UserError::new(ErrorCode::SUBNET_OVERSUBSCRIBED, text));
        };
        self.state.canisters_made += 1;
        let mut id = [1; 10];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Ok(Principal::from_slice(&id))
    }

    /// Puts a canister in place and notes what it has to do.
    pub(crate) fn put(&mut self, canister: impl Into<Shared<CanisterState>>) {
        let canister = canister.into();
        self.schedule.update(&canister);
        if self.canister(&canister.id).is_none_or(|before| !certification::is_same(before, &canister)) {
            self.uncertified.canisters.insert(canister.id);
        }
        self.state.put(canister);
    }

    /// Moves a message of a user on.
    fn set_status(&mut self, id: MessageId, status: IngressStatus) {
        self.state.ingress.set(id, status, self.state.time);
        self.uncertified.requests.insert(id);
    }

    pub(crate) fn canister(&self, id: &Principal) -> Option<&CanisterState> {
        self.state.canister(id)
    }

    pub(crate) fn remove(&mut self, id: &Principal) -> Option<Shared<CanisterState>> {
        self.schedule.forget(id);
        self.executors.forget(id);
        self.failing.remove(id);
        self.stuck.forget_about(id);
        self.paused.remove(id);
        self.uncertified.canisters.insert(*id);
        self.state.remove(id)
    }
}
