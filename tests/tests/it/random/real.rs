//! Real canisters and what is asked of them.

use candid::{Encode, Nat, Principal};
use serde_bytes::ByteBuf;

use super::dice::Dice;

/// A canister of `tests/canisters`.
pub(super) struct Real {
    /// The built module.
    pub(super) module: &'static str,
    /// Argument of its init.
    pub(super) init: fn() -> candid::Result<Vec<u8>>,
    /// Whether its heap survives upgrades.
    pub(super) persistent: bool,
    methods: &'static [Method],
}

/// A method, and a random argument given a canister that it may call.
struct Method {
    name: &'static str,
    query: bool,
    arg: fn(&mut Dice, Principal) -> candid::Result<Vec<u8>>,
}

const fn update(name: &'static str, arg: fn(&mut Dice, Principal) -> candid::Result<Vec<u8>>) -> Method {
    Method { name, query: false, arg }
}

const fn query(name: &'static str, arg: fn(&mut Dice, Principal) -> candid::Result<Vec<u8>>) -> Method {
    Method { name, query: true, arg }
}

fn nothing() -> candid::Result<Vec<u8>> {
    Encode!()
}

fn none(_: &mut Dice, _: Principal) -> candid::Result<Vec<u8>> {
    Encode!()
}

fn nat(dice: &mut Dice, _: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&Nat::from(dice.below(40)))
}

fn nat64(dice: &mut Dice, _: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&dice.below(40))
}

fn seconds(dice: &mut Dice, _: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&Nat::from(1 + dice.below(3)))
}

fn peer(_: &mut Dice, peer: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&peer)
}

fn peer_nat(dice: &mut Dice, peer: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&peer, &Nat::from(dice.below(5)))
}

fn peer_nat64(dice: &mut Dice, peer: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&peer, &dice.below(5))
}

fn peer_two_nats(dice: &mut Dice, peer: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&peer, &Nat::from(dice.below(1_000_000)), &Nat::from(dice.below(1_000_000)))
}

fn peer_text(_: &mut Dice, peer: Principal) -> candid::Result<Vec<u8>> {
    Encode!(&peer, &"not today")
}

fn key(dice: &mut Dice) -> String {
    format!("key {}", dice.below(30))
}

const PEER: &[Method] = &[
    update("bump", nat),
    update("ping", peer_nat),
    update("fanOut", peer_nat),
    update("countDown", nat),
    update("notify", peer_nat),
    update("sendCycles", peer_two_nats),
    update("tryTrap", peer),
    update("tryRefuse", peer_text),
    update("trapInCallback", peer),
    update("trapAfterWrite", none),
    query("get", none),
    query("getComposite", peer),
    query("cycles", none),
];

const TIMERS: &[Method] = &[
    update("once", |dice, _| Encode!(&Nat::from(1 + dice.below(3)), &Nat::from(dice.below(9)))),
    update("onceTrapping", seconds),
    update("every", seconds),
    update("stop", none),
    query("getShots", none),
    query("getTicks", none),
];

const LEDGER: &[Method] = &[
    update("transfer", |dice, peer| Encode!(&peer, &Nat::from(dice.below(9)), &dice.number())),
    update("transferOrTrap", |dice, peer| Encode!(&peer, &Nat::from(dice.below(1 << 40)))),
    update("mint", |dice, peer| Encode!(&peer, &Nat::from(dice.below(9)))),
    query("audit", none),
    query("tipHash", none),
    query("certificate", none),
];

const CALLER: &[Method] = &[
    update("ping", peer_nat64),
    update("ping_unbounded", peer_nat64),
    update("fan_out", peer_nat64),
    update("send_cycles", |dice, peer| {
        Encode!(&peer, &Nat::from(dice.below(1_000_000)), &Nat::from(dice.below(1_000_000)))
    }),
    update("trap_after_await", peer),
    update("call_missing", peer),
    update("panic_now", none),
    update("random", none),
    query("visits", none),
    query("visits_of", peer),
];

const STORE: &[Method] = &[
    update("put", |dice, _| Encode!(&key(dice), &ByteBuf::from(dice.bytes(200)))),
    update("remove", |dice, _| Encode!(&key(dice))),
    update("fill", nat64),
    update("grow_heap", |dice, _| Encode!(&dice.below(20_000))),
    update("panic_after_write", |dice, _| Encode!(&key(dice))),
    query("get", |dice, _| Encode!(&key(dice))),
    query("len", none),
];

const RUST_TIMERS: &[Method] = &[
    update("once", |dice, _| Encode!(&(1 + dice.below(3)), &dice.below(9))),
    update("once_panicking", |dice, _| Encode!(&(1 + dice.below(3)))),
    update("cancel_all", none),
    query("shots", none),
];

const COMPUTE: &[Method] = &[
    update("stable_grow", |dice, _| Encode!(&dice.below(3))),
    update("stable_fill", |dice, _| Encode!(&dice.below(60_000), &dice.below(9_000))),
    update("certify", |dice, _| Encode!(&ByteBuf::from(dice.bytes(32)))),
    query("float_bits", none),
    query("sha256", nat64),
    query("surroundings", none),
    query("certificate", none),
    query("instructions_of", nat64),
];

const STRESS: &[Method] = &[
    update("dirty", |dice, _| Encode!(&dice.below(20))),
    update("grow", |dice, _| Encode!(&dice.below(3))),
    update("grow_and_trap", |dice, _| Encode!(&dice.below(3))),
    update("stable_dirty", |dice, _| Encode!(&dice.below(20))),
    update("stable_grow", |dice, _| Encode!(&dice.below(3))),
    update("spin_update", none),
    query("float_sum", nat64),
    query("nan_bits", none),
    query("recurse", |dice, _| Encode!(&dice.below(5_000))),
    query("grow_in_query", |dice, _| Encode!(&dice.below(3))),
    query("version", none),
];

const COUNTER: &[Method] = &[
    update("add", nat64),
    update("call_inc", none),
    update("call_inc_and_trap", none),
    update("call_reject", none),
    update("no_reply", none),
    update("reply_twice", none),
    update("trap_after_inc", none),
    update("set_timer", none),
    update("stable_grow32", |dice, _| Encode!(&dice.below(3))),
    query("get", none),
    query("out_of_bounds", none),
    query("inc_in_query", none),
];

fn token() -> candid::Result<Vec<u8>> {
    Encode!(&"RANDOM", &Nat::from(1_000_000_u64))
}

fn store() -> candid::Result<Vec<u8>> {
    Encode!(&Some("random"))
}

const fn real(module: &'static str, persistent: bool, methods: &'static [Method]) -> Real {
    Real { module, init: nothing, persistent, methods }
}

/// All of them.
pub(super) const REAL: [Real; 11] = [
    real("motoko/Peer-classic.wasm", false, PEER),
    real("motoko/Peer-eop.wasm", true, PEER),
    real("motoko/Timers-classic.wasm", false, TIMERS),
    real("motoko/Timers-eop.wasm", true, TIMERS),
    Real { init: token, ..real("motoko/Ledger-eop.wasm", true, LEDGER) },
    real("rust/caller.wasm", false, CALLER),
    Real { init: store, ..real("rust/kv.wasm", false, STORE) },
    real("rust/timers.wasm", false, RUST_TIMERS),
    real("rust/compute.wasm", false, COMPUTE),
    real("c/stress.wasm", false, STRESS),
    real("c/counter.wasm", false, COUNTER),
];

impl Real {
    /// Whether `other` has the same methods.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        std::ptr::eq(self.methods, other.methods)
    }

    /// A random method, whether it is a query, and its argument.
    pub(super) fn ask(&self, dice: &mut Dice, peer: Principal) -> (&'static str, bool, Vec<u8>) {
        let Method { name, query, arg } = dice.pick(self.methods);
        (name, *query, arg(dice, peer).expect("an argument encodes"))
    }
}
