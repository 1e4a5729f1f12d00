//! Certified state: leaves, encoding, rights, and what certificates show when.

use std::sync::Arc;

use execution::certification::{
    BlsSigner, DATA_CERTIFICATE_BYTES_MAX, InvalidKey, LABELS_MAX, PATHS_MAX, signed_message,
};
use execution::state::CanisterState;
use execution::{
    Certificate, CertifiedState, Ingress, Limits, MessageId, Principal, ReadStateError, Signer, SubnetConfig,
    SubnetState,
};
use ic_cbor::CertificateToCbor;
use ic_certificate_verification::VerifyCertificate;
use ic_certification::LookupResult;
use ic_management_canister_types::{CanisterSettings, UpdateSettingsArgs};
use proptest::prelude::*;

use crate::scripted::{ANONYMOUS, Bench, Mode, NOTHING, Op, SECOND, call, id_arg, install_arg, killed};

const UPGRADE: Mode = Mode::Upgrade(None);

fn fresh(state: &SubnetState) -> CertifiedState {
    CertifiedState::new(state, Arc::new(BlsSigner::test_key()))
}

fn stranger() -> Principal {
    Principal::self_authenticating(b"stranger")
}

fn path(labels: &[&[u8]]) -> Vec<Vec<u8>> {
    labels.iter().map(|label| label.to_vec()).collect()
}

/// Parses and verifies a certificate as an agent does, by another implementation.
fn verified(certificate: &[u8], config: &SubnetConfig, time: u64) -> ic_certification::Certificate {
    let parsed = ic_certification::Certificate::from_cbor(certificate).unwrap();
    parsed.verify(&[], &config.root_key, &u128::from(time), &0).unwrap();
    parsed
}

/// What an agent reads at `labels`, as a sender of whom nothing is known; `None`: proven to be missing.
fn read(bench: &Bench, effective: Principal, sender: Principal, labels: &[&[u8]]) -> Option<Vec<u8>> {
    let paths = [path(&[b"time"]), path(labels)];
    let certificate = bench.subnet.read_state(sender, effective, &paths).unwrap().to_cbor();
    let certificate = verified(&certificate, bench.subnet.config(), bench.time);
    match certificate.tree.lookup_path(labels) {
        LookupResult::Found(value) => Some(value.to_vec()),
        LookupResult::Absent => None,
        other => panic!("{other:?}"),
    }
}

fn of_canister(bench: &Bench, id: Principal, name: &[u8]) -> Option<Vec<u8>> {
    read(bench, id, stranger(), &[b"canister", id.as_slice(), name])
}

fn leb128(mut bytes: &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        number |= u64::from(first & 0x7f) << shift;
        bytes = rest;
        if first & 0x80 == 0 {
            break;
        }
    }
    assert!(bytes.is_empty());
    number
}

/// The certified data of `id` in a data certificate.
fn data_in(certificate: &ic_certification::Certificate, id: Principal) -> Vec<u8> {
    let path: [&[u8]; 3] = [b"canister", id.as_slice(), b"certified_data"];
    let LookupResult::Found(data) = certificate.tree.lookup_path(path) else { panic!("no certified data") };
    data.to_vec()
}

/// Computed with another program from the domain separators.
#[test]
fn an_empty_state_and_one_with_one_empty_canister_have_the_roots_derived_by_hand() {
    let mut state = SubnetState::new();
    let root = "66b44e5cdff1bc01cb565adcee3548d315d3ab0c42d21b5135faabac0fd696af";
    assert_eq!(hex::encode(fresh(&state).root()), root);
    state.time = u64::MAX;
    let controller = Principal::from_slice(&[4]);
    state.put(CanisterState::new(
        Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]),
        vec![controller],
        1,
        300,
    ));
    let root = "99b4a0007c850e18733313ee7457c1dc0497cd4911c01c1d1ac4221b1ffd91f1";
    assert_eq!(hex::encode(fresh(&state).root()), root);
}

#[test]
fn an_empty_canister_has_controllers_and_a_creation_time_and_nothing_else() {
    let mut bench = Bench::new();
    let made = bench.time;
    let id = bench.empty_canister();
    bench.round();
    // Tag 55799, an array of two, byte strings of 1 and 10 bytes.
    let controllers = [b"\xd9\xd9\xf7\x82\x41\x04\x4a", id.as_slice()].concat();
    assert_eq!(of_canister(&bench, id, b"controllers").unwrap(), controllers);
    assert_eq!(leb128(&of_canister(&bench, id, b"canister_creation_timestamp").unwrap()), made);
    for name in [b"module_hash".as_slice(), b"last_install_timestamp"] {
        assert_eq!(of_canister(&bench, id, name), None);
    }
    let metadata = [b"canister", id.as_slice(), b"metadata", b"candid:service"];
    assert_eq!(read(&bench, id, ANONYMOUS, &metadata), None);
}

#[test]
fn a_canister_with_code_has_its_hash_its_metadata_and_the_time_of_its_last_install() {
    let mut bench = Bench::new();
    let id = bench.canister("public:note=1");
    let (hash, installed) = (bench.state(id).module().unwrap().hash, bench.time);
    assert_eq!(of_canister(&bench, id, b"module_hash").unwrap(), hash.0);
    assert_eq!(leb128(&of_canister(&bench, id, b"last_install_timestamp").unwrap()), installed);
    let note: [&[u8]; 4] = [b"canister", id.as_slice(), b"metadata", b"note"];
    assert_eq!(read(&bench, id, stranger(), &note).unwrap(), 1_u64.to_be_bytes());

    bench.install(id, UPGRADE, "public:note=2", NOTHING).unwrap();
    assert_ne!(of_canister(&bench, id, b"module_hash").unwrap(), hash.0);
    assert_eq!(leb128(&of_canister(&bench, id, b"last_install_timestamp").unwrap()), bench.time);
    assert_eq!(read(&bench, id, stranger(), &note).unwrap(), 2_u64.to_be_bytes());
    // The same module once more: only the time moves.
    bench.round();
    bench.install(id, UPGRADE, "public:note=2", NOTHING).unwrap();
    assert_eq!(leb128(&of_canister(&bench, id, b"last_install_timestamp").unwrap()), bench.time);
    assert_eq!(read(&bench, id, stranger(), &note).unwrap(), 2_u64.to_be_bytes());

    bench.manage("uninstall_code", &id_arg(id)).unwrap();
    for name in [b"module_hash".as_slice(), b"last_install_timestamp"] {
        assert_eq!(of_canister(&bench, id, name), None);
    }
    assert_eq!(read(&bench, id, stranger(), &note), None);
    bench.manage("stop_canister", &id_arg(id)).unwrap();
    bench.manage("delete_canister", &id_arg(id)).unwrap();
    assert_eq!(of_canister(&bench, id, b"controllers"), None);
}

#[test]
fn a_message_has_the_leaves_of_its_status_for_its_sender() {
    let mut bench = Bench::new();
    let (a, b) = (bench.canister(""), bench.canister(""));
    let status = |bench: &Bench, id: &MessageId, leaf: &[u8]| {
        let value = read(bench, a, ANONYMOUS, &[b"request_status", &id.0, leaf]);
        value.map(|value| String::from_utf8(value).unwrap())
    };
    let submit = |bench: &mut Bench, ops: Vec<Op>| {
        let program = bench.program(ops);
        bench.submit(a, "run", &program.to_be_bytes()).unwrap()
    };
    let replied = submit(&mut bench, vec![Op::Reply(b"yes".to_vec())]);
    assert_eq!(status(&bench, &replied, b"status"), None, "taken in, but no round has ended since");
    let rejected = submit(&mut bench, vec![Op::Reject("no")]);
    let trapped = submit(&mut bench, vec![Op::Trap("t")]);
    let echo = bench.program([Op::Reply(vec![])]);
    *bench.script.failing.lock().unwrap() = Some((3, b, killed));
    let waiting = submit(&mut bench, vec![Op::Call(call(b, echo, NOTHING))]);
    bench.round();

    let leaves = |id| {
        [&b"status"[..], b"reply", b"reject_message", b"error_code"].map(|leaf| status(&bench, id, leaf))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(leaves(&replied), [some("replied"), some("yes"), None, None]);
    assert_eq!(leaves(&rejected), [some("rejected"), None, some("no"), some("IC0406")]);
    let [_, _, message, code] = leaves(&trapped);
    assert!(message.unwrap().contains("Canister called `ic0.trap` with message: 't'"));
    assert_eq!(code, some("IC0503"));
    assert_eq!(leaves(&waiting), [some("processing"), None, None, None]);
    let code = |id: &MessageId| read(&bench, a, ANONYMOUS, &[b"request_status", &id.0, b"reject_code"]);
    assert_eq!([&rejected, &trapped, &replied].map(code), [Some(vec![4]), Some(vec![5]), None]);

    // All of it by its id alone.
    let all = path(&[b"request_status", &rejected.0]);
    let shown = bench.subnet.read_state(ANONYMOUS, a, &[all]).unwrap();
    assert_eq!(shown.tree.list_paths().len(), 4);
    // Forgotten five minutes after the answer.
    bench.time += 301 * SECOND;
    bench.round();
    assert_eq!(status(&bench, &replied, b"status"), None);
}

#[test]
fn a_value_shows_in_certificates_only_after_its_round() {
    let mut bench = Bench::new();
    let id = bench.canister("");
    let old_time = bench.time;
    bench.run(id, [Op::Certify(b"one"), Op::Reply(vec![])]).unwrap();
    let first = Arc::clone(bench.subnet.certified());
    let view = bench.subnet.queries();
    assert!(bench.time > old_time);
    // What happens between two rounds waits for the end of the next.
    let late = bench.empty_canister();
    let controllers = path(&[b"canister", late.as_slice(), b"controllers"]);
    let shown = bench.subnet.read_state(ANONYMOUS, late, &[controllers]).unwrap();
    assert_eq!(shown.tree.list_paths().len(), 0);
    bench.run(id, [Op::Certify(b"two"), Op::Reply(vec![])]).unwrap();

    let data = |certified: &CertifiedState| {
        let certificate = certified.data_certificate(&id).to_cbor();
        data_in(&verified(&certificate, bench.subnet.config(), certified.time()), id)
    };
    assert_eq!(data(&first), b"one", "of the state that it was made of");
    assert_eq!(data(bench.subnet.certified()), b"two");
    bench.script.seen.lock().unwrap().clear();
    let program = bench.program([Op::Reply(vec![])]).to_be_bytes();
    view.query(ANONYMOUS, id, "ask", &program).result.unwrap();
    let seen = bench.script.seen.lock().unwrap();
    let certificate = seen[0].system.data_certificate.clone().unwrap();
    assert_eq!(data_in(&verified(&certificate, bench.subnet.config(), first.time()), id), b"one");
}

#[test]
fn a_query_has_a_certificate_on_its_target_and_nothing_else_has() {
    let mut bench = Bench::new();
    let accept = bench.program([Op::AcceptMessage]);
    let (a, b) = (bench.canister(&format!("inspect={accept}")), bench.canister(""));
    bench.run(a, [Op::Certify(&[7; 32]), Op::Reply(vec![])]).unwrap();
    let callee = bench.program([Op::Reply(vec![])]);
    let back = bench.program([Op::Reply(vec![])]);
    let mut out = call(b, callee, back);
    out.method = "ask";
    let composite = bench.program([Op::Call(out)]);
    bench.script.seen.lock().unwrap().clear();
    bench.subnet.query(ANONYMOUS, a, "ask_all", &composite.to_be_bytes()).result.unwrap();
    bench.subnet.query(ANONYMOUS, a, "ask", &callee.to_be_bytes()).result.unwrap();
    bench.ingress(a, "run", &callee.to_be_bytes()).unwrap();
    bench.ingress(a, "ask", &callee.to_be_bytes()).unwrap();

    let seen = bench.script.seen.lock().unwrap();
    let has: Vec<_> =
        seen.iter().map(|run| (run.entry.kind(), run.system.data_certificate.is_some())).collect();
    assert_eq!(
        has,
        [
            ("composite_query", true),
            ("query", false),
            ("reply_callback", false),
            ("query", true),
            ("inspect", false),
            ("update", false),
            ("inspect", false),
            ("replicated_query", false),
        ]
    );
    let certificate = seen[0].system.data_certificate.as_ref().unwrap();
    assert!(certificate.starts_with(b"\xd9\xd9\xf7\xa2"), "self-described CBOR, a map of two");
    assert!(certificate.len() <= DATA_CERTIFICATE_BYTES_MAX);
    let time = bench.subnet.state().time - 2 * SECOND;
    let certificate = verified(certificate, bench.subnet.config(), time);
    assert_eq!(data_in(&certificate, a), [7; 32]);
    let shown: Vec<_> =
        certificate.tree.list_paths().iter().map(|path| path[0].as_bytes().to_vec()).collect();
    assert_eq!(shown, [b"canister".to_vec(), b"time".to_vec()], "nothing else is shown");
}

#[test]
fn a_module_that_can_not_see_a_certificate_gets_none_made() {
    let mut bench = Bench::new();
    let id = bench.canister("no_certificate");
    let program = bench.program([Op::Reply(vec![])]).to_be_bytes();
    bench.subnet.query(ANONYMOUS, id, "ask", &program).result.unwrap();
    let seen = bench.script.seen.lock().unwrap();
    assert_eq!(seen.last().unwrap().system.data_certificate, None);
}

#[test]
fn a_certificate_of_another_key_or_another_tree_does_not_verify() {
    let mut bench = Bench::new();
    let id = bench.canister("");
    let Certificate { tree, signature } = bench.subnet.certified().data_certificate(&id);
    let config = bench.subnet.config().clone();
    let verify = |tree, signature, key: &[u8]| {
        let certificate = ic_certification::Certificate { tree, signature, delegation: None };
        certificate.verify(&[], key, &u128::from(bench.time), &0)
    };
    verify(tree.clone(), signature.clone(), &config.root_key).unwrap();
    let other = BlsSigner::new(&[1; 32]).unwrap();
    verify(tree.clone(), signature.clone(), &other.root_key()).unwrap_err();
    verify(tree.clone(), other.sign(&signed_message(&tree.digest())), &config.root_key).unwrap_err();
    let old = fresh(&SubnetState::new()).data_certificate(&id);
    verify(old.tree, signature, &config.root_key).unwrap_err();
    let mut signed_by_other = Bench::with(config.signed_by(Arc::new(other)), 1);
    let id = signed_by_other.canister("");
    let certificate = signed_by_other.subnet.certified().data_certificate(&id).to_cbor();
    verified(&certificate, signed_by_other.subnet.config(), signed_by_other.time);
}

/// Key and signature are those that blst, which shares no code with ours, makes for the ciphersuite
/// `BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_`.
#[test]
fn keys_and_signatures_are_those_of_another_library() {
    let signer = BlsSigner::new(&[1; 32]).unwrap();
    let key = "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100\
        8b9a051b77956975dd6ebca347ee6108857fe4e58ea52170dd2b7f62d67254dbaaea9f870c617e0b7b825d1c4b5ddc8b\
        0c397d4f1b25ecd817ed32a05477c27b9c2933b2cd3b1517810d62789298d744b04657a20907145238d97a486bd9f9f1";
    assert_eq!(hex::encode(signer.root_key()), key);
    let signature = "94f2e2af77d23c99a7c263b85e9a2938eb6a7ac26a9355d0cf9ce26228f23f70\
        6f8cb099b5761483f5edfd65b6cd9592";
    assert_eq!(hex::encode(signer.sign(&signed_message(&[0x5a; 32]))), signature);
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    // The order of the group, big endian.
    let order = hex::decode("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001").unwrap();
    for bytes in [&[][..], &[1; 31], &[1; 33], &[0; 32], &[0xff; 32], &order] {
        assert_eq!(BlsSigner::new(bytes).unwrap_err(), InvalidKey, "{bytes:?}");
    }
}

#[test]
fn each_path_is_readable_by_those_who_may_and_refused_to_others() {
    let mut bench = Bench::new();
    let a = bench.canister("public:open=1 closed=2");
    let b = bench.canister("");
    let program = bench.program([Op::Reply(vec![])]);
    let request = bench.submit(a, "run", &program.to_be_bytes()).unwrap();
    let managed = bench.submit(Principal::management_canister(), "canister_status", &id_arg(a)).unwrap();
    bench.round();
    let id = a.as_slice();
    let anybody = [
        path(&[b"time"]),
        path(&[b"canister", id, b"controllers"]),
        path(&[b"canister", id, b"module_hash"]),
        path(&[b"canister", id, b"canister_creation_timestamp"]),
        path(&[b"canister", id, b"last_install_timestamp"]),
        path(&[b"canister", id, b"metadata", b"open"]),
        path(&[b"canister", id, b"metadata", b"none"]),
        path(&[b"request_status", &[9; 32]]),
    ];
    let its_own = [
        path(&[b"canister", id, b"metadata", b"closed"]),
        path(&[b"request_status", &request.0]),
        path(&[b"request_status", &request.0, b"status"]),
        path(&[b"request_status", &request.0, b"reply"]),
        path(&[b"request_status", &managed.0, b"status"]),
    ];
    let nobody = [
        path(&[]),
        path(&[b"canister"]),
        path(&[b"canister", id]),
        path(&[b"canister", id, b"certified_data"]),
        path(&[b"canister", id, b"metadata"]),
        path(&[b"canister", id, b"metadata", b"\xff"]),
        path(&[b"canister", id, b"controllers", b"more"]),
        path(&[b"canister", b.as_slice(), b"module_hash"]),
        path(&[b"request_status"]),
        path(&[b"request_status", b"short"]),
        path(&[b"request_status", &request.0, b"other"]),
        path(&[b"time", b"zone"]),
        path(&[b"subnet"]),
    ];
    let may =
        |sender, path: &Vec<Vec<u8>>| match bench.subnet.read_state(sender, a, std::slice::from_ref(path)) {
            Ok(_) => true,
            Err(ReadStateError::Forbidden { .. }) => false,
            Err(error) => panic!("{error}"),
        };
    for path in &anybody {
        assert!(may(ANONYMOUS, path) && may(stranger(), path), "{path:?}");
    }
    for path in &its_own {
        assert!(may(ANONYMOUS, path) && !may(stranger(), path), "{path:?}");
    }
    for path in &nobody {
        assert!(!may(ANONYMOUS, path) && !may(stranger(), path), "{path:?}");
    }
    // One forbidden path refuses all of them.
    let mixed = [anybody[0].clone(), nobody[3].clone()];
    let error = bench.subnet.read_state(ANONYMOUS, a, &mixed).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "path /canister/0x{}/certified_data can't be read: only queries of the canister see it",
            hex::encode(id)
        )
    );
    // By way of another canister.
    let elsewhere = bench.subnet.read_state(ANONYMOUS, b, &[path(&[b"request_status", &request.0])]);
    assert!(matches!(elsewhere, Err(ReadStateError::Forbidden { .. })));
}

#[test]
fn too_much_at_once_is_refused() {
    let mut bench = Bench::new();
    let id = bench.canister("");
    let read = |paths: &[Vec<Vec<u8>>]| bench.subnet.read_state(ANONYMOUS, id, paths);
    let time = path(&[b"time"]);
    assert!(read(&vec![time.clone(); PATHS_MAX]).is_ok());
    let error = read(&vec![time; PATHS_MAX + 1]).unwrap_err();
    assert_eq!(error, ReadStateError::TooManyPaths { paths: PATHS_MAX + 1 });
    let long = vec![b"time".to_vec(); LABELS_MAX + 1];
    assert_eq!(read(&[long]).unwrap_err(), ReadStateError::PathTooLong { labels: LABELS_MAX + 1 });
    let two = [path(&[b"request_status", &[1; 32]]), path(&[b"request_status", &[2; 32]])];
    assert_eq!(read(&two).unwrap_err(), ReadStateError::ManyRequests);
}

/// The longest that there can be: ids that share ever more bits with the longest principal.
#[test]
fn no_data_certificate_is_longer_than_its_bound() {
    let mut state = SubnetState::new();
    let id = [0xaa; 29];
    state.put(CanisterState::new(Principal::from_slice(&id), vec![], 1, u64::MAX));
    for byte in 0..29 {
        state.put(CanisterState::new(Principal::from_slice(&id[..byte]), vec![], 1, 1));
        for bit in 0..8 {
            let mut other = id;
            other[byte] ^= 1 << bit;
            state.put(CanisterState::new(Principal::from_slice(&other), vec![], 1, 1));
        }
    }
    let length = fresh(&state).data_certificate(&Principal::from_slice(&id)).to_cbor().len();
    assert!((8_000..DATA_CERTIFICATE_BYTES_MAX).contains(&length), "{length}");
}

fn step() -> impl Strategy<Value = (u8, u8)> {
    (0..12_u8, 0..3_u8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_kept_tree_is_the_one_made_from_scratch_after_every_round(
        steps in proptest::collection::vec(step(), 1..24),
        holds in any::<u32>(),
    ) {
        // Some answers are forgotten before their messages.
        let limits = Arc::new(Limits { ingress_answer_bytes: 40, ..Limits::application() });
        let mut bench = Bench::with(SubnetConfig { limits, ..SubnetConfig::application() }, 1);
        let ids: Vec<_> = (0..3).map(|_| bench.canister("public:a=1")).collect();
        let mut held: Vec<(Arc<CertifiedState>, SubnetState)> = Vec::new();
        for (place, (kind, n)) in steps.into_iter().enumerate() {
            let id = ids[usize::from(n)];
            let manager = Principal::management_canister();
            let program = bench.program([Op::Certify(if n == 0 { b"zero" } else { b"other" }), Op::Reply(vec![n])]);
            let long = bench.program([Op::Slices(2), Op::Certify(b"late"), Op::Reply(vec![n])]);
            let settings = candid::encode_one(UpdateSettingsArgs {
                canister_id: id,
                settings: CanisterSettings {
                    controllers: Some(vec![ANONYMOUS, ids[0]]),
                    ..CanisterSettings::default()
                },
                sender_canister_version: None,
            });
            // What is refused, is refused; the states must agree all the same.
            let _ = match kind {
                0 | 1 => bench.submit(id, "run", &program.to_be_bytes()),
                2 => bench.submit(manager, "uninstall_code", &id_arg(id)),
                3 => bench.submit(manager, "install_code", &install_arg(id, Mode::Reinstall, "public:b=2", NOTHING)),
                4 => bench.submit(manager, "install_code", &install_arg(id, UPGRADE, "c", NOTHING)),
                5 => bench.submit(manager, "stop_canister", &id_arg(id)),
                6 => bench.submit(manager, "delete_canister", &id_arg(id)),
                7 => { bench.empty_canister(); bench.submit(manager, "start_canister", &id_arg(id)) }
                8 => bench.submit(id, "run", &long.to_be_bytes()),
                9 => bench.submit(manager, "update_settings", &settings.unwrap()),
                10 => {
                    let before = bench.subnet.state().clone();
                    let submitted = bench.submit(id, "run", &program.to_be_bytes());
                    bench.round();
                    bench.subnet.go_back(before);
                    submitted
                }
                _ => { bench.time += 200 * SECOND; bench.submit(id, "none", &[]) }
            };
            bench.round();
            // The tree is changed in place while nobody has it, with hashes and without.
            if holds & 1 << place != 0 {
                held.push((Arc::clone(bench.subnet.certified()), bench.subnet.state().clone()));
            } else if place % 2 == 0 {
                prop_assert_eq!(bench.subnet.certified().root(), fresh(bench.subnet.state()).root());
            }
        }
        prop_assert_eq!(bench.subnet.certified().root(), fresh(bench.subnet.state()).root());
        for (certified, state) in held {
            let fresh = fresh(&state);
            prop_assert_eq!((certified.time(), certified.root()), (fresh.time(), fresh.root()));
            prop_assert_eq!(certified.data_certificate(&ids[0]), fresh.data_certificate(&ids[0]));
        }
    }
}

#[test]
fn the_sender_of_a_message_is_who_may_see_it() {
    let mut bench = Bench::new();
    let id = bench.canister("");
    let program = bench.program([Op::Reply(vec![])]);
    let message = Ingress {
        sender: stranger(),
        receiver: id,
        method: "run".into(),
        arg: Arc::from(program.to_be_bytes()),
        nonce: vec![],
    };
    let request = bench.subnet.submit(message).unwrap();
    bench.round();
    let status: [&[u8]; 3] = [b"request_status", &request.0, b"status"];
    assert_eq!(read(&bench, id, stranger(), &status).unwrap(), b"replied");
    assert!(bench.subnet.read_state(ANONYMOUS, id, &[path(&status)]).is_err());
}
