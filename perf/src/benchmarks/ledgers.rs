//! Real canisters: transfers of ledgers in Motoko and Rust, from the message taken in to the reply.

use std::sync::Arc;

use candid::{Encode, Nat};
use execution::{Principal, QueryView};

use super::{Bench, CORE, Mode};
use crate::placement::Pinned;
use crate::report::{Compared, Finding, Target, Unit};
use crate::rounds::Rounds;
use crate::sample::{Samples, Variant, interleaved};

/// Canisters of the many.
const MANY: usize = 8;
/// Transfers of a round, over all canisters.
pub(super) const TRANSFERS: usize = 64;
const SAMPLES: usize = 31;
/// Units that a ledger begins with; each transfer moves one.
const SUPPLY: u64 = 1_000_000_000;

/// A ledger, whatever it is written in.
pub(super) struct Ledger {
    language: &'static str,
    wasm: &'static [u8],
    init: Vec<u8>,
    transfer: Arc<[u8]>,
    /// The query that tells how many transfers there were.
    count: &'static str,
    /// Number of entries that are no transfers.
    first: u64,
}

impl Ledger {
    fn motoko() -> Result<Self, String> {
        let to = Principal::management_canister();
        Ok(Self {
            language: "Motoko",
            wasm: include_bytes!("../../../tests/canisters/motoko/Ledger-eop.wasm"),
            init: encoded(Encode!(&"PERF", &Nat::from(SUPPLY)))?,
            transfer: encoded(Encode!(&to, &Nat::from(1_u8), &0_u64))?.into(),
            count: "height",
            first: 1,
        })
    }

    pub(super) fn rust() -> Result<Self, String> {
        let to = Principal::management_canister();
        Ok(Self {
            language: "Rust",
            wasm: include_bytes!("../../../tests/canisters/rust/ledger.wasm"),
            init: encoded(Encode!(&Nat::from(SUPPLY)))?,
            transfer: encoded(Encode!(&to, &Nat::from(1_u8)))?.into(),
            count: "transfers",
            first: 0,
        })
    }
}

fn encoded(arg: candid::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    arg.map_err(|error| error.to_string())
}

/// Ledgers in a subnet of their own.
pub(super) struct Ledgers<'a> {
    ledger: &'a Ledger,
    pub(super) rounds: Rounds,
    pub(super) canisters: Vec<Principal>,
    pub(super) transfers: u64,
}

impl<'a> Ledgers<'a> {
    pub(super) fn install(
        bench: &Bench,
        mode: Mode,
        ledger: &'a Ledger,
        count: usize,
    ) -> Result<Self, String> {
        let mut rounds = mode.rounds(bench)?;
        let canisters =
            (0..count).map(|_| rounds.install(ledger.wasm, &ledger.init)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { ledger, rounds, canisters, transfers: 0 })
    }

    /// A round with `count` transfers, the same number for each canister.
    pub(super) fn transfer(&mut self, count: usize) -> Result<(), String> {
        let messages = (0..count)
            .map(|index| {
                let canister = self.canisters[index % self.canisters.len()];
                self.rounds.submit(canister, "transfer", &self.ledger.transfer)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.transfers += count as u64;
        self.rounds.finish(&messages)
    }

    /// Fails unless the ledgers counted every transfer.
    pub(super) fn check(&self) -> Result<(), String> {
        let view = self.rounds.queries();
        let counted = self
            .canisters
            .iter()
            .map(|canister| count(&view, *canister, self.ledger))
            .sum::<Result<u64, String>>()?;
        let expected = self.transfers + self.ledger.first * self.canisters.len() as u64;
        if counted == expected {
            Ok(())
        } else {
            Err(format!("the {} ledgers counted {counted} entries, not {expected}", self.ledger.language))
        }
    }
}

/// What a ledger says of its length, a `nat` or a `nat64`.
fn count(view: &QueryView, canister: Principal, ledger: &Ledger) -> Result<u64, String> {
    let reply = ask(view, canister, ledger.count)?;
    candid::decode_one::<u64>(&reply)
        .ok()
        .or_else(|| u64::try_from(&candid::decode_one::<Nat>(&reply).ok()?.0).ok())
        .ok_or_else(|| format!("{} is no number", ledger.count))
}

/// Asks `method`, which takes no argument.
pub(super) fn ask(view: &QueryView, canister: Principal, method: &str) -> Result<Vec<u8>, String> {
    let answer = view.query(Principal::anonymous(), canister, method, b"DIDL\0\0");
    answer.result.map_err(|error| error.to_string())
}

/// Transfers a second, one ledger and many, both modes.
pub(super) fn ledgers(bench: &Bench) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for ledger in [Ledger::motoko()?, Ledger::rust()?] {
        for (name, count) in [("one", 1), ("many", MANY)] {
            findings.push(transfers(bench, &ledger, name, count)?);
        }
    }
    Ok(findings)
}

fn transfers(bench: &Bench, ledger: &Ledger, name: &str, count: usize) -> Result<Finding, String> {
    let mut here = Ledgers::install(bench, Mode::InProcess, ledger, count)?;
    let mut there = Ledgers::install(bench, Mode::Sandboxed, ledger, count)?;
    let _pinned = Pinned::this_thread(CORE)?;
    let variants: &mut [Variant<'_>] =
        &mut [&mut || here.transfer(TRANSFERS), &mut || there.transfer(TRANSFERS)];
    let samples = interleaved(SAMPLES, 1, variants)?;
    here.check()?;
    there.check()?;
    let rate = |samples: &Samples| 1e9 * TRANSFERS as f64 / samples.median();
    Ok(Finding::new(
        format!("ledger-{}-{name}", ledger.language.to_lowercase()),
        &Compared { limit: rate(&samples[0]), measured: rate(&samples[1]), unit: Unit::Rate },
        Target::None,
        true,
        format!(
            "transfers a second of {count} ledger{} in {}, {TRANSFERS} in a round, from taken in to answered: \
             sandboxed against in-process",
            if count == 1 { "" } else { "s" },
            ledger.language
        ),
    ))
}
