//! A check as data: canisters, steps, and what each step has to give.

use std::cell::Cell;
use std::rc::Rc;

use execution::state::CanisterState;
use execution::{Limits, Principal};

use super::management::{self, Install, Settings, Upgrade};
use super::prelude;

/// Cycles that a canister of a check has.
pub(super) const CYCLES: u128 = 100_000_000_000_000;
/// Canisters that a check may name.
pub(super) const IDS: usize = 3;

pub(super) type Ids = [Principal; IDS];

/// One line of the matrix in section 7 of the reference.
pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) canisters: Vec<Canister>,
    pub(super) steps: Vec<Step>,
    pub(super) limits: fn(&mut Limits),
}

/// A canister that is there when the steps begin.
pub(super) struct Canister {
    pub(super) code: Code,
    pub(super) cycles: u128,
}

/// Code of a canister.
#[derive(Clone)]
pub(super) enum Code {
    /// None: the canister is empty.
    Empty,
    /// A body for [`prelude::module`].
    Body(String),
    /// A whole module as text.
    Wat(String),
    /// Bytes as they are.
    Bytes(Vec<u8>),
}

impl Code {
    /// The module as it is uploaded.
    pub(super) fn bytes(&self, ids: &Ids) -> Vec<u8> {
        let text = match self {
            Self::Empty => return Vec::new(),
            Self::Bytes(bytes) => return bytes.clone(),
            Self::Wat(text) => text.clone(),
            Self::Body(body) => prelude::module(body, ids.each_ref().map(|id| id.as_slice())),
        };
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

/// A check of canisters whose bodies are given; an empty body is an empty canister.
pub(super) fn check<const N: usize>(
    id: &'static str,
    bodies: [&str; N],
    steps: impl IntoIterator<Item = Step>,
) -> Check {
    let canisters = bodies.map(|body| Canister { code: code(body), cycles: CYCLES });
    Check { id, canisters: canisters.into(), steps: steps.into_iter().collect(), limits: |_| {} }
}

/// A check of one canister with one step.
pub(super) fn one(id: &'static str, body: &str, step: Step) -> Check {
    check(id, [body], [step])
}

impl Check {
    /// The same under other limits.
    pub(super) fn limits(mut self, limits: fn(&mut Limits)) -> Self {
        self.limits = limits;
        self
    }

    /// The same with other cycles for canister `n`.
    pub(super) fn cycles(mut self, n: usize, cycles: u128) -> Self {
        self.canisters[n].cycles = cycles;
        self
    }
}

pub(super) type Bytes = Box<dyn Fn(&Ids) -> Vec<u8>>;
pub(super) type Look = Box<dyn Fn(&CanisterState) -> String>;

/// What a step does.
pub(super) enum Act {
    /// A message of a user.
    Update { to: Option<usize>, method: String, arg: Bytes, from: Principal },
    /// A query of a user.
    Query { to: Option<usize>, method: String, arg: Bytes, from: Principal },
    /// Looks again at a message, counted from 0.
    Again(usize),
    /// A round, so many seconds later.
    Rounds { rounds: u64, seconds: u64 },
    /// The instructions of the last run.
    Cost,
    /// Gives up all paused messages.
    Abort,
    /// Goes on with a new subnet from the state alone.
    Restart,
    /// Looks at the state of a canister.
    Look { to: usize, look: Look },
    /// Reads a path below a canister in the certified state, and verifies the certificate.
    Read { to: usize, path: Vec<&'static str>, from: Principal },
    /// Asks a canister's query `certificate` and verifies what it gives: sees the certified data.
    Certificate { to: usize, from: Principal },
}

/// What a step has to give.
#[derive(Clone, Debug)]
pub(super) enum Want {
    Anything,
    Reply(Vec<u8>),
    /// A reply that contains this text.
    ReplyPart(String),
    /// A reply of so many bytes.
    ReplyBytes(usize),
    /// A reply that reads so.
    ReplyRead(fn(&[u8]) -> String, String),
    /// An error with this code and a text that contains this.
    Error(&'static str, String),
    /// The message isn't taken in.
    Refused(&'static str, String),
    /// No answer yet.
    Waiting,
    /// What a look sees.
    Seen(String),
}

/// A step of a check.
pub(super) struct Step {
    pub(super) act: Act,
    pub(super) want: Want,
}

/// The user that controls the canisters of a check.
pub(super) fn user() -> Principal {
    Principal::self_authenticating(b"conformance")
}

/// A user without rights.
pub(super) fn stranger() -> Principal {
    Principal::self_authenticating(b"stranger")
}

fn step(act: Act) -> Step {
    Step { act, want: Want::Anything }
}

pub(super) fn update(method: &str) -> Step {
    step(Act::Update { to: Some(0), method: method.to_owned(), arg: Box::new(|_| Vec::new()), from: user() })
}

pub(super) fn query(method: &str) -> Step {
    step(Act::Query { to: Some(0), method: method.to_owned(), arg: Box::new(|_| Vec::new()), from: user() })
}

/// A call of the management canister by a user.
pub(super) fn manage(method: &str, arg: impl Fn(&Ids) -> Vec<u8> + 'static) -> Step {
    step(Act::Update { to: None, method: method.to_owned(), arg: Box::new(arg), from: user() })
}

/// A query of the management canister by a user.
pub(super) fn manage_query(method: &str, arg: impl Fn(&Ids) -> Vec<u8> + 'static) -> Step {
    step(Act::Query { to: None, method: method.to_owned(), arg: Box::new(arg), from: user() })
}

pub(super) fn again(message: usize) -> Step {
    step(Act::Again(message))
}

/// One round, so many seconds later.
pub(super) fn after(seconds: u64) -> Step {
    step(Act::Rounds { rounds: 1, seconds })
}

pub(super) fn look(
    to: usize,
    look: impl Fn(&CanisterState) -> String + 'static,
    seen: impl ToString,
) -> Step {
    Step { act: Act::Look { to, look: Box::new(look) }, want: Want::Seen(seen.to_string()) }
}

/// Reads a path below a canister in the certified state: the value in hexadecimal, `absent` or `refused`.
pub(super) fn read<const N: usize>(to: usize, path: [&'static str; N], seen: &str) -> Step {
    let act = Act::Read { to, path: path.into(), from: stranger() };
    Step { act, want: Want::Seen(seen.to_owned()) }
}

/// The certified data in the certificate that the canister's query `certificate` gives, in hexadecimal.
pub(super) fn certificate(to: usize, seen: &str) -> Step {
    Step { act: Act::Certificate { to, from: stranger() }, want: Want::Seen(seen.to_owned()) }
}

/// The instructions of the last run.
pub(super) fn cost(instructions: u64) -> Step {
    Step { act: Act::Cost, want: Want::Seen(instructions.to_string()) }
}

/// Two looks at a canister's balance; the second sees what went between them.
pub(super) fn spent(to: usize, cycles: i128) -> [Step; 2] {
    let before = Rc::new(Cell::new(0));
    let after = Rc::clone(&before);
    let first = look(
        to,
        move |canister| {
            before.set(canister.balance);
            String::new()
        },
        "",
    );
    let signed = |cycles: u128| i128::try_from(cycles).expect("a balance fits");
    let second =
        look(to, move |canister| (signed(after.get()) - signed(canister.balance)).to_string(), cycles);
    [first, second]
}

fn code(body: &str) -> Code {
    if body.is_empty() { Code::Empty } else { Code::Body(body.to_owned()) }
}

/// Installs a body with `arg` in canister `to`.
pub(super) fn install_code(to: usize, mode: Install, code: Code, arg: &'static [u8]) -> Step {
    manage("install_code", move |ids| management::install(mode, ids[to], &code.bytes(ids), arg))
}

pub(super) fn install(to: usize, body: &str) -> Step {
    install_code(to, Install::Install, code(body), b"")
}

pub(super) fn reinstall(to: usize, body: &str) -> Step {
    install_code(to, Install::Reinstall, code(body), b"")
}

pub(super) fn upgrade(to: usize, body: &str, options: Option<Upgrade>) -> Step {
    install_code(to, Install::Upgrade(options), code(body), b"")
}

/// A management method that takes canister `to` alone.
pub(super) fn on_canister(method: &str, to: usize) -> Step {
    manage(method, move |ids| management::canister(ids[to]))
}

pub(super) fn settings(to: usize, settings: Settings) -> Step {
    manage("update_settings", move |ids| management::settings(ids[to], settings.clone(), None))
}

/// Lets canister 0, which has [`prelude::PASS`], call the management canister (`to`: `None`) or a canister.
pub(super) fn pass(
    to: Option<usize>,
    method: &str,
    cycles: u64,
    payload: impl Fn(&Ids) -> Vec<u8> + 'static,
) -> Step {
    let method = method.to_owned();
    update("pass").with(move |ids| {
        let callee = to.map_or(Principal::management_canister(), |to| ids[to]);
        let mut arg = cycles.to_le_bytes().to_vec();
        for part in [callee.as_slice(), method.as_bytes()] {
            arg.push(u8::try_from(part.len()).expect("a short part"));
            arg.extend_from_slice(part);
        }
        arg.extend(payload(ids));
        arg
    })
}

impl Step {
    pub(super) fn on(mut self, canister: usize) -> Self {
        match &mut self.act {
            Act::Update { to, .. } => *to = Some(canister),
            Act::Query { to, .. } => *to = Some(canister),
            Act::Again(_)
            | Act::Rounds { .. }
            | Act::Cost
            | Act::Abort
            | Act::Restart
            | Act::Look { .. }
            | Act::Read { .. }
            | Act::Certificate { .. } => panic!("not a message"),
        }
        self
    }

    pub(super) fn from(mut self, sender: Principal) -> Self {
        match &mut self.act {
            Act::Update { from, .. }
            | Act::Query { from, .. }
            | Act::Read { from, .. }
            | Act::Certificate { from, .. } => *from = sender,
            Act::Again(_) | Act::Rounds { .. } | Act::Cost | Act::Abort | Act::Restart | Act::Look { .. } => {
                panic!("not a message")
            }
        }
        self
    }

    pub(super) fn with(mut self, bytes: impl Fn(&Ids) -> Vec<u8> + 'static) -> Self {
        match &mut self.act {
            Act::Update { arg, .. } | Act::Query { arg, .. } => *arg = Box::new(bytes),
            Act::Again(_)
            | Act::Rounds { .. }
            | Act::Cost
            | Act::Abort
            | Act::Restart
            | Act::Look { .. }
            | Act::Read { .. }
            | Act::Certificate { .. } => panic!("not a message"),
        }
        self
    }

    pub(super) fn arg(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        self.with(move |_| bytes.clone())
    }

    pub(super) fn times(mut self, rounds: u64) -> Self {
        if let Act::Rounds { rounds: all, .. } = &mut self.act {
            *all = rounds;
        }
        self
    }

    pub(super) fn wants(mut self, want: Want) -> Self {
        self.want = want;
        self
    }

    pub(super) fn reply(self, bytes: impl AsRef<[u8]>) -> Self {
        self.wants(Want::Reply(bytes.as_ref().to_vec()))
    }

    /// A reply of 64-bit little endian numbers.
    pub(super) fn numbers(self, numbers: &[i64]) -> Self {
        self.reply(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
    }

    pub(super) fn replies_with(self, part: &str) -> Self {
        self.wants(Want::ReplyPart(part.to_owned()))
    }

    /// A reply that `read` makes `text` of.
    pub(super) fn reads(self, read: fn(&[u8]) -> String, text: impl ToString) -> Self {
        self.wants(Want::ReplyRead(read, text.to_string()))
    }

    pub(super) fn replies_bytes(self, bytes: usize) -> Self {
        self.wants(Want::ReplyBytes(bytes))
    }

    pub(super) fn error(self, code: &'static str, part: &str) -> Self {
        self.wants(Want::Error(code, part.to_owned()))
    }

    pub(super) fn refused(self, code: &'static str) -> Self {
        self.wants(Want::Refused(code, String::new()))
    }

    pub(super) fn waits(self) -> Self {
        self.wants(Want::Waiting)
    }
}
