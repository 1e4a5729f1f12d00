//! Real canisters, and what the backend promises of warm instances.

use std::sync::Arc;

use execution::{Ending, EntryPoint, Principal, Snapshot};

use crate::canister::{Canister, reply_of};

const NO_ARGUMENTS: &[u8] = b"DIDL\0\0";

fn motoko(name: &str) -> Canister {
    let path = format!("{}/../tests/canisters/motoko/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    let wasm = std::fs::read(path).unwrap();
    Canister::from_bytes(&wasm)
}

#[test]
fn motoko_counters_of_both_widths_count() {
    for name in ["Counter-eop", "Counter-classic"] {
        let mut canister = motoko(name);
        if canister.snapshot.module.interface.exports.start {
            assert_eq!(canister.commit(EntryPoint::Start).ending, Ending::Returned, "{name}");
        }
        let init = canister.commit(EntryPoint::Init { arg: Arc::from(NO_ARGUMENTS) });
        assert_eq!(init.ending, Ending::Returned, "{name}");
        for count in 1..=3 {
            assert_eq!(
                canister.reply("inc", NO_ARGUMENTS),
                [b"DIDL\x00\x01\x7d", &[count][..]].concat(),
                "{name}"
            );
        }
        let get = EntryPoint::Query { method: "get".into(), arg: Arc::from(NO_ARGUMENTS) };
        assert_eq!(reply_of(&canister.run(get)), b"DIDL\x00\x01\x7d\x03", "{name}");
    }
}

/// Counts in a page of its heap and in a global.
const COUNTER: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (memory 1)
    (global $n (mut i32) (i32.const 0))
    (func (export "canister_update inc")
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 0) (global.get $n))
        (call $reply))
    (func (export "canister_query get") (call $reply)))"#;

#[test]
fn warm_instances_are_those_of_messages_used_last_first_each_with_what_its_last_run_left() {
    let mut canister = Canister::new(COUNTER);
    assert!(canister.warm().is_empty());
    canister.query("get");
    assert!(canister.warm().is_empty(), "one for queries is none for messages");
    let ids = [1, 2, 1].map(|number| Principal::from_slice(&[number, 1]));
    for id in ids {
        canister.snapshot.canister = id;
        canister.reply("inc", b"");
    }
    let warm = canister.warm();
    assert_eq!(warm.iter().map(|held| held.canister).collect::<Vec<_>>(), [ids[0], ids[1]]);
    assert_eq!(warm[0].globals, canister.snapshot.globals);
    let page = |snapshot: &Snapshot| snapshot.heap.page(0).map(|version| version.bytes().to_vec());
    assert_eq!(page(&warm[0]).unwrap()[..4], [3, 0, 0, 0]);
    assert_eq!(page(&warm[0]), page(&canister.snapshot));
}
