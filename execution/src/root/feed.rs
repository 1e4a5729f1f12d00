//! How each type goes into the hash: unambiguous, by value, every field.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use sha2::{Digest, Sha256};

use crate::root::{CanisterRoot, MemoryRoot, Root, SnapshotRoots};
use crate::state::{
    CallContext, Calls, CanisterMessage, CanisterSnapshot, CanisterSnapshots, CanisterState, Change,
    ChangeDetails, ChunkStore, Code, Debit, History, Hook, Ingress, IngressRecord, IngressStatus, Input,
    Inputs, Install, InstallMode, Log, LogRecord, ManagementCall, MessageId, Origin, PausedMessage, Payload,
    PendingCall, PendingManagement, Request, Response, Settings, SnapshotId, Source, Start, Status,
    StopWaiter, Task, TaskPointer, UpgradeOptions, Visibility,
};
use crate::{Callback, ErrorCode, GlobalValue, ModuleHash, Principal, UserError};

/// SHA-256 with a domain.
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn new(domain: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.bytes(b"bulkhead-state-1");
        hasher.bytes(domain.as_bytes());
        hasher
    }

    /// Length and content.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Root {
        self.0.finalize().into()
    }
}

/// Goes into the hash by value.
pub(super) trait Feed {
    fn feed(&self, hash: &mut Hasher);
}

macro_rules! feed_struct {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        $(impl Feed for $type {
            fn feed(&self, hash: &mut Hasher) {
                let Self { $($field),* } = self;
                $($field.feed(hash);)*
            }
        })*
    };
}

macro_rules! feed_number {
    ($($type:ty),*) => {
        $(impl Feed for $type {
            fn feed(&self, hash: &mut Hasher) {
                hash.0.update(self.to_be_bytes());
            }
        })*
    };
}

feed_number!(u8, u16, u32, u64, u128);

feed_struct! {
    CallContext { origin, answered, deleted, available, time, instructions, calls_out }
    Calls { next_context, next_callback, contexts, callbacks, outstanding, guaranteed }
    Callback { function, environment }
    Change { time, version, origin, origin_version, by_user, details }
    Debit { amount, round }
    History { total, recent }
    Ingress { sender, receiver, method, arg, nonce }
    IngressRecord { receiver, sender, status, time, bytes }
    Inputs { tasks, canisters, turns, ingress, next, bytes }
    Log { next, bytes, records }
    LogRecord { index, time, text }
    ManagementCall { origin, method, arg, cycles, about }
    Install { call, mode, upgrade, module, arg, caller_version }
    PausedMessage { input, slices, start }
    Start { time, balance, waiting_bytes, memory_available, callbacks_available, message_bytes_available }
    PendingManagement { next, calls }
    UpgradeOptions { skip_pre_upgrade, keep_heap }
    PendingCall {
        context, callee, on_reply, on_reject, on_cleanup, cycles_sent, execution_prepaid,
        transmission_prepaid, deadline,
    }
    Request { sender, callback, receiver, method, arg, cycles, deadline }
    Response { respondent, receiver, callback, payload, refund }
    Settings {
        controllers, compute_allocation, memory_allocation, freezing_threshold, reserved_cycles_limit,
        wasm_memory_limit, wasm_memory_threshold, log_visibility, log_memory_limit, snapshot_visibility,
        status_visibility, environment_variables, minimum_incoming_canister_call_cycles,
    }
    SnapshotId { canister, number }
    StopWaiter { origin, cycles, since }
    UserError { code, description }
}

/// A canister; what is large in it through the caches of its hashes.
pub(super) fn canister(canister: &CanisterState, hash: &mut Hasher, roots: &mut CanisterRoot) {
    let CanisterState {
        id,
        settings,
        balance,
        reserved,
        version,
        status,
        certified_data,
        global_timer,
        hook,
        task_pointer,
        history,
        log,
        chunks,
        snapshots,
        install_debit,
        heap_delta,
        inputs,
        paused,
        calls,
        code: installed,
        created,
    } = canister;
    id.feed(hash);
    settings.feed(hash);
    balance.feed(hash);
    reserved.feed(hash);
    version.feed(hash);
    status.feed(hash);
    certified_data.feed(hash);
    global_timer.feed(hash);
    hook.feed(hash);
    task_pointer.feed(hash);
    history.feed(hash);
    log.feed(hash);
    chunks.feed(hash);
    self::snapshots(snapshots, hash, &mut roots.snapshots);
    install_debit.feed(hash);
    heap_delta.feed(hash);
    inputs.feed(hash);
    paused.feed(hash);
    calls.feed(hash);
    created.feed(hash);
    match installed {
        None => 0_u8.feed(hash),
        Some(installed) => {
            1_u8.feed(hash);
            code(installed, hash, &mut roots.heap, &mut roots.stable);
        }
    }
}

/// Snapshots never change: each is hashed once.
fn snapshots(snapshots: &CanisterSnapshots, hash: &mut Hasher, roots: &mut SnapshotRoots) {
    let CanisterSnapshots { next, taken } = snapshots;
    next.feed(hash);
    (taken.len() as u64).feed(hash);
    roots.retain(|number, (seen, _)| taken.get(number).is_some_and(|now| Arc::ptr_eq(now, seen)));
    for (number, snapshot) in taken {
        number.feed(hash);
        let (_, root) =
            roots.entry(*number).or_insert_with(|| (Arc::clone(snapshot), snapshot_root(snapshot)));
        root.feed(hash);
    }
}

fn snapshot_root(snapshot: &CanisterSnapshot) -> Root {
    let CanisterSnapshot { taken_at, version, code: of, certified_data, chunks } = snapshot;
    let mut hash = Hasher::new("snapshot");
    taken_at.feed(&mut hash);
    version.feed(&mut hash);
    code(of, &mut hash, &mut MemoryRoot::default(), &mut MemoryRoot::default());
    certified_data.feed(&mut hash);
    chunks.feed(&mut hash);
    hash.finish()
}

fn code(code: &Code, hash: &mut Hasher, heap_root: &mut MemoryRoot, stable_root: &mut MemoryRoot) {
    // The module is its hash; the arena is physical.
    let Code { module, arena: _, heap, stable, globals, installed } = code;
    module.hash.feed(hash);
    heap_root.root(heap).feed(hash);
    stable_root.root(stable).feed(hash);
    (globals.len() as u64).feed(hash);
    globals.iter().for_each(|value| value.feed(hash));
    installed.feed(hash);
}

impl Feed for ChunkStore {
    fn feed(&self, hash: &mut Hasher) {
        // A chunk is its hash.
        let Self { chunks } = self;
        (chunks.len() as u64).feed(hash);
        chunks.keys().for_each(|chunk| chunk.feed(hash));
    }
}

impl Feed for bool {
    fn feed(&self, hash: &mut Hasher) {
        u8::from(*self).feed(hash);
    }
}

impl Feed for usize {
    fn feed(&self, hash: &mut Hasher) {
        (*self as u64).feed(hash);
    }
}

impl Feed for Root {
    fn feed(&self, hash: &mut Hasher) {
        hash.0.update(self);
    }
}

impl Feed for String {
    fn feed(&self, hash: &mut Hasher) {
        hash.bytes(self.as_bytes());
    }
}

impl Feed for Vec<u8> {
    fn feed(&self, hash: &mut Hasher) {
        hash.bytes(self);
    }
}

impl Feed for Arc<[u8]> {
    fn feed(&self, hash: &mut Hasher) {
        hash.bytes(self);
    }
}

impl Feed for Principal {
    fn feed(&self, hash: &mut Hasher) {
        hash.bytes(self.as_slice());
    }
}

impl Feed for MessageId {
    fn feed(&self, hash: &mut Hasher) {
        self.0.feed(hash);
    }
}

impl Feed for ModuleHash {
    fn feed(&self, hash: &mut Hasher) {
        self.0.feed(hash);
    }
}

impl Feed for ErrorCode {
    fn feed(&self, hash: &mut Hasher) {
        self.0.feed(hash);
    }
}

impl<T: Feed> Feed for &T {
    fn feed(&self, hash: &mut Hasher) {
        (*self).feed(hash);
    }
}

impl<T: Feed> Feed for Arc<T> {
    fn feed(&self, hash: &mut Hasher) {
        (**self).feed(hash);
    }
}

impl<T: Feed> Feed for Option<T> {
    fn feed(&self, hash: &mut Hasher) {
        match self {
            None => 0_u8.feed(hash),
            Some(value) => {
                1_u8.feed(hash);
                value.feed(hash);
            }
        }
    }
}

impl<A: Feed, B: Feed> Feed for (A, B) {
    fn feed(&self, hash: &mut Hasher) {
        self.0.feed(hash);
        self.1.feed(hash);
    }
}

impl Feed for Vec<Principal> {
    fn feed(&self, hash: &mut Hasher) {
        (self.len() as u64).feed(hash);
        self.iter().for_each(|item| item.feed(hash));
    }
}

impl Feed for Vec<(String, String)> {
    fn feed(&self, hash: &mut Hasher) {
        (self.len() as u64).feed(hash);
        self.iter().for_each(|item| item.feed(hash));
    }
}

impl<T: Feed + Clone> Feed for Vector<T> {
    fn feed(&self, hash: &mut Hasher) {
        (self.len() as u64).feed(hash);
        self.iter().for_each(|item| item.feed(hash));
    }
}

impl<K: Feed + Ord + Clone, V: Feed + Clone> Feed for OrdMap<K, V> {
    fn feed(&self, hash: &mut Hasher) {
        (self.len() as u64).feed(hash);
        self.iter().for_each(|entry| entry.feed(hash));
    }
}

macro_rules! feed_enum {
    ($($type:ident { $($variant:pat => $number:literal, [$($field:ident),*];)* })*) => {
        $(impl Feed for $type {
            fn feed(&self, hash: &mut Hasher) {
                match self {
                    $($variant => {
                        let number: u8 = $number;
                        number.feed(hash);
                        $($field.feed(hash);)*
                    })*
                }
            }
        })*
    };
}

feed_enum! {
    CanisterMessage {
        Self::Request(request) => 0, [request];
        Self::Response(response) => 1, [response];
    }
    ChangeDetails {
        Self::Creation(controllers) => 0, [controllers];
        Self::CodeUninstall => 1, [];
        Self::CodeDeployment(mode, module) => 2, [mode, module];
        Self::ControllersChange(controllers) => 3, [controllers];
        Self::LoadSnapshot { snapshot, version, taken_at } => 4, [snapshot, version, taken_at];
    }
    Hook {
        Self::NotSatisfied => 0, [];
        Self::Ready => 1, [];
        Self::Executed => 2, [];
    }
    Input {
        Self::Task(task) => 0, [task];
        Self::Canister(message) => 1, [message];
        Self::Ingress(ingress) => 2, [ingress];
        Self::Install(install) => 3, [install];
    }
    IngressStatus {
        Self::Unknown => 0, [];
        Self::Received => 1, [];
        Self::Processing => 2, [];
        Self::Done => 5, [];
        Self::Replied(data) => 3, [data];
        Self::Rejected(error) => 4, [error];
    }
    InstallMode {
        Self::Install => 0, [];
        Self::Reinstall => 1, [];
        Self::Upgrade => 2, [];
    }
    Visibility {
        Self::Controllers => 0, [];
        Self::Public => 1, [];
        Self::AllowedViewers(viewers) => 2, [viewers];
    }
    Origin {
        Self::Ingress { id, sender } => 0, [id, sender];
        Self::Canister { sender, callback, deadline } => 1, [sender, callback, deadline];
        Self::Task => 2, [];
    }
    Payload {
        Self::Reply(data) => 0, [data];
        Self::Reject { code, message } => 1, [code, message];
    }
    Source {
        Self::Canisters => 0, [];
        Self::Users => 1, [];
    }
    Status {
        Self::Running => 0, [];
        Self::Stopping(waiters) => 1, [waiters];
        Self::Stopped => 2, [];
    }
    Task {
        Self::Heartbeat => 0, [];
        Self::GlobalTimer => 1, [];
        Self::LowWasmMemory => 2, [];
    }
    TaskPointer {
        Self::Timer => 0, [];
        Self::Heartbeat => 1, [];
    }
}

impl Feed for GlobalValue {
    fn feed(&self, hash: &mut Hasher) {
        let (kind, bits): (u8, u128) = match *self {
            Self::I32(value) => (0, u128::from(value.cast_unsigned())),
            Self::I64(value) => (1, u128::from(value.cast_unsigned())),
            Self::F32(bits) => (2, u128::from(bits)),
            Self::F64(bits) => (3, u128::from(bits)),
            Self::V128(bits) => (4, bits),
        };
        kind.feed(hash);
        bits.feed(hash);
    }
}
