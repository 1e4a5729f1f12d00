//! What comes in, round by round: follows from a seed and from the state that all subnets have.

use std::collections::BTreeMap;
use std::sync::Arc;

use execution::state::Status;
use execution::{Ingress, Principal, SubnetState};

use crate::conformance::management::{self, Install as Mode, Persistence, Settings, Upgrade, Variable};

use super::arguments;
use super::dice::Dice;
use super::modules;
use super::real::REAL;
use super::statements::{COMPOSITES, QUERIES, UPDATES};
use crate::drun;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Generated modules that worlds near each other choose from, so that most are compiled already.
const POOL: u64 = 24;
/// Worlds that share them.
const POOL_WORLDS: u64 = 12;

/// One message.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Submit(Ingress),
    Query { from: Principal, to: Principal, method: &'static str, arg: Vec<u8> },
}

/// A round.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) acts: Vec<Act>,
    /// Whether paused messages are given up after the round.
    pub(super) abort: bool,
    pub(super) time: u64,
    pub(super) seed: [u8; 32],
}

/// What a canister was last filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Generated,
    Real(usize),
}

/// The rounds of a world.
pub(super) struct Workload {
    dice: Dice,
    /// Where this world's generated modules begin.
    modules: u64,
    kinds: BTreeMap<Principal, Kind>,
    time: u64,
    nonce: u64,
    /// Modules read and made so far, by name or number.
    real: BTreeMap<usize, Vec<u8>>,
    generated: BTreeMap<u64, Vec<u8>>,
}

/// Who owns the canisters.
pub(super) fn user() -> Principal {
    Principal::self_authenticating(b"the user of the random workload")
}

const CHORES: [&str; 16] = [
    "install",
    "install",
    "install",
    "upgrade",
    "upgrade",
    "reinstall",
    "stop_canister",
    "start_canister",
    "start_canister",
    "settings",
    "settings",
    "top_up",
    "uninstall_code",
    "delete_canister",
    "create",
    "canister_status",
];

impl Workload {
    pub(super) fn new(seed: u64, world: u64, start: u64) -> Self {
        Self {
            dice: Dice::of(&[seed, world]),
            modules: seed.wrapping_mul(1_000_003).wrapping_add(world / POOL_WORLDS * POOL),
            kinds: BTreeMap::new(),
            time: start,
            nonce: 0,
            real: BTreeMap::new(),
            generated: BTreeMap::new(),
        }
    }

    /// Installs something in each of the canisters that the world starts with.
    pub(super) fn first(&mut self, ids: &[Principal]) -> Round {
        let acts = ids.iter().map(|id| self.install(*id, Mode::Install)).collect();
        self.round(acts, false)
    }

    /// A random round on `state`, the state after the last one.
    pub(super) fn next(&mut self, state: &SubnetState) -> Round {
        let count = match self.dice.below(8) {
            0 => 0,
            1 => 16,
            _ => 2 + self.dice.below(8),
        };
        let acts = (0..count).map(|_| self.act(state)).collect();
        let abort = self.dice.one_in(5);
        self.round(acts, abort)
    }

    fn round(&mut self, acts: Vec<Act>, abort: bool) -> Round {
        self.time += match self.dice.below(30) {
            0 => 0,
            1 => 400 * SECOND,
            2..=4 => 60 * SECOND,
            _ => SECOND + self.dice.below(SECOND),
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.dice.number().to_le_bytes());
        Round { acts, abort, time: self.time, seed }
    }

    fn act(&mut self, state: &SubnetState) -> Act {
        let ids: Vec<Principal> = state.canisters.keys().copied().collect();
        let to = if ids.is_empty() || self.dice.one_in(60) {
            Principal::from_slice(&[7; 10])
        } else {
            *self.dice.pick(&ids)
        };
        if self.dice.one_in(6) {
            return self.chore(to, state);
        }
        // What is stopped or empty is brought back, mostly.
        match state.canister(&to) {
            Some(canister) if canister.status != Status::Running && !self.dice.one_in(6) => {
                self.manage(user(), "start_canister", arguments::of_canister(to))
            }
            Some(canister) if canister.code.is_none() && !self.dice.one_in(4) => {
                self.install(to, Mode::Install)
            }
            _ => self.ask(to, &ids),
        }
    }

    /// A message or query for a canister.
    fn ask(&mut self, to: Principal, ids: &[Principal]) -> Act {
        let from = if self.dice.one_in(2) { user() } else { Principal::anonymous() };
        let (method, query, arg) = match self.kinds.get(&to).copied() {
            Some(Kind::Real(index)) => {
                let peer = self.peer(index, ids);
                REAL[index].ask(&mut self.dice, peer)
            }
            Some(Kind::Generated) | None => self.generated_call(),
        };
        if query && !self.dice.one_in(5) {
            return Act::Query { from, to, method, arg };
        }
        self.submit(from, to, method, arg)
    }

    fn generated_call(&mut self) -> (&'static str, bool, Vec<u8>) {
        let (method, query) = match self.dice.below(12) {
            0 | 1 => (*self.dice.pick(&QUERIES), true),
            2 | 3 => (*self.dice.pick(&COMPOSITES), true),
            4 if self.dice.one_in(4) => ("nope", false),
            _ => (*self.dice.pick(&UPDATES), false),
        };
        let mut arg = vec![self.dice.below(4) as u8];
        arg.extend(self.dice.bytes(12));
        (method, query, arg)
    }

    /// A canister with the same methods, mostly.
    fn peer(&mut self, index: usize, ids: &[Principal]) -> Principal {
        let alike = |other: usize| REAL[other].is_like(&REAL[index]);
        let same: Vec<Principal> = self
            .kinds
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Real(other) if alike(*other)))
            .map(|(id, _)| *id)
            .collect();
        if same.is_empty() || self.dice.one_in(4) { *self.dice.pick(ids) } else { *self.dice.pick(&same) }
    }

    /// A call of the management canister.
    fn chore(&mut self, to: Principal, state: &SubnetState) -> Act {
        let from = if self.dice.one_in(15) { Principal::anonymous() } else { user() };
        match *self.dice.pick(&CHORES) {
            "install" => {
                let empty = state.canisters.values().find(|canister| canister.code.is_none());
                self.install(empty.map_or(to, |canister| canister.id), Mode::Install)
            }
            "upgrade" => {
                let persistence = match self.dice.below(3) {
                    0 => None,
                    1 => Some(Persistence::Keep),
                    _ => Some(Persistence::Replace),
                };
                let skip_pre_upgrade = self.dice.one_in(6).then_some(true);
                self.upgrade(to, Upgrade { skip_pre_upgrade, wasm_memory_persistence: persistence })
            }
            "reinstall" => self.install(to, Mode::Reinstall),
            "settings" => {
                let settings = self.settings();
                self.manage(from, "update_settings", management::settings(to, settings, None))
            }
            "top_up" => {
                let amount = self.dice.below(1 << 50);
                self.manage(from, "provisional_top_up_canister", arguments::top_up(to, amount))
            }
            "create" => {
                let amount = *self.dice.pick(&[1_000_000_000_000_000, 3_000_000_000]);
                let arg = arguments::create(amount);
                self.manage(from, "provisional_create_canister_with_cycles", arg)
            }
            method => self.manage(from, method, arguments::of_canister(to)),
        }
    }

    fn settings(&mut self) -> Settings {
        let mut settings = Settings::default();
        match self.dice.below(9) {
            0 => settings.freezing_threshold = Some(self.dice.below(100_000_000).into()),
            1 => settings.memory_allocation = Some(self.dice.below(1 << 24).into()),
            2 => settings.wasm_memory_limit = Some(self.dice.below(1 << 24).into()),
            3 | 7 | 8 => settings.wasm_memory_threshold = Some((self.dice.below(2) * (3 << 30)).into()),
            4 => settings.compute_allocation = Some(self.dice.below(3).into()),
            5 => settings.minimum_incoming_canister_call_cycles = Some(self.dice.below(2).into()),
            _ => {
                let variable = |name: &str, value| Variable { name: name.to_owned(), value };
                let value = self.dice.below(1_000).to_string();
                settings.environment_variables =
                    Some(vec![variable("NAME", value.clone()), variable("OTHER", value)]);
            }
        }
        settings
    }

    /// Puts a random module into a canister, a new one or one that the world has already.
    fn install(&mut self, to: Principal, mode: Mode) -> Act {
        let kind = if self.dice.one_in(2) {
            Kind::Real(self.dice.below(REAL.len() as u64) as usize)
        } else {
            Kind::Generated
        };
        self.deploy(to, mode, kind)
    }

    /// Mostly to the same module or, if it is a generated one, another such.
    fn upgrade(&mut self, to: Principal, mut upgrade: Upgrade) -> Act {
        let kind = self.kinds.get(&to).copied().unwrap_or(Kind::Generated);
        if let Kind::Real(index) = kind
            && !self.dice.one_in(8)
        {
            upgrade.wasm_memory_persistence = REAL[index].persistent.then_some(Persistence::Keep);
        }
        self.deploy(to, Mode::Upgrade(Some(upgrade)), kind)
    }

    fn deploy(&mut self, to: Principal, mode: Mode, kind: Kind) -> Act {
        self.kinds.insert(to, kind);
        let (module, arg) = match kind {
            Kind::Real(index) => {
                let real = &REAL[index];
                let read = || std::fs::read(drun::module(real.module)).expect("the module can be read");
                let module = self.real.entry(index).or_insert_with(read).clone();
                let arg = match mode {
                    Mode::Upgrade(_) if !real.module.contains("Ledger") => candid::encode_args(()),
                    _ => (real.init)(),
                };
                (module, arg.expect("an argument encodes"))
            }
            Kind::Generated => {
                let number = self.modules.wrapping_add(self.dice.below(POOL));
                let module = self.generated.entry(number).or_insert_with(|| modules::module(number)).clone();
                (module, self.dice.bytes(12))
            }
        };
        self.manage(user(), "install_code", management::install(mode, to, &module, &arg))
    }

    fn manage(&mut self, from: Principal, method: &str, arg: Vec<u8>) -> Act {
        self.submit(from, Principal::management_canister(), method, arg)
    }

    fn submit(&mut self, sender: Principal, receiver: Principal, method: &str, arg: Vec<u8>) -> Act {
        self.nonce += 1;
        let nonce = self.nonce.to_be_bytes().to_vec();
        Act::Submit(Ingress { sender, receiver, method: method.to_owned(), arg: Arc::from(arg), nonce })
    }
}
