//! The replicated state of a subnet.

use std::ops::Deref;
use std::sync::Arc;

use imbl::{OrdMap, Vector};

use crate::certification::{BlsSigner, Signer};
use crate::state::{CanisterState, IngressRecord, IngressStatus, MessageId, Origin};
use crate::{Cycles, Limits, Nanoseconds, Principal, UserError, text};

/// Ingress messages of one receiver that are remembered, however many there are of others.
const OWN_MESSAGES: usize = 100;
/// Bytes that may wait for one receiver, however many wait for others.
const OWN_BYTES: u64 = 64 << 10;
/// How long an answered ingress message is remembered.
const INGRESS_KEPT: Nanoseconds = 300_000_000_000;

/// What is fixed for a subnet's life.
#[derive(Clone, Debug)]
pub struct SubnetConfig {
    /// The subnet.
    pub subnet_id: Principal,
    /// Limits and prices.
    pub limits: Arc<Limits>,
    /// Number of its first canister.
    pub first_canister: u64,
    /// How many canisters it may ever have.
    pub canisters_max: u64,
    /// DER of the root key, which certificates verify against.
    pub root_key: Arc<[u8]>,
    /// Who signs certificates. See [`SubnetConfig::signed_by`].
    pub signer: Arc<dyn Signer>,
    /// Whether everybody may use the `provisional_*` methods.
    pub provisional: bool,
    /// Who administers the subnet: may list its canisters.
    pub admins: Vec<Principal>,
    /// Methods of the management canister that the host answers ([`crate::Subnet::answer_pending`]), e.g.
    /// `http_request`: calls of canisters wait for it.
    pub host_methods: Vec<String>,
}

impl SubnetConfig {
    /// An application subnet; its first canister is `22ajg-aqaaa-aaaap-adukq-cai`. Certificates are signed with
    /// [`BlsSigner::test_key`].
    #[must_use]
    pub fn application() -> Self {
        let signer = Arc::new(BlsSigner::test_key());
        Self {
            subnet_id: Principal::self_authenticating(b"bulkhead application subnet"),
            limits: Arc::new(Limits::application()),
            first_canister: 0x01e0_1d15,
            canisters_max: 1 << 20,
            root_key: Arc::from(signer.root_key()),
            signer,
            provisional: true,
            admins: Vec::new(),
            host_methods: Vec::new(),
        }
    }

    /// The same with certificates by `signer`, whose key becomes the root key.
    #[must_use]
    pub fn signed_by(self, signer: Arc<dyn Signer>) -> Self {
        Self { root_key: Arc::from(signer.root_key()), signer, ..self }
    }

    /// A system subnet; its first canister is `rwlgt-iiaaa-aaaaa-aaaaa-cai`.
    #[must_use]
    pub fn system() -> Self {
        Self {
            subnet_id: Principal::self_authenticating(b"bulkhead system subnet"),
            limits: Arc::new(Limits::system()),
            first_canister: 0,
            ..Self::application()
        }
    }
}

/// A value that nobody who has it sees change. Equal when it is the same one.
#[derive(Debug)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Shares a value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T: Clone> Shared<T> {
    /// The value to be changed: a copy of it, and so another one, unless nobody else has it.
    pub(crate) fn own(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Shared<T> {}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A call of the management canister that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagementCall {
    /// Who calls and waits.
    pub origin: Origin,
    /// Method name.
    pub method: String,
    /// Candid argument.
    pub arg: Arc<[u8]>,
    /// Cycles attached.
    pub cycles: Cycles,
    /// The canister that the argument names, if it names one.
    pub about: Option<Principal>,
}

/// Calls of the management canister that wait for the host's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingManagement {
    /// Id of the next one.
    pub next: u64,
    /// By id, in the order they were made.
    pub calls: OrdMap<u64, Arc<ManagementCall>>,
}

/// What became of ingress messages.
#[derive(Clone, Debug, Default)]
pub struct IngressHistory {
    /// By id.
    pub records: OrdMap<MessageId, Shared<IngressRecord>>,
    /// Answered messages in the order of their answers.
    pub answered: Vector<(Nanoseconds, MessageId)>,
    /// What the records of each receiver come to.
    pub receivers: OrdMap<Principal, Receiver>,
    /// Bytes of the messages that are not answered.
    pub waiting_bytes: u64,
    /// Bytes of the answers.
    pub answer_bytes: u64,
    /// How many of the first in `answered` have lost their answer.
    pub forgotten: usize,
}

/// Ingress messages of one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receiver {
    /// Messages that are remembered.
    pub messages: usize,
    /// Bytes of those that are not answered.
    pub waiting_bytes: u64,
}

impl IngressHistory {
    /// How far a message is.
    #[must_use]
    pub fn status(&self, id: &MessageId) -> IngressStatus {
        self.records.get(id).map_or(IngressStatus::Unknown, |record| record.status.clone())
    }

    /// Whether another message of `bytes` bytes may be taken in for `receiver`: while it has less than 100 messages and
    /// 64 KiB, always; beyond, if it doesn't get more than it leaves for all others.
    ///
    /// # Errors
    /// Which bound forbids it.
    pub fn check_room(&self, receiver: Principal, bytes: u64, limits: &Limits) -> Result<(), UserError> {
        let has = self.receivers.get(&receiver).copied().unwrap_or_default();
        let left = limits.ingress_history_length.saturating_sub(self.records.len() + 1);
        if has.messages + 1 > left.max(OWN_MESSAGES) {
            return Err(text::history_full(receiver, has.messages, limits));
        }
        let left = limits.ingress_waiting_bytes.saturating_sub(self.waiting_bytes.saturating_add(bytes));
        if has.waiting_bytes.saturating_add(bytes) > left.max(OWN_BYTES) {
            return Err(text::queue_bytes_full(receiver, has.waiting_bytes, bytes, limits));
        }
        Ok(())
    }

    /// Notes a new message of `bytes` bytes.
    pub fn receive(
        &mut self,
        id: MessageId,
        sender: Principal,
        receiver: Principal,
        bytes: u64,
        time: Nanoseconds,
    ) {
        let record = IngressRecord { receiver, sender, status: IngressStatus::Received, time, bytes };
        self.records.insert(id, Shared::new(record));
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        let has = self.receivers.entry(receiver).or_default();
        has.messages += 1;
        has.waiting_bytes = has.waiting_bytes.saturating_add(bytes);
    }

    /// Moves a message on; an answer is final.
    pub fn set(&mut self, id: MessageId, status: IngressStatus, time: Nanoseconds) {
        let Some(record) = self.records.get(&id) else { return };
        if record.status.is_terminal() || record.status == status {
            return;
        }
        let mut record = IngressRecord { status, time, ..IngressRecord::clone(record) };
        if record.status.is_terminal() {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(record.bytes);
            if let Some(has) = self.receivers.get_mut(&record.receiver) {
                has.waiting_bytes = has.waiting_bytes.saturating_sub(record.bytes);
            }
            record.bytes = record.status.answer_bytes();
            self.answer_bytes = self.answer_bytes.saturating_add(record.bytes);
            self.answered.push_back((time, id));
        }
        self.records.insert(id, Shared::new(record));
    }

    /// Forgets messages that were answered long enough before `now`, and the oldest answers beyond `answer_bytes`.
    /// The messages that this is about.
    pub fn prune(&mut self, now: Nanoseconds, answer_bytes: u64) -> Vec<MessageId> {
        let mut pruned = Vec::new();
        while let Some(&(time, id)) = self.answered.front()
            && time.saturating_add(INGRESS_KEPT) <= now
        {
            self.answered.pop_front();
            self.forgotten = self.forgotten.saturating_sub(1);
            let Some(record) = self.records.remove(&id) else { continue };
            pruned.push(id);
            self.answer_bytes = self.answer_bytes.saturating_sub(record.bytes);
            if let Some(has) = self.receivers.get_mut(&record.receiver) {
                has.messages = has.messages.saturating_sub(1);
                if has.messages == 0 {
                    self.receivers.remove(&record.receiver);
                }
            }
        }
        while self.answer_bytes > answer_bytes
            && let Some(&(_, id)) = self.answered.get(self.forgotten)
        {
            self.forgotten += 1;
            let Some(record) = self.records.get(&id) else { continue };
            self.answer_bytes = self.answer_bytes.saturating_sub(record.bytes);
            let done =
                IngressRecord { status: IngressStatus::Done, bytes: 0, ..IngressRecord::clone(record) };
            self.records.insert(id, Shared::new(done));
            pruned.push(id);
        }
        pruned
    }
}

/// The state of a subnet. Clone is O(1).
#[derive(Clone, Debug)]
pub struct SubnetState {
    /// Time of the last round.
    pub time: Nanoseconds,
    /// Rounds done.
    pub round: u64,
    /// Seed of the last round.
    pub seed: [u8; 32],
    /// Random values drawn in the last round.
    pub draws: u64,
    /// Canisters ever made.
    pub canisters_made: u64,
    /// When storage was last charged.
    pub charged: Nanoseconds,
    /// Canisters by id.
    pub canisters: OrdMap<Principal, Shared<CanisterState>>,
    /// Ingress messages.
    pub ingress: IngressHistory,
    /// Calls of the management canister that wait.
    pub management: Vector<Arc<ManagementCall>>,
    /// Calls of the management canister that the host is to answer.
    pub pending: PendingManagement,
    /// Bytes stored by all canisters, or allocated to them where that is more.
    pub memory_bytes: u64,
    /// Compute allocations of all canisters, percent.
    pub compute_percent: u64,
    /// Callback slots taken from those that canisters share.
    pub callbacks_shared: usize,
    /// Bytes of messages between canisters, and kept free for responses.
    pub message_bytes: u64,
}

impl SubnetState {
    /// An empty subnet at time 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            time: 0,
            round: 0,
            seed: [0; 32],
            draws: 0,
            canisters_made: 0,
            charged: 0,
            canisters: OrdMap::new(),
            ingress: IngressHistory::default(),
            management: Vector::new(),
            pending: PendingManagement::default(),
            memory_bytes: 0,
            compute_percent: 0,
            callbacks_shared: 0,
            message_bytes: 0,
        }
    }

    /// A canister by id.
    #[must_use]
    pub fn canister(&self, id: &Principal) -> Option<&CanisterState> {
        self.canisters.get(id).map(Deref::deref)
    }

    /// Puts a canister in place, keeping the sums.
    pub fn put(&mut self, canister: impl Into<Shared<CanisterState>>) {
        let canister = canister.into();
        self.add(Sums::of(&canister));
        if let Some(before) = self.canisters.insert(canister.id, canister) {
            self.take_off(Sums::of(&before));
        }
    }

    /// Changes a canister that is there, in place where nobody else has it, keeping the sums.
    pub(crate) fn change(
        &mut self,
        id: &Principal,
        change: impl FnOnce(&mut CanisterState),
    ) -> Option<&CanisterState> {
        let canister = self.canisters.get_mut(id)?;
        let before = Sums::of(canister);
        change(canister.own());
        let after = Sums::of(canister);
        self.add(after);
        self.take_off(before);
        self.canister(id)
    }

    /// Takes cycles from a canister's balance, in place where nobody else has the canister. No sum depends on a
    /// balance.
    pub fn charge(&mut self, id: &Principal, due: Cycles) {
        if let Some(canister) = self.canisters.get_mut(id) {
            let canister = canister.own();
            canister.balance = canister.balance.saturating_sub(due);
        }
    }

    /// Adds what a canister is to the sums.
    fn add(&mut self, canister: Sums) {
        self.memory_bytes = self.memory_bytes.saturating_add(canister.memory_bytes);
        self.compute_percent = self.compute_percent.saturating_add(canister.compute_percent);
        self.callbacks_shared = self.callbacks_shared.saturating_add(canister.callbacks_shared);
        self.message_bytes = self.message_bytes.saturating_add(canister.message_bytes);
    }

    /// Takes what a canister was from the sums.
    fn take_off(&mut self, canister: Sums) {
        self.memory_bytes = self.memory_bytes.saturating_sub(canister.memory_bytes);
        self.compute_percent = self.compute_percent.saturating_sub(canister.compute_percent);
        self.callbacks_shared = self.callbacks_shared.saturating_sub(canister.callbacks_shared);
        self.message_bytes = self.message_bytes.saturating_sub(canister.message_bytes);
    }

    /// Takes a canister away.
    pub fn remove(&mut self, id: &Principal) -> Option<Shared<CanisterState>> {
        let canister = self.canisters.remove(id)?;
        self.take_off(Sums::of(&canister));
        Some(canister)
    }
}

/// What a canister adds to the sums of its subnet.
struct Sums {
    memory_bytes: u64,
    compute_percent: u64,
    callbacks_shared: usize,
    message_bytes: u64,
}

impl Sums {
    fn of(canister: &CanisterState) -> Self {
        Self {
            memory_bytes: canister.memory_taken(),
            compute_percent: canister.settings.compute_allocation,
            callbacks_shared: canister.calls.shared_slots(),
            message_bytes: canister.message_bytes(),
        }
    }
}

impl Default for SubnetState {
    fn default() -> Self {
        Self::new()
    }
}
