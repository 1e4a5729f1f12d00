//! What goes into a frame comes out of it, whatever its size.

use std::sync::Arc;

use execution::certification::DATA_CERTIFICATE_BYTES_MAX;
use execution::memory::PageUpdate;
use execution::outcome::{Effects, OutgoingCall};
use execution::{
    Answer, Callback, EntryPoint, Freezing, GlobalValue, Invocation, Limits, Principal, RunStatus, SystemView,
};
use proptest::prelude::*;
use sandbox_protocol as wire;
use wire::{Assembly, Binding, List, Malformed, Sync, ToWorker};

const BINDING: Binding = Binding { worker: 7, execution: u64::MAX, nonce: u128::MAX - 1 };

fn assemble(frame: &[u8]) -> (Binding, Vec<u8>) {
    let mut assembly = Assembly::default();
    let mut complete = None;
    for packet in wire::packets(frame) {
        assert_eq!(complete, None, "nothing follows a complete frame");
        complete = assembly.push(packet).unwrap();
    }
    (complete.unwrap(), assembly.body().to_vec())
}

fn system() -> SystemView {
    SystemView {
        canister: Principal::from_slice(&[1; 10]),
        subnet: Principal::from_slice(&[2; 29]),
        time: 1,
        version: 2,
        status: RunStatus::Stopping,
        controllers: vec![Principal::anonymous(), Principal::management_canister()],
        balance: u128::MAX,
        freezing: Freezing {
            memory_bytes: 3,
            message_bytes: 4,
            memory_allocation: 5,
            compute_allocation: 6,
            threshold_seconds: 7,
            reserved: 8,
        },
        cycles_available: 9,
        cycles_refunded: 10,
        deadline: 11,
        global_timer: 12,
        answered: true,
        answer_needed: false,
        call_context_instructions: 13,
        data_certificate: Some(Arc::from([1, 2, 3])),
        environment_variables: vec![("a".into(), "b".into())],
        root_key: Arc::from([4; 133]),
        wasm_memory_limit: 14,
        subnet_memory_available: 15,
        callbacks_free: 16,
        queue_taken: vec![(Principal::anonymous(), 17)],
        log_capacity: 19,
        log_bytes_free: 18,
    }
}

fn entries() -> Vec<EntryPoint> {
    let arg: Arc<[u8]> = Arc::from([5, 6]);
    let (method, callback) = (String::from("m\u{e9}"), Callback { function: 1, environment: u64::MAX });
    vec![
        EntryPoint::Start,
        EntryPoint::Init { arg: Arc::clone(&arg) },
        EntryPoint::PreUpgrade,
        EntryPoint::PostUpgrade { arg: Arc::clone(&arg) },
        EntryPoint::InspectMessage { method: method.clone(), arg: Arc::clone(&arg) },
        EntryPoint::Heartbeat,
        EntryPoint::GlobalTimer,
        EntryPoint::LowWasmMemory,
        EntryPoint::Update { method: method.clone(), arg: Arc::clone(&arg) },
        EntryPoint::ReplicatedQuery { method: method.clone(), arg: Arc::clone(&arg) },
        EntryPoint::Query { method: method.clone(), arg: Arc::clone(&arg) },
        EntryPoint::Transform { method: method.clone(), arg: Arc::clone(&arg) },
        EntryPoint::CompositeQuery { method: method.clone(), arg: Arc::clone(&arg) },
        EntryPoint::Reply { callback, data: arg, composite: true },
        EntryPoint::Reject { callback, code: 6, message: method, composite: false },
        EntryPoint::Cleanup { callback, code: 0, composite: true },
    ]
}

#[test]
fn every_invocation_arrives_as_it_was() {
    let limits = Arc::new(Limits { nodes: 34, ..Limits::application() });
    for entry in entries() {
        let sent = Invocation {
            id: 42,
            entry,
            caller: Principal::anonymous(),
            instructions_max: 1 << 40,
            slice: 1 << 30,
            system: system(),
            limits: Arc::clone(&limits),
        };
        let message = ToWorker::Execute(Box::new(wire::Execute {
            sync: Sync {
                heap_pages: 1,
                stable_pages: 2,
                globals: wire::globals(&[GlobalValue::V128(3), GlobalValue::F64(4)]),
                heap: wire::page_runs(vec![PageUpdate::one(1, Some(2), true)]),
                stable: wire::page_runs(vec![]),
            },
            invocation: wire::Invocation::new(&sent, Some(&limits)),
            expected: List(vec![wire::Invocation::new(&sent, None)]),
        }));
        let mut frame = Vec::new();
        wire::encode(BINDING, &message, &mut frame).unwrap();
        let (binding, body) = assemble(&frame);
        assert_eq!(binding, BINDING);
        let arrived: ToWorker<'_> = wire::decode(&body).unwrap();
        assert_eq!(arrived, message);
        let ToWorker::Execute(execute) = arrived else { panic!("an Execute was sent") };
        let limits = Arc::new((*execute.invocation.limits.clone().unwrap()).into());
        let received = execute.invocation.with_limits(limits).unwrap();
        assert_eq!(received.limits, sent.limits);
        assert_eq!(
            (received.id, received.entry, received.caller, received.instructions_max, received.slice),
            (sent.id, sent.entry, sent.caller, sent.instructions_max, sent.slice)
        );
        assert_eq!(received.system, sent.system);
    }
}

#[test]
fn effects_arrive_as_they_were() {
    let callback = Callback { function: 3, environment: 4 };
    let sent = Effects {
        globals: Arc::from([GlobalValue::I32(-1), GlobalValue::I64(-2), GlobalValue::F32(3)]),
        answer: Some(Answer::Reject("no".into())),
        calls: vec![OutgoingCall {
            callee: Principal::from_slice(&[9; 29]),
            method: "m".into(),
            arg: vec![1; 100_000],
            cycles: 1 << 100,
            on_reply: callback,
            on_reject: callback,
            on_cleanup: Some(callback),
            timeout_seconds: Some(300),
        }],
        certified_data: Some(vec![7; 32]),
        global_timer: Some(0),
        cycles_accepted: 5,
        cycles_burned: 6,
        accepted: true,
        ..Effects::default()
    };
    let mut frame = Vec::new();
    wire::encode(BINDING, &wire::Effects::from(&sent), &mut frame).unwrap();
    assert!(wire::packets(&frame).count() > 1);
    let (_, body) = assemble(&frame);
    let received: wire::Effects<'_> = wire::decode(&body).unwrap();
    assert_eq!(Effects::try_from(received).unwrap(), sent);
}

#[test]
fn a_callee_of_thirty_bytes_is_refused() {
    let long = [1; 30];
    let call = wire::Call {
        callee: wire::Bytes(&long),
        method: "m",
        arg: wire::Bytes(&[]),
        cycles: 0,
        on_reply: (0, 0),
        on_reject: (0, 0),
        on_cleanup: None,
        timeout_seconds: None,
    };
    assert!(OutgoingCall::try_from(call).is_err());
}

#[test]
fn a_data_certificate_over_its_bound_is_refused() {
    let of = |bytes: usize| {
        let view = SystemView { data_certificate: Some(Arc::from(vec![0; bytes])), ..system() };
        SystemView::try_from(wire::System::from(&view)).map(|arrived| assert_eq!(arrived, view))
    };
    assert_eq!(of(DATA_CERTIFICATE_BYTES_MAX), Ok(()));
    assert_eq!(of(DATA_CERTIFICATE_BYTES_MAX + 1), Err(Malformed("data certificate too long")));
}

proptest! {
    #[test]
    fn a_message_of_any_length_survives_being_cut_into_packets(length in 0_usize..300_000) {
        let bytes = vec![0xa5; length];
        let mut frame = Vec::new();
        wire::encode(BINDING, &wire::Bytes(&bytes), &mut frame).unwrap();
        prop_assert!(wire::packets(&frame).all(|packet| packet.len() <= wire::PACKET_BYTES));
        let (binding, body) = assemble(&frame);
        prop_assert_eq!(binding, BINDING);
        prop_assert_eq!(wire::decode::<wire::Bytes<'_>>(&body).unwrap().0, &bytes[..]);
    }

    #[test]
    fn page_runs_hold_exactly_the_pages_given(
        pages in proptest::collection::btree_map(0_u64..64, (proptest::option::of(0_u32..8), any::<bool>()), 0..64)
    ) {
        let pages: Vec<PageUpdate> =
            pages.into_iter().map(|(page, (slot, known))| PageUpdate::one(page, slot, known)).collect();
        let joined = wire::page_updates(&wire::page_runs(PageUpdate::join(pages.iter().copied())).0).unwrap();
        let each = |update: &PageUpdate| {
            let known = update.known;
            update.pages().map(move |(page, slot)| PageUpdate::one(page, slot, known)).collect::<Vec<_>>()
        };
        prop_assert_eq!(joined.iter().flat_map(each).collect::<Vec<_>>(), pages);
    }

    #[test]
    fn page_spans_hold_exactly_the_pages_given(pages in proptest::collection::btree_set(0_u64..64, 0..64)) {
        let spans = wire::page_spans(pages.iter().copied());
        prop_assert_eq!(wire::heap_pages(&spans.0, 64, 64), Ok(pages.into_iter().collect()));
    }
}
