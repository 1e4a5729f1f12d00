//! Rate limits of installs and of written memory, where a subnet has them.

use std::sync::Arc;

use execution::{ErrorCode, Limits, SubnetConfig};
use ic_management_canister_types::{CanisterInstallMode, InstallChunkedCodeArgs, UploadChunkArgs};

use crate::scripted::{Bench, Mode, NOTHING, Op};

fn limited(change: fn(&mut Limits)) -> Bench {
    let mut limits = Limits::application().rate_limited();
    change(&mut limits);
    Bench::with(SubnetConfig { limits: Arc::new(limits), ..SubnetConfig::application() }, 1)
}

#[test]
fn who_installed_too_much_waits_until_the_rate_has_paid_it_off() {
    // 6,000 instructions for compiling, 2,000 forgiven each round.
    let mut bench = limited(|limits| limits.install_rate = Some(2_000));
    let a = bench.canister("");
    let version = bench.state(a).version;
    let error = bench.install(a, Mode::Reinstall, "again", NOTHING).unwrap_err();
    assert_eq!(error.code, ErrorCode::INSTALL_RATE_LIMITED);
    assert_eq!(bench.state(a).version, version);
    // Another canister isn't held up.
    bench.canister("");
    bench.round();
    bench.install(a, Mode::Reinstall, "again", NOTHING).unwrap();
}

#[test]
fn who_installed_too_much_gets_no_chunks_put_together() {
    let mut bench = limited(|limits| limits.install_rate = Some(2_000));
    let a = bench.canister("");
    let arg = candid::encode_one(InstallChunkedCodeArgs {
        mode: CanisterInstallMode::Reinstall,
        target_canister: a,
        store_canister: None,
        chunk_hashes_list: Vec::new(),
        wasm_module_hash: vec![0; 32],
        arg: Vec::new(),
        sender_canister_version: None,
    });
    let error = bench.manage("install_chunked_code", &arg.unwrap()).unwrap_err();
    assert_eq!(error.code, ErrorCode::INSTALL_RATE_LIMITED);
}

#[test]
fn an_install_that_fails_counts_towards_the_rate_too() {
    let mut bench = limited(|limits| limits.install_rate = Some(100));
    let a = bench.empty_canister();
    let trap = bench.program([Op::Trap("init")]);
    assert_eq!(bench.install(a, Mode::Install, "init", trap).unwrap_err().code, ErrorCode::CALLED_TRAP);
    let error = bench.install(a, Mode::Install, "", NOTHING).unwrap_err();
    assert_eq!(error.code, ErrorCode::INSTALL_RATE_LIMITED);
}

#[test]
fn who_wrote_too_much_waits_and_others_go_on() {
    // Two pages written, one forgiven each round.
    let mut bench = limited(|limits| limits.heap_delta_rate = Some(4096));
    let (a, b) = (bench.canister(""), bench.canister(""));
    let write = bench.program([Op::Heap(1, 1), Op::Heap(2, 2), Op::Heap(3, 3), Op::Reply(vec![])]);
    bench.ingress(a, "run", &write.to_be_bytes()).unwrap();
    let waiting = bench.submit(a, "run", &write.to_be_bytes()).unwrap();
    let running = bench.submit(b, "run", &write.to_be_bytes()).unwrap();
    let report = bench.round();
    assert!(report.more);
    let status = |bench: &Bench, id| bench.subnet.status(id);
    assert!(matches!(status(&bench, &waiting), execution::IngressStatus::Received));
    assert!(matches!(status(&bench, &running), execution::IngressStatus::Replied(_)));
    bench.round();
    bench.round();
    assert!(matches!(status(&bench, &waiting), execution::IngressStatus::Replied(_)));
}

#[test]
fn who_wrote_too_much_uploads_no_chunk() {
    let mut bench = limited(|limits| limits.heap_delta_rate = Some(600_000));
    let a = bench.empty_canister();
    let upload = |bench: &mut Bench, byte| {
        let arg = UploadChunkArgs { canister_id: a, chunk: vec![byte] };
        bench.manage("upload_chunk", &candid::encode_one(arg).unwrap())
    };
    upload(&mut bench, 1).unwrap();
    upload(&mut bench, 2).unwrap();
    let error = upload(&mut bench, 3).unwrap_err();
    assert_eq!(error.code, ErrorCode::HEAP_DELTA_RATE_LIMITED);
    bench.round();
    upload(&mut bench, 3).unwrap();
}

#[test]
fn a_subnet_without_rates_keeps_no_account() {
    let mut bench = Bench::new();
    let a = bench.canister("");
    bench.run(a, [Op::Heap(1, 1), Op::Reply(vec![])]).unwrap();
    assert_eq!((bench.state(a).install_debit.amount, bench.state(a).heap_delta.amount), (0, 0));
}
