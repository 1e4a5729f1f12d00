//! Each replicated field moves the state root; nothing physical does.

use std::sync::Arc;

use execution::memory::PAGE_BYTES;
use execution::state::{
    CallContext, CanisterMessage, CanisterSnapshot, CanisterState, Change, ChangeDetails, ChunkStore, Hook,
    InstallMode, LogRecord, ManagementCall, Origin, Payload, PendingCall, Request, Response, Settings,
    Shared, SnapshotId, Source, Status, StopWaiter, Task, TaskPointer, Visibility,
};
use execution::{
    Callback, GlobalValue, Ingress, IngressStatus, MessageId, ModuleHash, Principal, StateRoot, SubnetState,
    state_root,
};

use crate::scripted::{ANONYMOUS, Bench, NOTHING, Op, call};

fn principal(byte: u8) -> Principal {
    Principal::from_slice(&[byte; 10])
}

fn callback() -> Callback {
    Callback { function: 1, environment: 2 }
}

fn pending() -> PendingCall {
    PendingCall {
        context: 1,
        callee: principal(1),
        on_reply: callback(),
        on_reject: callback(),
        on_cleanup: None,
        cycles_sent: 1,
        execution_prepaid: 1,
        transmission_prepaid: 1,
        deadline: 1,
    }
}

fn context() -> CallContext {
    CallContext {
        origin: Origin::Canister { sender: principal(1), callback: 1, deadline: 1 },
        answered: false,
        deleted: false,
        available: 1,
        time: 1,
        instructions: 1,
        calls_out: 1,
    }
}

fn request() -> Request {
    Request {
        sender: principal(1),
        callback: 1,
        receiver: principal(2),
        method: "m".into(),
        arg: Arc::from([1]),
        cycles: 1,
        deadline: 1,
    }
}

fn response() -> Response {
    let payload = Payload::Reject { code: 4, message: "r".into() };
    Response { respondent: principal(1), receiver: principal(2), callback: 1, payload, refund: 1 }
}

fn change() -> Change {
    Change {
        time: 1,
        version: 1,
        origin: principal(1),
        origin_version: Some(1),
        by_user: true,
        details: ChangeDetails::CodeDeployment(InstallMode::Install, ModuleHash([1; 32])),
    }
}

/// A state in which every kind of thing exists.
fn full() -> (SubnetState, Principal) {
    let mut bench = Bench::new();
    let a = bench.canister("");
    bench.run(a, [Op::Heap(1, 1), Op::Stable(1, 1), Op::Print("p"), Op::Reply(vec![1])]).unwrap();
    let mut state = bench.subnet.state().clone();
    let mut canister = CanisterState::clone(&state.canisters[&a]);
    canister.calls.callbacks.insert(1, pending());
    canister.calls.contexts.insert(1, context());
    canister.calls.outstanding.insert(principal(1), 1);
    canister.inputs.push(principal(1), CanisterMessage::Request(Arc::new(request())));
    canister.inputs.push(principal(1), CanisterMessage::Response(Arc::new(response())));
    canister.inputs.ingress.push_back(Arc::new(ingress()));
    canister.history.push(change());
    let taken = CanisterSnapshot {
        taken_at: 1,
        version: 1,
        code: canister.code.clone().unwrap(),
        certified_data: vec![],
        chunks: ChunkStore::default(),
    };
    canister.snapshots.taken.insert(0, Arc::new(taken));
    state.put(canister);
    (state, a)
}

fn ingress() -> Ingress {
    Ingress {
        sender: ANONYMOUS,
        receiver: principal(1),
        method: "m".into(),
        arg: Arc::from([1]),
        nonce: vec![1],
    }
}

fn assert_moves(
    what: &str,
    state: &SubnetState,
    kept: &mut StateRoot,
    change: impl FnOnce(&mut SubnetState),
) {
    let before = state_root(state);
    let mut changed = state.clone();
    change(&mut changed);
    let after = state_root(&changed);
    assert_ne!(before, after, "{what} must move the root");
    assert_eq!(kept.root(&changed), after, "{what}: incremental and full root differ");
    assert_eq!(kept.root(state), before, "{what}: incremental and full root differ on the way back");
}

macro_rules! subnet_fields {
    ($($what:literal: |$state:ident| $change:expr;)*) => {
        #[test]
        fn every_field_of_the_subnet_moves_the_root() {
            let (state, _) = full();
            let mut kept = StateRoot::default();
            $(assert_moves($what, &state, &mut kept, |$state| { $change; });)*
        }
    };
}

subnet_fields! {
    "time": |s| s.time += 1;
    "round": |s| s.round += 1;
    "seed": |s| s.seed[0] ^= 1;
    "draws": |s| s.draws += 1;
    "canisters made": |s| s.canisters_made += 1;
    "charged": |s| s.charged += 1;
    "memory": |s| s.memory_bytes += 1;
    "canisters": |s| s.put(CanisterState::new(principal(7), vec![], 1, 1));
    "a canister less": |s| { let id = *s.canisters.keys().next().unwrap(); s.remove(&id) };
    "ingress": |s| s.ingress.receive(MessageId([1; 32]), ANONYMOUS, principal(1), 1, 1);
    "ingress status": |s| {
        let id = *s.ingress.records.keys().next().unwrap();
        let mut record = execution::state::IngressRecord::clone(&s.ingress.records[&id]);
        record.status = IngressStatus::Processing;
        s.ingress.records.insert(id, Shared::new(record))
    };
    "ingress bytes": |s| {
        let id = *s.ingress.records.keys().next().unwrap();
        let mut record = execution::state::IngressRecord::clone(&s.ingress.records[&id]);
        record.bytes += 1;
        s.ingress.records.insert(id, Shared::new(record))
    };
    "answered": |s| s.ingress.answered.push_back((1, MessageId([1; 32])));
    "compute": |s| s.compute_percent += 1;
    "shared callbacks": |s| s.callbacks_shared += 1;
    "message memory": |s| s.message_bytes += 1;
    "next pending call": |s| s.pending.next += 1;
    "pending call": |s| s.pending.calls.insert(0, Arc::new(ManagementCall {
        origin: Origin::Task, method: "m".into(), arg: Arc::from([]), cycles: 1, about: None,
    }));
    "management": |s| s.management.push_back(Arc::new(ManagementCall {
        origin: Origin::Task, method: "m".into(), arg: Arc::from([]), cycles: 1, about: None,
    }));
}

macro_rules! canister_fields {
    ($($what:literal: |$canister:ident| $change:expr;)*) => {
        #[test]
        fn every_field_of_a_canister_moves_the_root() {
            let (state, id) = full();
            let mut kept = StateRoot::default();
            $(assert_moves($what, &state, &mut kept, |state| {
                let mut copy = CanisterState::clone(&state.canisters[&id]);
                { let $canister = &mut copy; $change; }
                state.canisters.insert(id, Shared::new(copy));
            });)*
        }
    };
}

fn set(canister: &mut CanisterState, change: impl FnOnce(&mut Settings)) {
    let mut settings = Settings::clone(&canister.settings);
    change(&mut settings);
    canister.settings = Arc::new(settings);
}

fn call_of(canister: &mut CanisterState) -> &mut PendingCall {
    canister.calls.callbacks.get_mut(&1).unwrap()
}

fn context_of(canister: &mut CanisterState) -> &mut CallContext {
    canister.calls.contexts.get_mut(&1).unwrap()
}

fn queued(canister: &mut CanisterState, place: usize, message: CanisterMessage) {
    canister.inputs.canisters.get_mut(&principal(1)).unwrap().set(place, message);
}

fn requested(canister: &mut CanisterState, change: impl FnOnce(&mut Request)) {
    let mut request = request();
    change(&mut request);
    queued(canister, 0, CanisterMessage::Request(Arc::new(request)));
}

fn responded(canister: &mut CanisterState, change: impl FnOnce(&mut Response)) {
    let mut response = response();
    change(&mut response);
    queued(canister, 1, CanisterMessage::Response(Arc::new(response)));
}

fn changed(canister: &mut CanisterState, edit: impl FnOnce(&mut Change)) {
    let mut last = canister.history.recent.pop_back().unwrap();
    edit(&mut last);
    canister.history.recent.push_back(last);
}

fn logged(canister: &mut CanisterState, edit: impl FnOnce(&mut LogRecord)) {
    let mut last = canister.log.records.pop_back().unwrap();
    edit(&mut last);
    canister.log.records.push_back(last);
}

fn asked(canister: &mut CanisterState, edit: impl FnOnce(&mut Ingress)) {
    let mut message = ingress();
    edit(&mut message);
    canister.inputs.ingress.set(0, Arc::new(message));
}

fn snapshot(canister: &mut CanisterState, edit: impl FnOnce(&mut CanisterSnapshot)) {
    let mut snapshot = CanisterSnapshot::clone(&canister.snapshots.taken[&0]);
    edit(&mut snapshot);
    canister.snapshots.taken.insert(0, Arc::new(snapshot));
}

fn page(canister: &mut CanisterState, stable: bool, index: u64, byte: u8) {
    let code = canister.code.as_mut().unwrap();
    let version = code.arena.store(&[byte; PAGE_BYTES]).unwrap();
    let memory = if stable { &mut code.stable } else { &mut code.heap };
    *memory = memory.with(memory.wasm_pages(), [(index, version)]);
}

canister_fields! {
    "id": |c| c.id = principal(8);
    "balance": |c| c.balance += 1;
    "reserved": |c| c.reserved += 1;
    "version": |c| c.version += 1;
    "stopped": |c| c.status = Status::Stopped;
    "stopping": |c| c.status = Status::Stopping(imbl::Vector::new());
    "stop waiter": |c| c.status = Status::Stopping(imbl::Vector::unit(
        StopWaiter { origin: Origin::Task, cycles: 1, since: 1 },
    ));
    "certified data": |c| c.certified_data.push(1);
    "timer": |c| c.global_timer += 1;
    "hook": |c| c.hook = Hook::Executed;
    "task pointer": |c| c.task_pointer = TaskPointer::Heartbeat;
    "no code": |c| c.code = None;
    "created": |c| c.created += 1;
    "installed": |c| c.code.as_mut().unwrap().installed += 1;
    "global": |c| c.code.as_mut().unwrap().globals = Arc::from([GlobalValue::I64(8)]);
    "global type": |c| c.code.as_mut().unwrap().globals = Arc::from([GlobalValue::I32(7)]);
    "heap byte": |c| page(c, false, 1, 2);
    "heap page": |c| page(c, false, 2, 1);
    "heap size": |c| { let code = c.code.as_mut().unwrap(); code.heap = code.heap.with(2, []) };
    "stable byte": |c| page(c, true, 1, 2);
    "stable size": |c| { let code = c.code.as_mut().unwrap(); code.stable = code.stable.with(9, []) };
    "controllers": |c| set(c, |s| s.controllers.push(principal(9)));
    "compute": |c| set(c, |s| s.compute_allocation += 1);
    "memory allocation": |c| set(c, |s| s.memory_allocation += 1);
    "freezing threshold": |c| set(c, |s| s.freezing_threshold += 1);
    "reserved limit": |c| set(c, |s| s.reserved_cycles_limit += 1);
    "wasm memory limit": |c| set(c, |s| s.wasm_memory_limit += 1);
    "wasm memory threshold": |c| set(c, |s| s.wasm_memory_threshold += 1);
    "log visibility": |c| set(c, |s| s.log_visibility = Visibility::Public);
    "log viewers": |c| set(c, |s| s.log_visibility = Visibility::AllowedViewers(vec![]));
    "log limit": |c| set(c, |s| s.log_memory_limit += 1);
    "snapshot visibility": |c| set(c, |s| s.snapshot_visibility = Visibility::Public);
    "status visibility": |c| set(c, |s| s.status_visibility = Visibility::Public);
    "chunk": |c| c.chunks.chunks.insert([1; 32], Arc::from([1]));
    "next snapshot": |c| c.snapshots.next += 1;
    "no snapshot": |c| c.snapshots.taken.clear();
    "snapshot number": |c| {
        let snapshot = c.snapshots.taken.remove(&0).unwrap();
        c.snapshots.taken.insert(1, snapshot);
    };
    "snapshot time": |c| snapshot(c, |s| s.taken_at += 1);
    "snapshot version": |c| snapshot(c, |s| s.version += 1);
    "snapshot certified data": |c| snapshot(c, |s| s.certified_data.push(1));
    "snapshot chunk": |c| snapshot(c, |s| drop(s.chunks.chunks.insert([1; 32], Arc::from([1]))));
    "snapshot global": |c| snapshot(c, |s| s.code.globals = Arc::from([GlobalValue::I64(8)]));
    "snapshot heap": |c| snapshot(c, |s| s.code.heap = s.code.heap.with(3, []));
    "snapshot stable memory": |c| snapshot(c, |s| s.code.stable = s.code.stable.with(9, []));
    "install debit": |c| c.install_debit.amount += 1;
    "heap delta round": |c| c.heap_delta.round += 1;
    "loaded": |c| changed(c, |change| change.details = ChangeDetails::LoadSnapshot {
        snapshot: SnapshotId { canister: principal(1), number: 0 }, version: 1, taken_at: 1,
    });
    "guaranteed calls": |c| c.calls.guaranteed += 1;
    "bytes of messages": |c| c.inputs.bytes += 1;
    "variables": |c| set(c, |s| s.environment_variables.push(("a".into(), "b".into())));
    "minimum cycles": |c| set(c, |s| s.minimum_incoming_canister_call_cycles += 1);
    "history total": |c| c.history.total += 1;
    "change time": |c| changed(c, |change| change.time += 1);
    "change version": |c| changed(c, |change| change.version += 1);
    "change origin": |c| changed(c, |change| change.origin = principal(9));
    "change origin version": |c| changed(c, |change| change.origin_version = None);
    "change by user": |c| changed(c, |change| change.by_user = false);
    "change details": |c| changed(c, |change| change.details = ChangeDetails::CodeUninstall);
    "log next": |c| c.log.next += 1;
    "log bytes": |c| c.log.bytes += 1;
    "log index": |c| logged(c, |record| record.index += 1);
    "log time": |c| logged(c, |record| record.time += 1);
    "log text": |c| logged(c, |record| record.text = Arc::from(*b"q"));
    "tasks": |c| c.inputs.tasks.push_back(Task::Heartbeat);
    "next source": |c| c.inputs.next = Source::Users;
    "turns": |c| c.inputs.turns.push_back(principal(3));
    "ingress sender": |c| asked(c, |message| message.sender = principal(3));
    "ingress receiver": |c| asked(c, |message| message.receiver = principal(3));
    "ingress method": |c| asked(c, |message| message.method = "n".into());
    "ingress argument": |c| asked(c, |message| message.arg = Arc::from([2]));
    "ingress nonce": |c| asked(c, |message| message.nonce = vec![2]);
    "request sender": |c| requested(c, |r| r.sender = principal(3));
    "request callback": |c| requested(c, |r| r.callback += 1);
    "request receiver": |c| requested(c, |r| r.receiver = principal(3));
    "request method": |c| requested(c, |r| r.method = "n".into());
    "request argument": |c| requested(c, |r| r.arg = Arc::from([2]));
    "request cycles": |c| requested(c, |r| r.cycles += 1);
    "request deadline": |c| requested(c, |r| r.deadline += 1);
    "response respondent": |c| responded(c, |r| r.respondent = principal(3));
    "response receiver": |c| responded(c, |r| r.receiver = principal(3));
    "response callback": |c| responded(c, |r| r.callback += 1);
    "response payload": |c| responded(c, |r| r.payload = Payload::Reply(Arc::from([1])));
    "response refund": |c| responded(c, |r| r.refund += 1);
    "next context": |c| c.calls.next_context += 1;
    "next callback": |c| c.calls.next_callback += 1;
    "outstanding": |c| c.calls.outstanding.insert(principal(1), 2);
    "context origin": |c| context_of(c).origin = Origin::Task;
    "context answered": |c| context_of(c).answered = true;
    "context deleted": |c| context_of(c).deleted = true;
    "context available": |c| context_of(c).available += 1;
    "context time": |c| context_of(c).time += 1;
    "context instructions": |c| context_of(c).instructions += 1;
    "context calls": |c| context_of(c).calls_out += 1;
    "call context": |c| call_of(c).context += 1;
    "call callee": |c| call_of(c).callee = principal(3);
    "call reply": |c| call_of(c).on_reply.function += 1;
    "call reject": |c| call_of(c).on_reject.environment += 1;
    "call cleanup": |c| call_of(c).on_cleanup = Some(callback());
    "call cycles": |c| call_of(c).cycles_sent += 1;
    "call execution": |c| call_of(c).execution_prepaid += 1;
    "call transmission": |c| call_of(c).transmission_prepaid += 1;
    "call deadline": |c| call_of(c).deadline += 1;
}

#[test]
fn where_pages_lie_does_not_move_the_root() {
    let (state, id) = full();
    let mut canister = CanisterState::clone(&state.canisters[&id]);
    page(&mut canister, false, 1, 1);
    page(&mut canister, false, 9, 0);
    let mut moved = state.clone();
    moved.canisters.insert(id, Shared::new(canister));
    assert_eq!(state_root(&moved), state_root(&state));
}

#[test]
fn the_kept_root_follows_rounds_as_a_fresh_one_does() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let echo = bench.program([Op::Heap(5, 5), Op::Reply(vec![1])]);
    for n in 0..10 {
        let _ = bench.run(a, [Op::Heap(n, n as u8), Op::Call(call(b, echo, NOTHING))]);
        assert_eq!(bench.subnet.state_root(), state_root(bench.subnet.state()));
    }
}
