//! Create, install, upgrade, stop, start, delete, settings.

use candid::Nat;
use execution::state::Status;
use execution::{ErrorCode, Principal};

use crate::scripted::{
    ANONYMOUS, BALANCE, Bench, Mode, NOTHING, Op, Persistence, UpgradeOptions, call, id_arg, killed,
};

const UPGRADE: Mode = Mode::Upgrade(None);

fn upgrade(skip: bool, keep: bool) -> Mode {
    Mode::Upgrade(Some(UpgradeOptions {
        skip_pre_upgrade: Some(skip),
        wasm_memory_persistence: keep.then_some(Persistence::Keep),
    }))
}

#[test]
fn a_new_canister_is_empty_and_running_with_version_0() {
    let mut bench = Bench::new();
    let id = bench.empty_canister();
    let canister = bench.state(id);
    assert_eq!((canister.version, &canister.status, canister.balance), (0, &Status::Running, BALANCE));
    assert!(canister.code.is_none());
    assert_eq!(bench.install(id, UPGRADE, "", NOTHING).unwrap_err().code, ErrorCode::NO_WASM_MODULE);
}

#[test]
fn install_runs_start_then_init_and_refuses_a_second_time() {
    let mut bench = Bench::new();
    let id = bench.empty_canister();
    let start = bench.program([Op::Print("start"), Op::Heap(1, 1)]);
    let init = bench.program([Op::Print("init"), Op::Heap(2, 2), Op::Certify(b"c"), Op::Timer(u64::MAX)]);
    let reply = bench.install(id, Mode::Install, &format!("start={start} init"), init).unwrap();
    assert_eq!(reply, b"DIDL\0\0");
    let canister = bench.state(id);
    let log: Vec<_> = canister.log.records.iter().map(|record| record.text.to_vec()).collect();
    assert_eq!(log, [b"start".to_vec(), b"init".to_vec()]);
    assert_eq!((bench.heap(id, 1), bench.heap(id, 2)), (1, 2));
    assert_eq!(
        (canister.version, canister.global_timer, &canister.certified_data[..]),
        (1, u64::MAX, &b"c"[..])
    );
    let seen = bench.script.seen.lock().unwrap();
    let init = seen.iter().find(|invocation| invocation.entry.kind() == "init").unwrap();
    assert_eq!((init.caller, init.system.version), (ANONYMOUS, 1));
    drop(seen);
    let error = bench.install(id, Mode::Install, "", NOTHING).unwrap_err();
    assert_eq!(error.code, ErrorCode::NON_EMPTY);
}

#[test]
fn a_bad_module_is_ic0505_and_changes_nothing() {
    let mut bench = Bench::new();
    let id = bench.empty_canister();
    let error = bench.install(id, Mode::Install, "bad", NOTHING).unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_MODULE);
    assert!(bench.state(id).code.is_none());
}

#[test]
fn an_init_that_traps_leaves_the_canister_as_it_was_but_for_charge_and_log() {
    let mut bench = Bench::new();
    let trap = bench.program([Op::Print("p"), Op::Heap(1, 1), Op::Trap("init")]);
    let id = bench.empty_canister();
    let error = bench.install(id, Mode::Install, "init", trap).unwrap_err();
    assert_eq!(error.code, ErrorCode::CALLED_TRAP);
    let canister = bench.state(id);
    assert!(canister.code.is_none() && canister.balance < BALANCE);
    assert_eq!((canister.version, canister.log.records.len()), (0, 1));

    let id = bench.canister("");
    bench.run(id, [Op::Stable(1, 7), Op::Heap(1, 7), Op::Reply(vec![])]).unwrap();
    bench.install(id, Mode::Reinstall, "init", trap).unwrap_err();
    assert_eq!(bench.heap(id, 1), 7);
    bench.install(id, Mode::Reinstall, "init", NOTHING).unwrap();
    let code = bench.state(id).code.as_ref().unwrap();
    assert_eq!((bench.heap(id, 1), code.stable.wasm_pages()), (0, 0));
}

#[test]
fn an_upgrade_keeps_stable_memory_runs_its_hooks_and_bumps_the_version_once() {
    let mut bench = Bench::new();
    let pre = bench.program([Op::Stable(2, 5), Op::Print("pre")]);
    let post = bench.program([Op::Print("post"), Op::Heap(4, 4)]);
    let id = bench.canister(&format!("pre_upgrade={pre}"));
    bench.run(id, [Op::Heap(1, 7), Op::Global(9), Op::Stable(1, 6), Op::Reply(vec![])]).unwrap();
    let version = bench.state(id).version;
    bench.install(id, UPGRADE, "post_upgrade init", post).unwrap();
    let code = bench.state(id).code.clone().unwrap();
    assert_eq!((bench.heap(id, 1), bench.heap(id, 4)), (0, 4));
    let mut stable = [0; 2];
    code.stable.read(4096, &mut stable[..1]);
    code.stable.read(8192, &mut stable[1..]);
    assert_eq!(stable, [6, 5]);
    assert_eq!(code.globals[0], execution::GlobalValue::I64(7));
    assert_eq!(bench.state(id).version, version + 1);
    let seen = bench.script.seen.lock().unwrap();
    let hooks: Vec<_> = seen.iter().rev().take(2).map(|i| (i.entry.kind(), i.system.version)).collect();
    assert_eq!(hooks, [("post_upgrade", version + 1), ("pre_upgrade", version)]);
}

#[test]
fn a_trapping_hook_leaves_the_old_code_and_can_be_skipped() {
    let mut bench = Bench::new();
    let trap = bench.program([Op::Stable(1, 1), Op::Trap("hook")]);
    let id = bench.canister(&format!("pre_upgrade={trap}"));
    bench.run(id, [Op::Heap(1, 7), Op::Reply(vec![])]).unwrap();
    let hash = bench.state(id).module().unwrap().hash;
    assert_eq!(bench.install(id, UPGRADE, "new", NOTHING).unwrap_err().code, ErrorCode::CALLED_TRAP);
    let post_trap = bench.install(id, upgrade(true, false), "post_upgrade", trap).unwrap_err();
    assert_eq!(post_trap.code, ErrorCode::CALLED_TRAP);
    assert_eq!((bench.state(id).module().unwrap().hash, bench.heap(id, 1)), (hash, 7));
    assert_eq!(bench.state(id).code.as_ref().unwrap().stable.wasm_pages(), 0);
    bench.install(id, upgrade(true, false), "new", NOTHING).unwrap();
    assert_ne!(bench.state(id).module().unwrap().hash, hash);
}

#[test]
fn keep_keeps_the_heap_of_modules_made_for_it_and_of_no_others() {
    let mut bench = Bench::new();
    let id = bench.canister("persistent v1");
    bench.run(id, [Op::Heap(1, 7), Op::Grow(2), Op::Reply(vec![])]).unwrap();
    assert_eq!(
        bench.install(id, UPGRADE, "persistent v2", NOTHING).unwrap_err().code,
        ErrorCode::CONTRACT_VIOLATION
    );
    assert_eq!(
        bench.install(id, upgrade(false, true), "v2", NOTHING).unwrap_err().code,
        ErrorCode::CONTRACT_VIOLATION
    );
    bench.install(id, upgrade(false, true), "persistent v2", NOTHING).unwrap();
    assert_eq!(bench.heap(id, 1), 7);
    assert_eq!(bench.state(id).code.as_ref().unwrap().heap.wasm_pages(), 3);
}

#[test]
fn stop_waits_for_open_calls_and_start_cancels_it() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let echo = bench.program([Op::Reply(vec![])]);
    let manager = Principal::management_canister();
    // B is stuck, so A's call stays out.
    *bench.script.failing.lock().unwrap() = Some((6, b, killed));
    let program = bench.program([Op::Call(call(b, echo, NOTHING))]);
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    bench.round();
    let stop = bench.submit(manager, "stop_canister", &id_arg(a)).unwrap();
    let start = bench.submit(manager, "start_canister", &id_arg(a)).unwrap();
    let version = bench.state(a).version;
    bench.round();
    let execution::IngressStatus::Rejected(error) = bench.subnet.status(&stop) else {
        panic!("not rejected")
    };
    assert_eq!(error.code, ErrorCode::STOP_CANCELLED);
    assert!(matches!(bench.subnet.status(&start), execution::IngressStatus::Replied(_)));
    assert_eq!((&bench.state(a).status, bench.state(a).version), (&Status::Running, version + 2));
}

#[test]
fn a_stopping_canister_gets_responses_only_and_a_stopped_one_nothing() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let echo = bench.program([Op::Reply(vec![])]);
    *bench.script.failing.lock().unwrap() = Some((3, b, killed));
    let program = bench.program([Op::Call(call(b, echo, NOTHING))]);
    bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    bench.round();
    let stop = bench.submit(Principal::management_canister(), "stop_canister", &id_arg(a)).unwrap();
    *bench.script.failing.lock().unwrap() = Some((3, b, killed));
    bench.round();
    assert_eq!(bench.submit(a, "run", b"").unwrap_err().code, ErrorCode::STOPPING);
    assert!(matches!(bench.subnet.status(&stop), execution::IngressStatus::Received));
    bench.round();
    assert!(matches!(bench.subnet.status(&stop), execution::IngressStatus::Replied(_)));
    assert_eq!(bench.submit(a, "run", b"").unwrap_err().code, ErrorCode::STOPPED);
    assert_eq!(bench.subnet.query(ANONYMOUS, a, "ask", b"").result.unwrap_err().code, ErrorCode::STOPPED);
    bench.manage("delete_canister", &id_arg(a)).unwrap();
    assert_eq!(bench.submit(a, "run", b"").unwrap_err().code, ErrorCode::CANISTER_NOT_FOUND);
    assert_eq!(bench.manage("delete_canister", &id_arg(b)).unwrap_err().code, ErrorCode::NOT_STOPPED);
}

#[test]
fn uninstall_rejects_open_callers_with_code_4_and_late_responses_credit_cycles_only() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let echo = bench.program([Op::Reply(vec![])]);
    *bench.script.failing.lock().unwrap() = Some((3, b, killed));
    let program = bench.program([Op::Call(call(b, echo, NOTHING))]);
    let open = bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    bench.round();
    let balance = bench.state(a).balance;
    *bench.script.failing.lock().unwrap() = Some((3, b, killed));
    bench.manage("uninstall_code", &id_arg(a)).unwrap();
    let execution::IngressStatus::Rejected(error) = bench.subnet.status(&open) else {
        panic!("not rejected")
    };
    assert_eq!(error.code.reject_code(), 4);
    assert_eq!(bench.state(a).calls.contexts.len(), 1);
    bench.round();
    assert!(bench.state(a).calls.contexts.is_empty() && bench.state(a).calls.callbacks.is_empty());
    assert!(bench.state(a).balance > balance + 40_000_000_000);
}

#[derive(candid::CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

#[derive(candid::CandidType, Default)]
struct Settings {
    controllers: Option<Vec<Principal>>,
    compute_allocation: Option<Nat>,
    environment_variables: Option<Vec<Variable>>,
    minimum_incoming_canister_call_cycles: Option<Nat>,
}

#[derive(candid::CandidType)]
struct Variable {
    name: String,
    value: String,
}

fn settings(
    bench: &mut Bench,
    canister_id: Principal,
    settings: Settings,
) -> Result<Vec<u8>, execution::UserError> {
    let arg = candid::encode_one(UpdateSettings { canister_id, settings }).unwrap();
    bench.manage("update_settings", &arg)
}

#[test]
fn settings_are_checked_and_only_controllers_change_them() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let many = |count: u8| (0..count).map(|n| Principal::from_slice(&[n, 1])).collect::<Vec<_>>();
    let eleven = Settings { controllers: Some(many(11)), ..Settings::default() };
    assert_eq!(settings(&mut bench, a, eleven).unwrap_err().code, ErrorCode::INVALID_MANAGEMENT_PAYLOAD);
    let variable = |name: &str| Variable { name: name.into(), value: "v".into() };
    let variables = Some(vec![variable("b"), variable("a")]);
    settings(&mut bench, a, Settings { environment_variables: variables, ..Settings::default() }).unwrap();
    assert_eq!(bench.state(a).settings.environment_variables[0].0, "a");
    let twice = vec![ANONYMOUS, ANONYMOUS, many(1)[0]];
    settings(&mut bench, a, Settings { controllers: Some(twice), ..Settings::default() }).unwrap();
    assert_eq!(bench.state(a).settings.controllers.len(), 2);
    settings(&mut bench, a, Settings { controllers: Some(many(10)), ..Settings::default() }).unwrap();
    let error = settings(&mut bench, a, Settings::default()).unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_CONTROLLER);
    for method in ["start_canister", "stop_canister", "canister_status", "delete_canister", "uninstall_code"]
    {
        assert_eq!(bench.manage(method, &id_arg(a)).unwrap_err().code, ErrorCode::INVALID_CONTROLLER);
    }
}

#[test]
fn calls_with_too_few_cycles_are_refused_where_the_canister_says_so() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let minimum =
        Settings { minimum_incoming_canister_call_cycles: Some(Nat::from(10_u8)), ..Settings::default() };
    settings(&mut bench, b, minimum).unwrap();
    let echo = bench.program([Op::Reply(b"in".to_vec())]);
    let back = bench.program([Op::ReplyResponse]);
    let mut request = call(b, echo, back);
    request.cycles = 9;
    assert!(bench.run(a, [Op::Call(request.clone())]).unwrap().starts_with(b"5 "));
    request.cycles = 10;
    assert_eq!(bench.run(a, [Op::Call(request)]).unwrap(), b"in");
    assert_eq!(bench.ingress(b, "run", &echo.to_be_bytes()).unwrap(), b"in");
}

#[test]
fn management_rules_for_users() {
    let mut bench = Bench::new();
    for method in ["raw_rand", "create_canister", "deposit_cycles"] {
        assert_eq!(bench.manage(method, b"DIDL\0\0").unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    }
    let error = bench.manage("nope", b"DIDL\0\0").unwrap_err();
    assert_eq!(error.to_string(), "IC0536: Management canister has no method 'nope'");
    let error = bench.manage("start_canister", b"junk").unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_MANAGEMENT_PAYLOAD);
    let made = bench.manage("provisional_create_canister_with_cycles", b"DIDL\0\0").unwrap();
    assert!(made.starts_with(b"DIDL"));
    let first = Bench::with(execution::SubnetConfig::system(), 1)
        .manage("provisional_create_canister_with_cycles", b"DIDL\0\0")
        .unwrap();
    let expected = "4449444c016c01b3c4b1f204680100010a00000000000000000101";
    assert_eq!(first.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
}

#[test]
fn canisters_create_feed_and_draw_random_bytes_through_the_management_canister() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let back = bench.program([Op::ReplyResponse]);
    let manage = |method, arg: Vec<u8>, cycles| {
        let mut request = call(Principal::management_canister(), NOTHING, back);
        (request.method, request.arg, request.cycles) = (method, arg, cycles);
        Op::Call(request)
    };
    let id = bench.run(a, [manage("create_canister", b"DIDL\0\0".to_vec(), 700_000_000_000)]).unwrap();
    let child = Principal::from_slice(&id[id.len() - 10..]);
    assert_eq!(bench.state(child).balance, 200_000_000_000);
    assert_eq!(bench.state(child).settings.controllers, [a]);
    bench.run(a, [manage("deposit_cycles", id_arg(child), 5)]).unwrap();
    assert_eq!(bench.state(child).balance, 200_000_000_005);
    let poor = bench.run(a, [manage("create_canister", b"DIDL\0\0".to_vec(), 7)]).unwrap();
    assert!(poor.starts_with(b"4 IC0403"));
    let draw = |bench: &mut Bench| bench.run(a, [manage("raw_rand", b"DIDL\0\0".to_vec(), 0)]).unwrap();
    let (first, second) = (draw(&mut bench), draw(&mut bench));
    assert_eq!(first.len(), second.len());
    assert_ne!(first, second);
    let status = bench.run(a, [manage("canister_status", id_arg(a), 0)]).unwrap();
    assert!(status.starts_with(b"DIDL"));
}

#[test]
fn a_canister_that_cannot_pay_for_what_it_holds_loses_its_code() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let allocation = Settings { compute_allocation: Some(Nat::from(30_u8)), ..Settings::default() };
    settings(&mut bench, a, allocation).unwrap();
    bench.time += 1_700_000 * crate::scripted::SECOND;
    bench.round();
    let left = bench.state(a).balance;
    assert!(left > 0 && left < BALANCE / 2 + 1 && bench.state(a).code.is_some());
    assert_eq!(bench.submit(a, "run", b"").unwrap_err().code, ErrorCode::OUT_OF_CYCLES);
    bench.time += 2_000_000 * crate::scripted::SECOND;
    bench.round();
    let canister = bench.state(a);
    assert!(canister.code.is_none());
    assert_eq!((canister.balance, canister.settings.compute_allocation), (0, 0));
    assert!(bench.state(b).code.is_some());
}
