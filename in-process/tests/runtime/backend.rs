//! Real canisters, and what the backend promises of warm instances.

use std::sync::Arc;

use execution::{Ending, EntryPoint};

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
