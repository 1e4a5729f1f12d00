//! What a record says. These types are the format: a change of any is another [`super::VERSION`].

use std::borrow::Cow;
use std::sync::Arc;

use execution::{Ingress, Principal, SubnetConfig, UserError};
use serde::{Deserialize, Serialize};

use crate::Preset;
use crate::observation::{Failed, Observation, Refusal, escaped};

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// The first: which subnet.
    Head(Head),
    /// The operator made a canister, or was refused.
    Create {
        /// Controls it, besides the canister itself.
        creator: Principal,
        /// Its balance.
        cycles: u128,
        /// The canister, or why there is none.
        created: Result<Principal, Refusal>,
    },
    /// A user's message arrived. It is taken into the next round, unless it was refused.
    Submit {
        /// The message.
        #[serde(borrow)]
        message: Message<'a>,
        /// What became of it.
        admission: Admission,
    },
    /// A user asked a canister, between rounds; observations follow.
    Query {
        /// The question.
        #[serde(borrow)]
        message: Message<'a>,
    },
    /// A round began; observations follow.
    Round {
        /// Its time, nanoseconds since 1970-01-01.
        time: u64,
        /// Its random seed.
        seed: [u8; 32],
    },
    /// What the query or round before gave. [`Observation::is_last`] closes it.
    Observed(Observation),
    /// The last: the recording was ended in good order.
    End {
        /// Rounds recorded.
        rounds: u64,
        /// Users' messages recorded, refused ones included.
        messages: u64,
        /// Queries recorded.
        queries: u64,
    },
}

/// Which subnet, and what results depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the program that recorded.
    pub program: String,
    /// The preset.
    pub preset: Preset,
    /// What it stands for: every limit and price, a line each.
    pub configuration: String,
}

impl Head {
    /// The head of a log that this program writes of a subnet.
    #[must_use]
    pub fn new(preset: Preset) -> Self {
        Self {
            program: env!("CARGO_PKG_VERSION").into(),
            preset,
            configuration: configuration(&preset.config()),
        }
    }

    /// The first limit or price that isn't as here: what the log says and what is here.
    #[must_use]
    pub fn conflict(&self) -> Option<(String, String)> {
        let here = Self::new(self.preset).configuration;
        let mut pairs = (self.configuration.lines(), here.lines());
        loop {
            match (pairs.0.next(), pairs.1.next()) {
                (None, None) => return None,
                (recorded, here) if recorded == here => {}
                (recorded, here) => {
                    let shown =
                        |line: Option<&str>| line.map_or("nothing".to_owned(), |line| escaped(line.trim()));
                    return Some((shown(recorded), shown(here)));
                }
            }
        }
    }
}

/// What results depend on besides the input, as text to compare.
fn configuration(config: &SubnetConfig) -> String {
    // The key that signs for the root key is none of a log's business.
    let SubnetConfig {
        subnet_id,
        limits,
        first_canister,
        canisters_max,
        root_key,
        signer: _,
        provisional,
        admins,
        host_methods,
    } = config;
    let admins: Vec<String> = admins.iter().map(Principal::to_text).collect();
    format!(
        "subnet_id: {subnet_id}\nfirst_canister: {first_canister}\ncanisters_max: {canisters_max}\nroot_key: {}\nprovisional: {provisional}\nadmins: {admins:?}\nhost_methods: {host_methods:?}\n{limits:#?}",
        hex::encode(root_key)
    )
}

/// A message of a user: all that its id is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// Who sends.
    pub sender: Principal,
    /// Who receives.
    pub receiver: Principal,
    /// Method name.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// Argument.
    #[serde(with = "serde_bytes", borrow)]
    pub arg: Cow<'a, [u8]>,
    /// Makes equal messages different ones; empty in queries.
    #[serde(with = "serde_bytes", borrow)]
    pub nonce: Cow<'a, [u8]>,
}

impl<'a> From<&'a Ingress> for Message<'a> {
    fn from(ingress: &'a Ingress) -> Self {
        let Ingress { sender, receiver, method, arg, nonce } = ingress;
        Self {
            sender: *sender,
            receiver: *receiver,
            method: method.into(),
            arg: Cow::Borrowed(&**arg),
            nonce: nonce.into(),
        }
    }
}

impl From<Message<'_>> for Ingress {
    fn from(message: Message<'_>) -> Self {
        let Message { sender, receiver, method, arg, nonce } = message;
        Self {
            sender,
            receiver,
            method: method.into_owned(),
            arg: Arc::from(&*arg),
            nonce: nonce.into_owned(),
        }
    }
}

/// Whether a message was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// Yes.
    Taken,
    /// No, and nothing was changed.
    Refused(Refusal),
}

impl Admission {
    /// What the node could not do, if that is why it refused.
    pub(crate) fn failed(&self) -> Option<Failed> {
        match self {
            Self::Taken => None,
            Self::Refused(refusal) => Failed::unless_of_subnet("inspect a message", refusal),
        }
    }
}

impl<T> From<&Result<T, UserError>> for Admission {
    fn from(result: &Result<T, UserError>) -> Self {
        match result {
            Ok(_) => Self::Taken,
            Err(error) => Self::Refused(error.into()),
        }
    }
}
