//! The load's canisters, the messages they get, and the books that show what was lost or applied twice.

use std::collections::BTreeMap;

use candid::{CandidType, Decode, Encode, Nat};
use execution::Principal;
use serde::Deserialize;

/// A canister of the load.
pub(crate) struct Shipped {
    /// Name in the output.
    pub(crate) name: &'static str,
    /// The built module.
    pub(crate) module: &'static [u8],
    /// Argument of its init.
    pub(crate) init: fn() -> Vec<u8>,
}

macro_rules! module {
    ($path:literal) => {
        include_bytes!(concat!("../../../tests/canisters/", $path))
    };
}

/// All canisters, in the order in which they are created.
pub(crate) const SHIPPED: [Shipped; 11] = [
    Shipped { name: "counter (C)", module: module!("c/counter.wasm"), init: no_argument },
    Shipped { name: "counter (Motoko)", module: module!("motoko/Counter-classic.wasm"), init: no_argument },
    Shipped {
        name: "counter (Motoko, 64-bit)",
        module: module!("motoko/Counter-eop.wasm"),
        init: no_argument,
    },
    Shipped { name: "ledger (Motoko)", module: module!("motoko/Ledger-classic.wasm"), init: token_argument },
    Shipped {
        name: "ledger (Motoko, 64-bit)",
        module: module!("motoko/Ledger-eop.wasm"),
        init: token_argument,
    },
    Shipped { name: "caller (Motoko)", module: module!("motoko/Peer-classic.wasm"), init: no_argument },
    Shipped { name: "callee (Motoko, 64-bit)", module: module!("motoko/Peer-eop.wasm"), init: no_argument },
    Shipped { name: "key-value store (Rust)", module: module!("rust/kv.wasm"), init: store_argument },
    Shipped { name: "ledger (Rust)", module: module!("rust/ledger.wasm"), init: supply_argument },
    Shipped { name: "caller (Rust)", module: module!("rust/caller.wasm"), init: no_argument },
    Shipped { name: "callee (Rust)", module: module!("rust/caller.wasm"), init: no_argument },
];

const SUPPLY: u64 = 1_000_000_000;

fn no_argument() -> Vec<u8> {
    encode(Encode!())
}

fn token_argument() -> Vec<u8> {
    encode(Encode!(&"DEMO", &Nat::from(SUPPLY)))
}

fn store_argument() -> Vec<u8> {
    encode(Encode!(&Some("demo")))
}

fn supply_argument() -> Vec<u8> {
    encode(Encode!(&Nat::from(SUPPLY)))
}

fn encode(encoded: candid::Result<Vec<u8>>) -> Vec<u8> {
    encoded.expect("numbers, texts and principals encode")
}

/// What is asked of a canister, again and again. Each asks for something of which the canister's state
/// keeps count, so that what was applied can be told from what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// `add(1)` of nat64: replies the new total.
    Add64,
    /// `add(1)` of nat: replies the new total.
    Add,
    /// Motoko ledger: replies the new height.
    Transfer,
    /// Rust ledger: replies the number of the transfer.
    TransferRust,
    /// A call to another canister, which replies its new total.
    FanOut,
    /// A key of its own for each message: replies what was there, so nothing.
    Put,
    /// A bounded-wait call to another canister, which counts the visit.
    Ping,
}

/// A canister that gets messages, the one that keeps the count, and how that is read.
struct Flow {
    work: Work,
    receiver: usize,
    counter: usize,
    count_method: &'static str,
}

const FLOWS: [Flow; 9] = [
    Flow { work: Work::Add64, receiver: 0, counter: 0, count_method: "get" },
    Flow { work: Work::Add, receiver: 1, counter: 1, count_method: "get" },
    Flow { work: Work::Add, receiver: 2, counter: 2, count_method: "get" },
    Flow { work: Work::Transfer, receiver: 3, counter: 3, count_method: "height" },
    Flow { work: Work::Transfer, receiver: 4, counter: 4, count_method: "height" },
    Flow { work: Work::FanOut, receiver: 5, counter: 6, count_method: "get" },
    Flow { work: Work::Put, receiver: 7, counter: 7, count_method: "writes" },
    Flow { work: Work::TransferRust, receiver: 8, counter: 8, count_method: "transfers" },
    Flow { work: Work::Ping, receiver: 9, counter: 10, count_method: "visits" },
];

/// A message of the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The canister that gets it.
    pub(crate) receiver: Principal,
    /// Method name.
    pub(crate) method: &'static str,
    /// Argument.
    pub(crate) arg: Vec<u8>,
}

/// The books: what each flow was sent and answered, against what its canister counted.
pub(crate) struct Workload {
    canisters: Vec<Principal>,
    flows: [Account; FLOWS.len()],
}

#[derive(Clone, Debug, Default)]
struct Account {
    initial: u64,
    sent: u64,
    answered: u64,
    refused: u64,
    repeated: u64,
    seen: Seen,
}

/// Numbers seen, as ranges: those of a flow follow one another, so that few are kept however many were seen.
#[derive(Clone, Debug, Default)]
struct Seen(BTreeMap<u64, u64>);

impl Seen {
    /// False: it was seen before.
    fn insert(&mut self, number: u64) -> bool {
        let below = self.0.range(..=number).next_back().map(|(&first, &last)| (first, last));
        if below.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let first = below.filter(|(_, last)| last + 1 == number).map_or(number, |(first, _)| first);
        let last = number.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(number);
        self.0.insert(first, last);
        true
    }
}

/// What became of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    /// Messages that the node took.
    pub(crate) sent: u64,
    /// Messages that were answered with a reply.
    pub(crate) answered: u64,
    /// Messages that were answered with a reject.
    pub(crate) rejected: u64,
    /// Messages without an answer, or answered and missing from the canister's state.
    pub(crate) lost: u64,
    /// Applications that the canisters counted beyond one for each answered message.
    pub(crate) applied_twice: u64,
}

/// Reads a canister's count.
pub(crate) type ReadCount<'a> = &'a dyn Fn(Principal, &str) -> Result<Vec<u8>, String>;

impl Workload {
    /// Opens the books, with the counts as they stand before the first message.
    ///
    /// # Errors
    /// A count can't be read.
    pub(crate) fn new(canisters: Vec<Principal>, read: ReadCount<'_>) -> Result<Self, String> {
        let mut flows: [Account; FLOWS.len()] = std::array::from_fn(|_| Account::default());
        for (account, flow) in flows.iter_mut().zip(&FLOWS) {
            account.initial = read_count(canisters[flow.counter], flow, read)?;
        }
        Ok(Self { canisters, flows })
    }

    /// The message with number `index`: the same for every run.
    pub(crate) fn message(&self, index: u64) -> Message {
        let flow = &FLOWS[Self::flow_of(index)];
        let one = Nat::from(1_u8);
        let beneficiary = Principal::management_canister();
        let peer = self.canisters[flow.counter];
        let (method, arg) = match flow.work {
            Work::Add64 => ("add", Encode!(&1_u64)),
            Work::Add => ("add", Encode!(&one)),
            Work::Transfer => ("transfer", Encode!(&beneficiary, &one, &index)),
            Work::TransferRust => ("transfer", Encode!(&beneficiary, &one)),
            Work::FanOut => ("fanOut", Encode!(&peer, &one)),
            Work::Put => {
                let value = serde_bytes::ByteBuf::from(index.to_be_bytes());
                ("put", Encode!(&format!("message {index}"), &value))
            }
            Work::Ping => ("ping", Encode!(&peer, &1_u64)),
        };
        Message { receiver: self.canisters[flow.receiver], method, arg: encode(arg) }
    }

    fn flow_of(index: u64) -> usize {
        usize::try_from(index % FLOWS.len() as u64).expect("fewer flows than a usize holds")
    }

    /// Notes that the node took message `index`.
    pub(crate) fn sent(&mut self, index: u64) {
        self.flows[Self::flow_of(index)].sent += 1;
    }

    /// Notes the answer to message `index`: its reply, or `None` where it was rejected.
    pub(crate) fn answered(&mut self, index: u64, reply: Option<&[u8]>) {
        let flow = Self::flow_of(index);
        let account = &mut self.flows[flow];
        match reply.and_then(|reply| Mark::read(FLOWS[flow].work, reply)) {
            Some(Mark::Number(number)) => {
                account.answered += 1;
                account.repeated += u64::from(!account.seen.insert(number));
            }
            Some(Mark::Fresh) => account.answered += 1,
            Some(Mark::Repeated) => {
                account.answered += 1;
                account.repeated += 1;
            }
            None => account.refused += 1,
        }
    }

    /// Closes the books: reads what the canisters counted.
    ///
    /// # Errors
    /// A count can't be read.
    pub(crate) fn close(&self, read: ReadCount<'_>) -> Result<Counts, String> {
        let mut counts = Counts::default();
        for (account, flow) in self.flows.iter().zip(&FLOWS) {
            let applied =
                read_count(self.canisters[flow.counter], flow, read)?.saturating_sub(account.initial);
            counts.sent += account.sent;
            counts.answered += account.answered;
            counts.rejected += account.refused;
            counts.lost += account.sent.saturating_sub(account.answered + account.refused);
            counts.lost += account.answered.saturating_sub(applied);
            counts.applied_twice += applied.saturating_sub(account.answered).max(account.repeated);
        }
        Ok(counts)
    }
}

/// What a reply says of the message having been applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// A number that no other reply of this flow may hold.
    Number(u64),
    /// Nothing says that it was applied before.
    Fresh,
    /// It had been applied before.
    Repeated,
}

#[derive(CandidType, Deserialize)]
enum Receipt {
    #[serde(rename = "ok")]
    Ok(Nat),
    #[serde(rename = "err")]
    Err(candid::Reserved),
}

#[derive(CandidType, Deserialize)]
enum ReceiptRust {
    Ok(u64),
    Err(candid::Reserved),
}

impl Mark {
    /// `None` when the reply isn't what the canister says for success.
    fn read(work: Work, reply: &[u8]) -> Option<Self> {
        let number = |value: &Nat| u64::try_from(&value.0).ok().map(Self::Number);
        match work {
            Work::Add64 => Decode!(reply, u64).ok().map(Self::Number),
            Work::Add | Work::FanOut => Decode!(reply, Nat).ok().as_ref().and_then(number),
            Work::Transfer => match Decode!(reply, Receipt).ok()? {
                Receipt::Ok(height) => number(&height),
                Receipt::Err(_) => None,
            },
            Work::TransferRust => match Decode!(reply, ReceiptRust).ok()? {
                ReceiptRust::Ok(height) => Some(Self::Number(height)),
                ReceiptRust::Err(_) => None,
            },
            Work::Put => {
                let before = Decode!(reply, Option<serde_bytes::ByteBuf>).ok()?;
                Some(if before.is_none() { Self::Fresh } else { Self::Repeated })
            }
            Work::Ping => (Decode!(reply, u64).ok()? == 1).then_some(Self::Fresh),
        }
    }
}

fn read_count(counter: Principal, flow: &Flow, read: ReadCount<'_>) -> Result<u64, String> {
    let reply = read(counter, flow.count_method)?;
    let wrong = || format!("{counter} answered `{}` with something that is no number", flow.count_method);
    match flow.work {
        Work::Add64 | Work::Put | Work::TransferRust | Work::Ping => {
            Decode!(&reply, u64).map_err(|_| wrong())
        }
        Work::Add | Work::Transfer | Work::FanOut => {
            let count = Decode!(&reply, Nat).map_err(|_| wrong())?;
            u64::try_from(&count.0).map_err(|_| wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canister(index: usize) -> Principal {
        Principal::from_slice(&[u8::try_from(index).unwrap(); 10])
    }

    /// What the canisters answer when the first flow's one counted `total` and the others nothing.
    fn counted(total: u64) -> impl Fn(Principal, &str) -> Result<Vec<u8>, String> {
        move |asked, _method| {
            let flow = FLOWS.iter().find(|flow| canister(flow.counter) == asked).unwrap();
            Ok(match flow.work {
                Work::Add | Work::Transfer | Work::FanOut => Encode!(&Nat::from(0_u8)).unwrap(),
                Work::TransferRust | Work::Put | Work::Ping => Encode!(&0_u64).unwrap(),
                Work::Add64 => Encode!(&total).unwrap(),
            })
        }
    }

    fn books() -> Workload {
        Workload::new((0..SHIPPED.len()).map(canister).collect(), &counted(0)).unwrap()
    }

    #[test]
    fn a_message_without_an_answer_is_lost() {
        let (mut books, read) = (books(), counted(0));
        books.sent(0);
        let counts = books.close(&read).unwrap();
        assert_eq!((counts.sent, counts.answered, counts.lost, counts.applied_twice), (1, 0, 1, 0));
    }

    #[test]
    fn an_answer_that_the_state_forgot_is_lost() {
        let (mut books, read) = (books(), counted(0));
        books.sent(0);
        books.answered(0, Some(&Encode!(&1_u64).unwrap()));
        assert_eq!(books.close(&read).unwrap().lost, 1);
    }

    #[test]
    fn a_count_above_the_answers_is_applied_twice() {
        let (mut books, read) = (books(), counted(2));
        books.sent(0);
        books.answered(0, Some(&Encode!(&2_u64).unwrap()));
        let counts = books.close(&read).unwrap();
        assert_eq!((counts.lost, counts.applied_twice), (0, 1));
    }

    #[test]
    fn equal_answers_to_two_messages_are_told() {
        let (mut books, read) = (books(), counted(2));
        for index in [0, FLOWS.len() as u64] {
            books.sent(index);
            books.answered(index, Some(&Encode!(&1_u64).unwrap()));
        }
        assert_eq!(books.close(&read).unwrap().applied_twice, 1);
    }

    #[test]
    fn each_number_is_new_once_and_neighbours_take_one_place() {
        let mut seen = Seen::default();
        for number in [5, 3, 4, 9, u64::MAX] {
            assert!(seen.insert(number), "{number}");
            assert!(!seen.insert(number), "{number}");
        }
        assert_eq!(seen.0, BTreeMap::from([(3, 5), (9, 9), (u64::MAX, u64::MAX)]));
    }

    #[test]
    fn messages_differ_by_their_number_alone() {
        let books = books();
        let put = 6;
        assert_eq!(books.message(put), books.message(put));
        assert_ne!(books.message(put).arg, books.message(put + FLOWS.len() as u64).arg);
    }
}
