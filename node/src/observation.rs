//! What a round or a query gave, in the order in which it did: recorded in a log, and compared by a replay.
//!
//! Equal subnets give equal observations, in whatever modes they run; each is small, whatever a canister answers.

mod excerpt;
mod run;

use std::fmt;

use execution::{Cycles, ErrorCode, Failure, IngressStatus, Principal, UserError};
use serde::{Deserialize, Serialize};

pub use excerpt::Excerpt;
pub(crate) use excerpt::escaped;
pub use run::{Effects, Ended, Run};

/// One of the things that a round or query gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// An entry point ran.
    Run(Box<Run>),
    /// A user's message was answered. `message` is its number in the log, from 1.
    Answered {
        /// Which.
        message: u64,
        /// How.
        answer: Answer,
    },
    /// How a canister that ran stood after the round.
    Canister {
        /// Which; `None` for one that is gone.
        id: Principal,
        /// Its version and cycles; `None`: it was deleted.
        after: Option<After>,
    },
    /// The node could not run a canister in this round: what follows may be in other rounds than elsewhere.
    Failed {
        /// The canister.
        canister: Principal,
        /// Why, as the node said it.
        cause: String,
    },
    /// The last of a round: the state root after it.
    Root([u8; 32]),
    /// The last of a query.
    QueryAnswered(Answer),
}

/// What is seen of a canister besides its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// `canister_version`.
    pub version: u64,
    /// Balance.
    pub cycles: Cycles,
}

/// What a user was told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A reply.
    Reply(Excerpt),
    /// A reject or an error.
    Rejected(Refusal),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(data) => write!(f, "reply {data:?}"),
            Self::Rejected(refusal) => write!(f, "{refusal:?}"),
        }
    }
}

/// An error code and its text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The number of the code.
    pub code: u16,
    /// The text.
    pub text: Excerpt,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", ErrorCode(self.code), self.text)
    }
}

impl From<&UserError> for Refusal {
    fn from(error: &UserError) -> Self {
        Self { code: error.code.0, text: Excerpt::of(error.description.as_bytes()) }
    }
}

impl Refusal {
    /// Whether the node could not run what it was asked, which says nothing of the subnet.
    #[must_use]
    pub fn is_of_node(&self) -> bool {
        UserError::is_of_node(ErrorCode(self.code), &self.text.start)
    }
}

/// What a node could not do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// As in `could not run canister ...`.
    pub(crate) what: String,
    /// As it goes to a terminal.
    pub(crate) cause: String,
}

impl Failed {
    /// `what` was refused, if the node did that and not the subnet.
    pub(crate) fn unless_of_subnet(what: &str, refusal: &Refusal) -> Option<Self> {
        let cause = || escaped(&String::from_utf8_lossy(&refusal.text.start));
        refusal.is_of_node().then(|| Self { what: what.to_owned(), cause: cause() })
    }
}

impl Answer {
    /// The answer to a message; `None` while there is none.
    #[must_use]
    pub fn of(status: &IngressStatus) -> Option<Self> {
        match status {
            IngressStatus::Replied(data) => Some(Self::Reply(Excerpt::of(data))),
            IngressStatus::Rejected(error) => Some(Self::Rejected(error.into())),
            IngressStatus::Unknown
            | IngressStatus::Received
            | IngressStatus::Processing
            | IngressStatus::Done => None,
        }
    }
}

/// The first way in which two sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The value of the one side and of the other, shortened.
    pub values: [String; 2],
    /// Which page it is, where it is one.
    pub page: Option<(Space, u64)>,
}

/// A memory of a canister.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Wasm heap.
    Heap,
    /// Stable memory.
    Stable,
}

impl Space {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Heap, Self::Stable];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Stable => "stable memory",
        }
    }
}

impl Field {
    /// A field with its two values, as their `Debug` shows them.
    pub fn new(name: impl Into<String>, left: &dyn fmt::Debug, right: &dyn fmt::Debug) -> Self {
        Self::of(name, [excerpt::shown(left), excerpt::shown(right)])
    }

    /// A field with texts for its values.
    pub(crate) fn of(name: impl Into<String>, values: [String; 2]) -> Self {
        Self { name: name.into(), values, page: None }
    }

    /// The field, if the values differ.
    pub fn unless_equal<T: PartialEq + fmt::Debug>(
        name: impl Into<String>,
        left: &T,
        right: &T,
    ) -> Option<Self> {
        (left != right).then(|| Self::new(name, left, right))
    }
}

impl Observation {
    /// Name of the field that is the state root.
    pub const ROOT: &'static str = "state root";

    /// Whether it closes what ran.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Root(_) | Self::QueryAnswered(_))
    }

    /// Whether a round may give it.
    #[must_use]
    pub fn is_of_round(&self) -> bool {
        !matches!(self, Self::QueryAnswered(_))
    }

    /// Whether a query may give it.
    #[must_use]
    pub fn is_of_query(&self) -> bool {
        matches!(self, Self::Run(_) | Self::QueryAnswered(_))
    }

    /// What the node could not do, if it says that.
    pub(crate) fn failed(&self) -> Option<Failed> {
        match self {
            Self::Failed { canister, cause } => {
                Some(Failed { what: format!("run canister {canister}"), cause: escaped(cause) })
            }
            Self::QueryAnswered(Answer::Rejected(refusal)) => {
                Failed::unless_of_subnet("answer a query", refusal)
            }
            _ => None,
        }
    }

    /// The first field in which they differ.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<Field> {
        if self == other {
            return None;
        }
        match (self, other) {
            (Self::Run(left), Self::Run(right)) => left.difference(right),
            (Self::Answered { message, answer }, Self::Answered { message: m, answer: a })
                if message == m =>
            {
                Field::unless_equal("answer", answer, a)
            }
            (Self::QueryAnswered(left), Self::QueryAnswered(right)) => {
                Field::unless_equal("answer", left, right)
            }
            (Self::Canister { id, after: Some(left) }, Self::Canister { id: other, after: Some(right) })
                if id == other =>
            {
                Field::unless_equal("version", &left.version, &right.version)
                    .or_else(|| Field::unless_equal("cycles", &left.cycles, &right.cycles))
            }
            (Self::Root(left), Self::Root(right)) => {
                Some(Field::of(Self::ROOT, [left, right].map(hex::encode)))
            }
            (left, right) => Some(Field::new("what happened", &Shown(left), &Shown(right))),
        }
    }
}

impl From<&Failure> for Observation {
    fn from(failure: &Failure) -> Self {
        Self::Failed { canister: failure.canister, cause: failure.error.clone() }
    }
}

/// An observation as a person would call it.
struct Shown<'a>(&'a Observation);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Observation::Run(run) => write!(f, "{run} ran"),
            Observation::Answered { message, answer } => {
                write!(f, "message {message} was answered: {answer:?}")
            }
            Observation::Canister { id, after } => write!(f, "canister {id} was left with {after:?}"),
            Observation::Failed { canister, cause } => {
                write!(f, "canister {canister} could not run: {}", escaped(cause))
            }
            Observation::Root(_) => f.write_str("the round was over"),
            Observation::QueryAnswered(_) => f.write_str("the query was over"),
        }
    }
}
