//! Snapshots of canisters.

use candid::Decode;
use execution::state::{ChangeDetails, SnapshotId};
use execution::{ErrorCode, Principal, SubnetConfig, UserError, state_root};
use ic_management_canister_types::{
    CanisterIdRecord, DeleteCanisterSnapshotArgs, LoadCanisterSnapshotArgs, Snapshot,
    TakeCanisterSnapshotArgs, UploadChunkArgs,
};

use crate::scripted::{Bench, Mode, NOTHING, Op, id_arg};

fn take_arg(canister_id: Principal) -> TakeCanisterSnapshotArgs {
    TakeCanisterSnapshotArgs {
        canister_id,
        replace_snapshot: None,
        uninstall_code: None,
        sender_canister_version: None,
    }
}

fn take(bench: &mut Bench, canister: Principal) -> Result<Snapshot, UserError> {
    bench.managed("take_canister_snapshot", &take_arg(canister))
}

fn load_arg(canister_id: Principal, snapshot_id: &[u8]) -> Vec<u8> {
    let snapshot_id = snapshot_id.to_vec();
    candid::encode_one(LoadCanisterSnapshotArgs { canister_id, snapshot_id, sender_canister_version: None })
        .unwrap()
}

fn load(bench: &mut Bench, canister: Principal, id: &[u8]) -> Result<Vec<u8>, UserError> {
    bench.manage("load_canister_snapshot", &load_arg(canister, id))
}

fn delete(bench: &mut Bench, canister_id: Principal, id: &[u8]) -> Result<Vec<u8>, UserError> {
    let arg = DeleteCanisterSnapshotArgs { canister_id, snapshot_id: id.to_vec() };
    bench.manage("delete_canister_snapshot", &candid::encode_one(arg).unwrap())
}

fn list(bench: &mut Bench, canister_id: Principal) -> Vec<Snapshot> {
    bench.managed("list_canister_snapshots", &CanisterIdRecord { canister_id }).unwrap()
}

fn upload(bench: &mut Bench, canister_id: Principal, chunk: &[u8]) {
    let arg = UploadChunkArgs { canister_id, chunk: chunk.to_vec() };
    bench.manage("upload_chunk", &candid::encode_one(arg).unwrap()).unwrap();
}

fn stable(bench: &Bench, canister: Principal) -> (u64, u8) {
    let stable = &bench.state(canister).code.as_ref().unwrap().stable;
    let mut byte = [0];
    if stable.wasm_pages() > 0 {
        stable.read(4096, &mut byte);
    }
    (stable.wasm_pages(), byte[0])
}

#[test]
fn loading_brings_back_code_memory_globals_certified_data_and_chunks_and_nothing_else() {
    let mut bench = Bench::new();
    let a = bench.canister("old");
    upload(&mut bench, a, b"chunk");
    let write = [Op::Heap(1, 7), Op::Stable(1, 8), Op::Global(9), Op::Certify(b"c"), Op::Timer(u64::MAX)];
    bench.run(a, write.into_iter().chain([Op::Reply(vec![])])).unwrap();
    let taken_of = bench.state(a).clone();
    let snapshot = take(&mut bench, a).unwrap();
    assert_eq!(bench.state(a).version, taken_of.version, "taking one changes nothing of the canister");
    assert_eq!(snapshot.taken_at_timestamp, bench.time);
    let code = taken_of.code.as_ref().unwrap();
    assert_eq!(snapshot.total_size, code.bytes() + (1 << 20));

    bench.install(a, Mode::Reinstall, "new", NOTHING).unwrap();
    bench.manage("clear_chunk_store", &id_arg(a)).unwrap();
    let write =
        [Op::Heap(1, 1), Op::Grow(3), Op::Stable(1, 1), Op::Certify(b"d"), Op::Timer(5), Op::Print("p")];
    bench.run(a, write.into_iter().chain([Op::Reply(vec![])])).unwrap();
    let version = bench.state(a).version;
    assert_eq!(load(&mut bench, a, &snapshot.id).unwrap(), b"DIDL\0\0");

    let canister = bench.state(a).clone();
    let now = canister.code.as_ref().unwrap();
    assert_eq!(now.module.hash, code.module.hash);
    assert_eq!((bench.heap(a, 1), now.heap.wasm_pages(), stable(&bench, a)), (7, 1, (1, 8)));
    assert_eq!(now.globals, code.globals);
    assert_eq!((&canister.certified_data[..], canister.chunks.chunks.len()), (&b"c"[..], 1));
    // Kept as they were: timer and log.
    assert_eq!((canister.global_timer, canister.log.records.len()), (5, 1));
    assert_eq!(canister.version, version + 1);
    let last = canister.history.recent.last().unwrap();
    let expected = ChangeDetails::LoadSnapshot {
        snapshot: SnapshotId::from_bytes(&snapshot.id).unwrap(),
        version: taken_of.version,
        taken_at: snapshot.taken_at_timestamp,
    };
    assert_eq!((&last.details, last.version), (&expected, version + 1));
    assert_eq!(bench.subnet.state_root(), state_root(bench.subnet.state()));
    // It runs on what was loaded.
    assert_eq!(bench.run(a, [Op::ReplyHeap(1)]).unwrap(), [7]);
}

#[test]
fn there_are_ten_at_most_and_one_can_take_the_place_of_another() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let first = take(&mut bench, a).unwrap();
    for _ in 1..10 {
        take(&mut bench, a).unwrap();
    }
    assert_eq!(take(&mut bench, a).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    let replaced = TakeCanisterSnapshotArgs { replace_snapshot: Some(first.id.clone()), ..take_arg(a) };
    let eleventh: Snapshot = bench.managed("take_canister_snapshot", &replaced).unwrap();
    let listed = list(&mut bench, a);
    assert_eq!((listed.len(), listed.last()), (10, Some(&eleventh)));
    assert_eq!(load(&mut bench, a, &first.id).unwrap_err().code, ErrorCode::SNAPSHOT_NOT_FOUND);
    delete(&mut bench, a, &eleventh.id).unwrap();
    assert_eq!(delete(&mut bench, a, &eleventh.id).unwrap_err().code, ErrorCode::SNAPSHOT_NOT_FOUND);
    let twelfth = take(&mut bench, a).unwrap();
    assert_ne!(twelfth.id, eleventh.id, "ids are never used again");
}

#[test]
fn a_snapshot_is_loaded_by_its_own_canister_only_and_by_its_id_only() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let snapshot = take(&mut bench, a).unwrap();
    assert_eq!(load(&mut bench, b, &snapshot.id).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    assert_eq!(delete(&mut bench, b, &snapshot.id).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    let id = SnapshotId { canister: a, number: 7 }.to_bytes();
    assert_eq!(load(&mut bench, a, &id).unwrap_err().code, ErrorCode::SNAPSHOT_NOT_FOUND);
    for junk in [&[][..], &[1; 7], &[1; 1_000]] {
        assert_eq!(load(&mut bench, a, junk).unwrap_err().code, ErrorCode::INVALID_MANAGEMENT_PAYLOAD);
    }
    let empty = bench.empty_canister();
    assert_eq!(take(&mut bench, empty).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
}

#[test]
fn only_controllers_take_load_list_and_delete() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let snapshot = take(&mut bench, a).unwrap();
    let arg = candid::encode_one(take_arg(a)).unwrap();
    let calls = [
        ("take_canister_snapshot", arg),
        ("load_canister_snapshot", load_arg(a, &snapshot.id)),
        ("delete_canister_snapshot", load_arg(a, &snapshot.id)),
        ("list_canister_snapshots", id_arg(a)),
    ];
    for (method, arg) in calls.clone() {
        assert!(bench.manage_as(b, method, arg).starts_with(b"5 IC0512"), "{method}");
    }
    bench.control(a, &[b]);
    for (method, arg) in calls {
        assert!(bench.manage_as(b, method, arg).starts_with(b"DIDL"), "{method}");
    }
}

#[test]
fn taking_one_may_uninstall_and_loading_brings_the_canister_back() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    bench.run(a, [Op::Heap(1, 7), Op::Reply(vec![])]).unwrap();
    let version = bench.state(a).version;
    let arg = TakeCanisterSnapshotArgs { uninstall_code: Some(true), ..take_arg(a) };
    let snapshot: Snapshot = bench.managed("take_canister_snapshot", &arg).unwrap();
    let canister = bench.state(a);
    assert!(canister.code.is_none());
    assert_eq!(canister.version, version + 1);
    assert_eq!(canister.history.recent.last().unwrap().details, ChangeDetails::CodeUninstall);
    assert_eq!(bench.submit(a, "run", b"").unwrap_err().code, ErrorCode::NO_WASM_MODULE);
    // Other code comes and goes meanwhile; the snapshot's pages stay where they are.
    bench.install(a, Mode::Install, "other", NOTHING).unwrap();
    bench.run(a, [Op::Heap(1, 1), Op::Reply(vec![])]).unwrap();
    bench.manage("uninstall_code", &id_arg(a)).unwrap();
    load(&mut bench, a, &snapshot.id).unwrap();
    assert_eq!(bench.run(a, [Op::ReplyHeap(1)]).unwrap(), [7]);
}

#[test]
fn code_and_snapshots_of_a_canister_share_one_arena() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    take(&mut bench, a).unwrap();
    bench.manage("uninstall_code", &id_arg(a)).unwrap();
    bench.install(a, Mode::Install, "other", NOTHING).unwrap();
    let canister = bench.state(a);
    let snapshot = canister.snapshots.taken.values().next().unwrap();
    assert!(std::sync::Arc::ptr_eq(&canister.code.as_ref().unwrap().arena, &snapshot.code.arena));
}

#[test]
fn snapshots_count_as_memory_of_the_canister_and_of_the_subnet_and_go_with_it() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let (own, all) = (bench.state(a).memory_bytes(), bench.subnet.state().memory_bytes);
    let balance = bench.state(a).balance;
    let snapshot = take(&mut bench, a).unwrap();
    assert!(balance - bench.state(a).balance > 2_000_000_000 + 5_000_000);
    assert_eq!(bench.state(a).memory_bytes(), own + snapshot.total_size);
    assert_eq!(bench.subnet.state().memory_bytes, all + snapshot.total_size);
    bench.manage("stop_canister", &id_arg(a)).unwrap();
    bench.manage("delete_canister", &id_arg(a)).unwrap();
    assert_eq!(bench.subnet.state().memory_bytes, all - own);
}

#[test]
fn a_snapshot_without_room_or_cycles_is_not_taken() {
    let mut limits = (*SubnetConfig::application().limits).clone();
    limits.subnet_memory_bytes = 100_000;
    let config = SubnetConfig { limits: std::sync::Arc::new(limits), ..SubnetConfig::application() };
    let mut full = Bench::with(config, 1);
    let a = full.canister("");
    assert_eq!(take(&mut full, a).unwrap_err().code, ErrorCode::SUBNET_OVERSUBSCRIBED);
    assert!(full.state(a).snapshots.taken.is_empty());

    let mut bench = Bench::new();
    let a = bench.canister("");
    // What is left is what the run didn't use of its prepayment: less than 40.005 B, each snapshot takes 2 B.
    bench.run(a, [Op::Burn(u128::MAX), Op::Reply(vec![])]).unwrap();
    let mut arg = take_arg(a);
    let mut taken = 0;
    let error = loop {
        match bench.managed::<Snapshot>("take_canister_snapshot", &arg) {
            Ok(snapshot) => arg.replace_snapshot = Some(snapshot.id),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert_eq!((error.code, taken), (ErrorCode::OUT_OF_CYCLES, 19));
    assert_eq!(list(&mut bench, a).len(), 1);
}

#[test]
fn a_canister_that_runs_out_of_cycles_loses_its_snapshots() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    // What is left is less than 40.005 B; 64 KiB cost 7.75 cycles each second.
    bench.run(a, [Op::Burn(u128::MAX), Op::Reply(vec![])]).unwrap();
    let arg = TakeCanisterSnapshotArgs { uninstall_code: Some(true), ..take_arg(a) };
    let _: Snapshot = bench.managed("take_canister_snapshot", &arg).unwrap();
    bench.time += 9_000_000_000 * crate::scripted::SECOND;
    bench.round();
    assert_eq!(bench.state(a).balance, 0);
    assert!(bench.state(a).snapshots.taken.is_empty());
}

#[test]
fn the_history_tells_of_a_loaded_snapshot() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let version = bench.state(a).version;
    let snapshot = take(&mut bench, a).unwrap();
    load(&mut bench, a, &snapshot.id).unwrap();
    let arg =
        ic_management_canister_types::CanisterInfoArgs { canister_id: a, num_requested_changes: Some(1) };
    let reply = bench.manage_as(b, "canister_info", candid::encode_one(arg).unwrap());
    let info = Decode!(&reply, ic_management_canister_types::CanisterInfoResult).unwrap();
    assert_eq!((info.total_num_changes, info.recent_changes.len()), (3, 1));
    let Some(ic_management_canister_types::ChangeDetails::LoadSnapshot(loaded)) =
        &info.recent_changes[0].details
    else {
        panic!("{info:?}")
    };
    assert_eq!((&loaded.snapshot_id, loaded.canister_version), (&snapshot.id, version));
    assert_eq!((loaded.taken_at_timestamp, loaded.from_canister_id), (snapshot.taken_at_timestamp, None));
}
