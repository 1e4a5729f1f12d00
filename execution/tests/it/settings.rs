//! Settings: their bounds, and what they allocate.

use candid::{CandidType, Nat};
use execution::{ErrorCode, Principal, SubnetConfig, UserError};
use ic_management_canister_types::EnvironmentVariable;

use crate::scripted::{ANONYMOUS, Bench, Op};

#[derive(CandidType, Default, Clone)]
struct Settings {
    compute_allocation: Option<Nat>,
    memory_allocation: Option<Nat>,
    freezing_threshold: Option<Nat>,
    reserved_cycles_limit: Option<Nat>,
    wasm_memory_limit: Option<Nat>,
    wasm_memory_threshold: Option<Nat>,
    log_memory_limit: Option<Nat>,
    minimum_incoming_canister_call_cycles: Option<Nat>,
    environment_variables: Option<Vec<EnvironmentVariable>>,
}

#[derive(CandidType)]
struct UpdateSettings {
    canister_id: Principal,
    settings: Settings,
}

fn set(bench: &mut Bench, canister_id: Principal, settings: Settings) -> Result<Vec<u8>, UserError> {
    bench.manage("update_settings", &candid::encode_one(UpdateSettings { canister_id, settings }).unwrap())
}

fn some(number: u128) -> Option<Nat> {
    Some(Nat::from(number))
}

macro_rules! bounds {
    ($($name:ident: $setting:ident up to $max:expr;)*) => {
        $(#[test]
        fn $name() {
            let mut limits = execution::Limits::application();
            // Nothing but the bound itself stands in the way.
            limits.subnet_memory_bytes = u64::MAX;
            (limits.prices.storage_gib_second, limits.prices.compute_percent_second) = (0, 0);
            let config =
                SubnetConfig { limits: std::sync::Arc::new(limits), ..SubnetConfig::application() };
            let mut bench = Bench::with(config, 1);
            let a = bench.canister("");
            let max = Nat::from($max);
            let setting = |value: Nat| Settings { $setting: Some(value), ..Settings::default() };
            set(&mut bench, a, setting(max.clone())).unwrap();
            let before = bench.state(a).settings.clone();
            let error = set(&mut bench, a, setting(max + 1_u8)).unwrap_err();
            assert_eq!(error.code, ErrorCode::CONTRACT_VIOLATION, "{error}");
            assert_eq!(bench.state(a).settings, before);
        })*
    };
}

bounds! {
    compute_allocation_is_a_percentage: compute_allocation up to 100_u8;
    memory_allocation_is_bounded: memory_allocation up to 1_u64 << 48;
    freezing_threshold_fits_64_bits: freezing_threshold up to u64::MAX;
    reserved_cycles_limit_fits_128_bits: reserved_cycles_limit up to u128::MAX;
    wasm_memory_limit_is_bounded: wasm_memory_limit up to 1_u64 << 48;
    wasm_memory_threshold_fits_64_bits: wasm_memory_threshold up to u64::MAX;
    log_memory_limit_is_bounded: log_memory_limit up to 2_u64 << 20;
    minimum_cycles_fit_128_bits: minimum_incoming_canister_call_cycles up to u128::MAX;
}

#[test]
fn variables_are_few_short_and_named_once() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let variable = |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
    let variables = |list| Settings { environment_variables: Some(list), ..Settings::default() };
    let (just, long) = ("x".repeat(128), "x".repeat(129));
    let many = |count: u8| (0..count).map(|n| variable(&n.to_string(), "")).collect::<Vec<_>>();
    set(&mut bench, a, variables(vec![variable(&just, &just)])).unwrap();
    set(&mut bench, a, variables(many(20))).unwrap();
    for bad in [
        vec![variable(&long, "")],
        vec![variable("a", &long)],
        many(21),
        vec![variable("a", "1"), variable("a", "2")],
    ] {
        let error = set(&mut bench, a, variables(bad)).unwrap_err();
        assert_eq!(error.code, ErrorCode::INVALID_MANAGEMENT_PAYLOAD);
    }
    assert_eq!(bench.state(a).settings.environment_variables.len(), 20);
}

#[test]
fn the_log_has_the_size_that_the_setting_gives_it() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let limit = |bytes| Settings { log_memory_limit: some(bytes), ..Settings::default() };
    assert_eq!(set(&mut bench, a, limit(4095)).unwrap_err().code, ErrorCode::CONTRACT_VIOLATION);
    let line = "0123456789abcdef".repeat(64);
    let line: &'static str = Box::leak(line.into_boxed_str());
    let print = [const { Op::Print("") }; 8].map(|_| Op::Print(line));
    set(&mut bench, a, limit(8 << 10)).unwrap();
    bench.run(a, print.clone().into_iter().chain([Op::Reply(vec![])])).unwrap();
    assert_eq!((bench.state(a).log.records.len(), bench.state(a).log.bytes), (8, 8 << 10));
    let seen = bench.script.seen.lock().unwrap().last().unwrap().system.clone();
    assert_eq!((seen.log_capacity, seen.log_bytes_free), (8 << 10, 8 << 10));
    set(&mut bench, a, limit(4 << 10)).unwrap();
    let kept: Vec<u64> = bench.state(a).log.records.iter().map(|record| record.index).collect();
    assert_eq!(kept, [4, 5, 6, 7], "the oldest are forgotten");
    set(&mut bench, a, limit(0)).unwrap();
    bench.run(a, print.into_iter().chain([Op::Reply(vec![])])).unwrap();
    assert_eq!((bench.state(a).log.records.len(), bench.state(a).log.next), (0, 16));
}

#[test]
fn what_the_subnet_has_not_left_is_not_allocated() {
    let mut bench = Bench::new();
    let canisters = [(); 4].map(|()| bench.subnet.create_canister(ANONYMOUS, None, u128::MAX / 8).unwrap());
    let compute = |percent| Settings { compute_allocation: some(percent), ..Settings::default() };
    for canister in &canisters[..3] {
        set(&mut bench, *canister, compute(100)).unwrap();
    }
    let error = set(&mut bench, canisters[3], compute(1)).unwrap_err();
    assert_eq!(error.code, ErrorCode::SUBNET_OVERSUBSCRIBED);
    set(&mut bench, canisters[0], compute(40)).unwrap();
    set(&mut bench, canisters[3], compute(60)).unwrap();

    let memory = |gib: u128| Settings { memory_allocation: some(gib << 30), ..Settings::default() };
    set(&mut bench, canisters[0], memory(2000)).unwrap();
    let error = set(&mut bench, canisters[1], memory(49)).unwrap_err();
    assert_eq!(error.code, ErrorCode::SUBNET_OVERSUBSCRIBED);
    set(&mut bench, canisters[1], memory(47)).unwrap();
    set(&mut bench, canisters[0], memory(0)).unwrap();
    set(&mut bench, canisters[2], memory(1500)).unwrap();
}

#[test]
fn a_canister_grows_within_its_allocation_on_a_full_subnet() {
    let mut limits = execution::Limits::application();
    limits.subnet_memory_bytes = 1 << 20;
    let config = SubnetConfig { limits: std::sync::Arc::new(limits), ..SubnetConfig::application() };
    let mut bench = Bench::with(config, 1);
    let (a, b) = (bench.canister(""), bench.canister(""));
    let taken = bench.state(b).memory_bytes();
    let all = Settings { memory_allocation: some((1 << 20) - u128::from(taken)), ..Settings::default() };
    set(&mut bench, a, all).unwrap();
    let available = |bench: &mut Bench, canister| {
        bench.run(canister, [Op::Reply(vec![])]).unwrap();
        bench.script.seen.lock().unwrap().last().unwrap().system.subnet_memory_available
    };
    let own = bench.state(a).memory_bytes();
    assert_eq!(available(&mut bench, a), (1 << 20) - taken - own);
    assert_eq!(available(&mut bench, b), 0);
    bench.run(a, [Op::Grow(4), Op::Reply(vec![])]).unwrap();
    assert_eq!(bench.subnet.state().memory_bytes, 1 << 20, "it was taken already");
}

#[test]
fn an_allocation_that_would_freeze_the_canister_is_refused() {
    let mut bench = Bench::new();
    // 1 % for 30 days costs 25.9 T; 100 GiB for as long 32.9 T.
    let poor = bench.subnet.create_canister(ANONYMOUS, None, 20_000_000_000_000).unwrap();
    let error =
        set(&mut bench, poor, Settings { compute_allocation: some(1), ..Settings::default() }).unwrap_err();
    assert_eq!(error.code, ErrorCode::CYCLES_COMPUTE_ALLOCATION);
    let memory = Settings { memory_allocation: some(100 << 30), ..Settings::default() };
    assert_eq!(set(&mut bench, poor, memory).unwrap_err().code, ErrorCode::CYCLES_MEMORY_ALLOCATION);
    assert_eq!(bench.state(poor).version, 0);
    // Freezing it by its threshold is allowed.
    set(&mut bench, poor, Settings { freezing_threshold: some(u64::MAX.into()), ..Settings::default() })
        .unwrap();
}

#[test]
fn a_refused_creation_uses_no_id() {
    let mut bench = Bench::new();
    #[derive(CandidType)]
    struct Create {
        amount: Option<Nat>,
        settings: Option<Settings>,
    }
    let settings = Some(Settings { compute_allocation: some(100), ..Settings::default() });
    let create = |settings| candid::encode_one(Create { amount: some(1_000), settings }).unwrap();
    let method = "provisional_create_canister_with_cycles";
    let error = bench.manage(method, &create(settings)).unwrap_err();
    assert_eq!(error.code, ErrorCode::CYCLES_COMPUTE_ALLOCATION);
    assert_eq!(bench.subnet.state().canisters_made, 0);
    bench.manage(method, &create(None)).unwrap();
    assert_eq!(bench.subnet.state().canisters_made, 1);
}

#[test]
fn settings_at_their_largest_together_are_too_dear_and_nothing_else() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let settings = Settings {
        compute_allocation: some(100),
        memory_allocation: some(1 << 48),
        freezing_threshold: some(u64::MAX.into()),
        ..Settings::default()
    };
    let error = set(&mut bench, a, settings).unwrap_err();
    assert!(error.code != ErrorCode::CONTRACT_VIOLATION, "{error}");
    assert_eq!(bench.state(a).settings.compute_allocation, 0);
}

#[test]
fn a_number_or_a_list_as_long_as_the_argument_makes_a_short_error() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let digits = [vec![0xff; 10_000], vec![1]].concat();
    let huge = Nat::decode(&mut &digits[..]).unwrap();
    let error =
        set(&mut bench, a, Settings { compute_allocation: Some(huge.clone()), ..Settings::default() })
            .unwrap_err();
    assert_eq!(error.description, "compute_allocation of a number of 70001 bits, at most 100 allowed");
    #[derive(CandidType)]
    struct TopUp {
        canister_id: Principal,
        amount: Nat,
    }
    let top_up = candid::encode_one(TopUp { canister_id: a, amount: huge }).unwrap();
    let error = bench.manage("provisional_top_up_canister", &top_up).unwrap_err();
    assert_eq!(error.description, "amount of a number of 70001 bits is too large");

    let variable = EnvironmentVariable { name: String::new(), value: String::new() };
    let variables = |count| Settings {
        environment_variables: Some(vec![variable.clone(); count]),
        ..Settings::default()
    };
    let error = set(&mut bench, a, variables(100)).unwrap_err();
    assert_eq!(error.description, "100 environment variables, at most 20 allowed");
    let arg = candid::encode_one(UpdateSettings { canister_id: a, settings: variables(1_001) }).unwrap();
    let reject = String::from_utf8(bench.manage_as(a, "update_settings", arg)).unwrap();
    assert!(reject.contains("IC0408") && reject.contains("a list of more than 1000 items"), "{reject}");
    assert!(reject.len() < 1_000, "{reject}");
}

#[test]
fn a_method_name_as_long_as_the_message_makes_a_short_error() {
    let mut bench = Bench::new();
    let (name, manager) = ("x".repeat(10_000), Principal::management_canister());
    let asked = bench.subnet.query(ANONYMOUS, manager, &name, b"").result;
    for error in [bench.manage(&name, b"").unwrap_err(), asked.unwrap_err()] {
        assert_eq!(error.code, ErrorCode::METHOD_NOT_FOUND);
        assert!(error.description.len() < 200, "{error}");
    }
}

#[test]
fn records_of_the_log_without_content_are_bounded_too() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    let print = (0..300).map(|_| Op::Print(""));
    bench.run(a, print.chain([Op::Reply(vec![])])).unwrap();
    let log = &bench.state(a).log;
    assert_eq!((log.records.len(), log.next), (4096 / 16, 300));
}
