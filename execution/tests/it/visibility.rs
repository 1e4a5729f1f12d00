//! Who may see what of a canister: logs, status, metadata; and what queries of the management canister answer.

use candid::{CandidType, Decode};
use execution::{ErrorCode, Principal, SubnetConfig, UserError};
use ic_management_canister_types::{
    CanisterIdRecord, CanisterLogFilter, CanisterLogRecord, CanisterMetadataArgs, CanisterStatusResult,
    FetchCanisterLogsArgs, FetchCanisterLogsResult, ListCanistersResult, LogVisibility,
    NodeMetricsHistoryArgs, NodeMetricsHistoryRecord, Snapshot, SnapshotVisibility, SubnetInfoArgs,
    SubnetInfoResult,
};

use crate::scripted::{ANONYMOUS, Bench, NOTHING, Op, call, id_arg};

const MANAGER: Principal = Principal::management_canister();

fn stranger() -> Principal {
    Principal::self_authenticating(b"stranger")
}

fn query(bench: &Bench, by: Principal, method: &str, arg: &impl CandidType) -> Result<Vec<u8>, UserError> {
    bench.subnet.query(by, MANAGER, method, &candid::encode_one(arg).unwrap()).result
}

fn logs(
    bench: &Bench,
    by: Principal,
    canister_id: Principal,
    filter: Option<CanisterLogFilter>,
) -> Result<Vec<CanisterLogRecord>, UserError> {
    let reply = query(bench, by, "fetch_canister_logs", &FetchCanisterLogsArgs { canister_id, filter })?;
    Ok(Decode!(&reply, FetchCanisterLogsResult).unwrap().canister_log_records)
}

#[derive(CandidType, Default)]
struct Settings {
    log_visibility: Option<LogVisibility>,
    snapshot_visibility: Option<SnapshotVisibility>,
    status_visibility: Option<LogVisibility>,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

fn set(bench: &mut Bench, canister_id: Principal, settings: Settings) {
    bench
        .manage("update_settings", &candid::encode_one(UpdateSettings { canister_id, settings }).unwrap())
        .unwrap();
}

#[test]
fn the_log_is_fetched_by_a_query_with_index_time_and_content() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    bench.run(a, [Op::Print("one"), Op::Print("two"), Op::Reply(vec![])]).unwrap();
    let first = bench.time;
    bench.run(a, [Op::Print("three"), Op::Trap("undone")]).unwrap_err();
    let second = bench.time;
    let record = |idx, timestamp_nanos, content: &str| CanisterLogRecord {
        idx,
        timestamp_nanos,
        content: content.as_bytes().to_vec(),
    };
    let all = [record(0, first, "one"), record(1, first, "two"), record(2, second, "three")];
    assert_eq!(logs(&bench, ANONYMOUS, a, None).unwrap(), all);
    let by_index = CanisterLogFilter::ByIdx { start: 1, end: 1 };
    assert_eq!(logs(&bench, ANONYMOUS, a, Some(by_index)).unwrap(), all[1..2]);
    let by_time = CanisterLogFilter::ByTimestampNanos { start: first + 1, end: u64::MAX };
    assert_eq!(logs(&bench, ANONYMOUS, a, Some(by_time)).unwrap(), all[2..]);
    let nobody = Principal::from_slice(&[9]);
    assert_eq!(logs(&bench, ANONYMOUS, nobody, None).unwrap_err().code, ErrorCode::CANISTER_NOT_FOUND);
}

#[test]
fn the_log_is_for_controllers_unless_the_setting_says_otherwise() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    assert_eq!(logs(&bench, stranger(), a, None).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    let viewers = LogVisibility::AllowedViewers(vec![stranger()]);
    set(&mut bench, a, Settings { log_visibility: Some(viewers), ..Settings::default() });
    assert_eq!(logs(&bench, stranger(), a, None).unwrap(), []);
    assert_eq!(logs(&bench, ANONYMOUS, a, None).unwrap(), []);
    let other = Principal::self_authenticating(b"other");
    assert_eq!(logs(&bench, other, a, None).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    set(&mut bench, a, Settings { log_visibility: Some(LogVisibility::Public), ..Settings::default() });
    assert_eq!(logs(&bench, other, a, None).unwrap(), []);
}

#[test]
fn the_log_is_never_fetched_by_an_update() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let error = bench.manage("fetch_canister_logs", &id_arg(a)).unwrap_err();
    assert_eq!(error.code, ErrorCode::CANISTER_REJECTED);
    assert!(error.description.contains("non-replicated"));
    assert!(bench.manage_as(a, "fetch_canister_logs", id_arg(a)).starts_with(b"4 IC0406"));
}

#[test]
fn the_status_is_queried_by_controllers_and_whom_the_setting_names() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let arg = CanisterIdRecord { canister_id: a };
    let reply = query(&bench, ANONYMOUS, "canister_status", &arg).unwrap();
    let status = Decode!(&reply, CanisterStatusResult).unwrap();
    assert_eq!(status.cycles, candid::Nat::from(bench.state(a).balance));
    assert_eq!(status.memory_metrics.snapshots_size, candid::Nat::from(0_u8));
    let error = query(&bench, stranger(), "canister_status", &arg).unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_CONTROLLER);
    assert!(bench.manage_as(b, "canister_status", id_arg(a)).starts_with(b"5 IC0512"));
    let viewers = LogVisibility::AllowedViewers(vec![stranger(), b]);
    set(&mut bench, a, Settings { status_visibility: Some(viewers), ..Settings::default() });
    assert!(query(&bench, stranger(), "canister_status", &arg).is_ok());
    assert!(bench.manage_as(b, "canister_status", id_arg(a)).starts_with(b"DIDL"));
}

#[test]
fn snapshots_are_listed_by_controllers_and_whom_the_setting_names() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    assert!(bench.manage_as(b, "list_canister_snapshots", id_arg(a)).starts_with(b"5 IC0512"));
    set(
        &mut bench,
        a,
        Settings { snapshot_visibility: Some(SnapshotVisibility::Public), ..Settings::default() },
    );
    let reply = bench.manage_as(b, "list_canister_snapshots", id_arg(a));
    assert_eq!(Decode!(&reply, Vec<Snapshot>).unwrap(), []);
}

#[test]
fn composite_queries_may_call_what_is_a_query_of_the_management_canister() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    bench.control(a, &[a]);
    bench.run(a, [Op::Print("seen"), Op::Reply(vec![])]).unwrap();
    let back = bench.program([Op::ReplyResponse]);
    let ask = |bench: &Bench, method: &'static str, arg: Vec<u8>| {
        let mut request = call(MANAGER, NOTHING, back);
        (request.method, request.arg) = (method, arg);
        let program = bench.program([Op::Call(request)]);
        bench.subnet.query(ANONYMOUS, a, "ask_all", &program.to_be_bytes()).result.unwrap()
    };
    let status = ask(&bench, "canister_status", id_arg(a));
    assert_eq!(Decode!(&status, CanisterStatusResult).unwrap().version, bench.state(a).version);
    let fetched = ask(&bench, "fetch_canister_logs", id_arg(a));
    assert_eq!(Decode!(&fetched, FetchCanisterLogsResult).unwrap().canister_log_records.len(), 1);
    assert!(ask(&bench, "start_canister", id_arg(a)).starts_with(b"5 IC0536"));
}

#[test]
fn administrators_list_the_canisters_as_ranges() {
    let config = SubnetConfig { admins: vec![ANONYMOUS], ..SubnetConfig::application() };
    let mut bench = Bench::with(config, 1);
    let [a, b, c, d] = [(); 4].map(|()| bench.empty_canister());
    bench.manage("stop_canister", &id_arg(b)).unwrap();
    bench.manage("delete_canister", &id_arg(b)).unwrap();
    let listed = |bench: &Bench, by| bench.subnet.query(by, MANAGER, "list_canisters", b"DIDL\0\0").result;
    let reply = listed(&bench, ANONYMOUS).unwrap();
    let ranges = Decode!(&reply, ListCanistersResult).unwrap().canisters;
    assert_eq!(ranges.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>(), [(a, a), (c, d)]);
    assert_eq!(listed(&bench, stranger()).unwrap_err().code, ErrorCode::CANISTER_REJECTED);
    assert_eq!(bench.manage("list_canisters", b"DIDL\0\0").unwrap_err().code, ErrorCode::CANISTER_REJECTED);
}

#[test]
fn canisters_read_public_metadata_of_all_and_private_of_their_own() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister("start=7"), bench.canister(""));
    let arg = |canister_id, name: &str| {
        candid::encode_one(CanisterMetadataArgs { canister_id, name: name.into() }).unwrap()
    };
    assert!(bench.manage_as(b, "canister_metadata", arg(a, "start")).starts_with(b"5 IC0512"));
    bench.control(a, &[b]);
    let reply = bench.manage_as(b, "canister_metadata", arg(a, "start"));
    let result = Decode!(&reply, ic_management_canister_types::CanisterMetadataResult).unwrap();
    assert_eq!(result.value, 7_u64.to_be_bytes());
    assert!(bench.manage_as(b, "canister_metadata", arg(a, "none")).starts_with(b"4 IC0406"));
    let empty = bench.empty_canister();
    assert!(bench.manage_as(b, "canister_metadata", arg(empty, "none")).starts_with(b"5 IC0537"));
    let error = bench.manage("canister_metadata", &arg(a, "start")).unwrap_err();
    assert_eq!(error.code, ErrorCode::CANISTER_REJECTED);
}

#[test]
fn canisters_ask_about_their_own_subnet_only() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let subnet_id = bench.subnet.config().subnet_id;
    let info = |subnet_id| candid::encode_one(SubnetInfoArgs { subnet_id }).unwrap();
    let reply = bench.manage_as(a, "subnet_info", info(subnet_id));
    assert_eq!(Decode!(&reply, SubnetInfoResult).unwrap().registry_version, 1);
    assert!(bench.manage_as(a, "subnet_info", info(a)).starts_with(b"4 IC0404"));
    let arg = NodeMetricsHistoryArgs { subnet_id, start_at_timestamp_nanos: 0 };
    let reply = bench.manage_as(a, "node_metrics_history", candid::encode_one(arg).unwrap());
    assert_eq!(Decode!(&reply, Vec<NodeMetricsHistoryRecord>).unwrap(), []);
}

#[test]
fn replies_of_the_management_canister_have_the_bound_of_a_query() {
    let mut limits = execution::Limits::application();
    limits.query_reply_bytes = 100;
    let config = SubnetConfig { limits: std::sync::Arc::new(limits), ..SubnetConfig::application() };
    let mut bench = Bench::with(config, 1);
    let a = bench.canister("");
    let error =
        query(&bench, ANONYMOUS, "canister_status", &CanisterIdRecord { canister_id: a }).unwrap_err();
    assert_eq!(error.code, ErrorCode::CONTRACT_VIOLATION);
    let back = bench.program([Op::ReplyResponse]);
    let mut request = call(MANAGER, NOTHING, back);
    (request.method, request.arg) = ("canister_status", id_arg(a));
    let ask = bench.program([Op::Call(request)]).to_be_bytes();
    let reply = bench.subnet.query(ANONYMOUS, a, "ask_all", &ask).result.unwrap();
    assert!(reply.starts_with(b"5 IC0504: Reply of "), "{}", String::from_utf8_lossy(&reply));
}
