//! What the attack suite and its two hostile programs agree on: which defences a program leaves out, orders and reports.
//!
//! The programs are started as the product's are, with no argument and no environment, and a worker under its lock reads
//! nothing before it is locked. So what one of them shall leave out stands in its image: the suite writes it there.

use sandbox_os::Layers;
use sandbox_os::filter::{Argument, LOAD, RUN, Rule};

/// Stands before the layers in the launcher's image.
pub const LAYERS_MARK: [u8; 16] = *b"layers to put on";
/// Stands before the plan in the worker's image.
pub const PLAN_MARK: [u8; 16] = *b"what I leave out";

/// Room for a plan in the worker's image.
pub const PLAN_BYTES: usize = 4;

/// What a worker does to itself: a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Own(u8);

impl Own {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// All of `lockdown::enter`: it refuses to go on unless the launcher has done its part.
    pub const ENTER: Self = Self(1);
    /// `lockdown::shut_clocks`.
    pub const CLOCKS: Self = Self(2);
    /// The LOAD filter.
    pub const LOAD: Self = Self(4);
    /// The RUN filter; with LOAD, all of `Locks::run`.
    pub const RUN: Self = Self(8);
    /// No memory becomes executable (a part of `Locks::run`, alone).
    pub const NO_EXEC_GAIN: Self = Self(16);
    /// Undumpable (a part of `lockdown::enter`, alone).
    pub const UNDUMPABLE: Self = Self(32);
    /// The real worker up to its LOAD lock.
    pub const REAL_LOAD: Self = Self(1 | 2 | 4);
    /// The real worker under its RUN lock.
    pub const REAL_RUN: Self = Self(1 | 2 | 4 | 8);

    /// Whether all of `other` are in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One of the worker's filters, changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// As in the product.
    None,
    /// A rule is missing.
    Without(List, u8),
    /// A rule lacks one of its conditions.
    Wider(List, u8, u8),
}

/// A list of the worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// LOAD.
    Load,
    /// RUN.
    Run,
}

impl List {
    /// Its rules.
    #[must_use]
    pub const fn rules(self) -> &'static [Rule] {
        match self {
            Self::Load => LOAD,
            Self::Run => RUN,
        }
    }

    /// Its rules with a change, or as they are if the change is of another list.
    #[must_use]
    pub fn changed(self, change: Change) -> Vec<Rule> {
        let (list, at, argument) = match change {
            Change::None => return copies(self.rules()),
            Change::Without(list, at) => (list, at, None),
            Change::Wider(list, at, argument) => (list, at, Some(usize::from(argument))),
        };
        let mut rules = copies(self.rules());
        if list != self {
            return rules;
        }
        let at = usize::from(at);
        match argument {
            None => {
                rules.remove(at);
            }
            Some(left_out) => {
                let arguments =
                    rules[at].arguments.iter().enumerate().filter(|(index, _)| *index != left_out);
                let arguments: Vec<Argument> = arguments.map(|(_, argument)| argument.clone()).collect();
                rules[at].arguments = arguments.leak();
            }
        }
        rules
    }
}

fn copies(rules: &[Rule]) -> Vec<Rule> {
    rules.to_vec()
}

/// What a worker does to itself, as it stands in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// What it does to itself.
    pub own: Own,
    /// What is changed in its filters.
    pub change: Change,
}

impl Plan {
    /// As bytes of the image.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PLAN_BYTES] {
        let list = |list| match list {
            List::Load => 0,
            List::Run => 1,
        };
        match self.change {
            Change::None => [self.own.0, 0, 0, 0],
            Change::Without(of, rule) => [self.own.0, 1 | list(of) << 4, rule, 0],
            Change::Wider(of, rule, argument) => [self.own.0, 2 | list(of) << 4, rule, argument],
        }
    }

    /// From the bytes of the image.
    #[must_use]
    pub fn from_bytes([own, kind, rule, argument]: [u8; PLAN_BYTES]) -> Self {
        let list = if kind >> 4 == 0 { List::Load } else { List::Run };
        let change = match kind & 15 {
            0 => Change::None,
            1 => Change::Without(list, rule),
            _ => Change::Wider(list, rule, argument),
        };
        Self { own: Own(own), change }
    }
}

/// Layers as they stand in the launcher's image.
#[must_use]
pub fn layers_from_bytes(bytes: [u8; 2]) -> Layers {
    Layers::from_bits(u16::from_le_bytes(bytes))
}

/// System calls, at most, in one [`Order::Calls`].
pub const CALLS_MAX: usize = 8;
/// Bytes of the buffer that calls write into, which comes back with the report.
pub const BUFFER_BYTES: usize = 4096;
/// Marks an argument that the worker fills in; no call takes such a number.
const FILLED_IN: u64 = 0x7EAD << 48;
const KIND: u64 = 0xFFFF << 32;
const TEXT: u64 = FILLED_IN;
const BUFFER: u64 = FILLED_IN | 1 << 32;
const RESULT: u64 = FILLED_IN | 2 << 32;

/// Argument: the address of byte `at` of the order's text.
#[must_use]
pub const fn text(at: usize) -> u64 {
    TEXT | at as u64
}

/// Argument: the address of byte `at` of the buffer.
#[must_use]
pub const fn buffer(at: usize) -> u64 {
    BUFFER | at as u64
}

/// Argument: what call `at` returned.
#[must_use]
pub const fn result(at: usize) -> u64 {
    RESULT | at as u64
}

/// What an argument means, given the two addresses and the results so far.
#[must_use]
pub fn fill_in(argument: u64, text: u64, buffer: u64, results: &[u64]) -> u64 {
    let at = argument & 0xFFFF_FFFF;
    match argument & (FILLED_IN | KIND) {
        TEXT => text + at,
        BUFFER => buffer + at,
        RESULT => results.get(at as usize).copied().unwrap_or(0),
        _ => argument,
    }
}

/// One system call: its number and its arguments.
pub type Call = [u64; 7];

/// A call of number `number`; arguments that are left out are zero.
#[must_use]
pub const fn call(number: libc::c_long, arguments: &[u64]) -> Call {
    let mut call = [number as u64, 0, 0, 0, 0, 0, 0];
    let mut at = 0;
    while at < arguments.len() {
        call[at + 1] = arguments[at];
        at += 1;
    }
    call
}

/// What the suite tells a worker to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The system calls one after the other, up to the first that fails.
    Calls {
        /// At most [`CALLS_MAX`].
        calls: Vec<Call>,
        /// Bytes that arguments point into.
        text: Vec<u8>,
    },
    /// A routine of the worker's own, by name.
    Routine {
        /// One of `attacks::ROUTINES`, at most [`NAME_BYTES`] bytes.
        name: String,
        /// What it needs to know.
        numbers: [u64; 4],
        /// What it needs to know.
        text: Vec<u8>,
    },
    /// On to the RUN lock.
    Run,
}

/// Bytes of a routine's name.
pub const NAME_BYTES: usize = 24;

impl Order {
    /// A routine that needs no text.
    #[must_use]
    pub fn routine(name: &str, numbers: [u64; 4]) -> Self {
        Self::Routine { name: name.to_owned(), numbers, text: Vec::new() }
    }

    /// As a packet.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        match self {
            Self::Run => packet.push(0),
            Self::Calls { calls, text } => {
                packet.extend([1, calls.len() as u8]);
                calls.iter().flatten().for_each(|number| packet.extend(number.to_le_bytes()));
                packet.extend(text);
            }
            Self::Routine { name, numbers, text } => {
                packet.push(2);
                packet.extend(name.as_bytes());
                packet.resize(1 + NAME_BYTES, 0);
                numbers.iter().for_each(|number| packet.extend(number.to_le_bytes()));
                packet.extend(text);
            }
        }
        packet
    }

    /// From a packet; `None` if it isn't an order.
    #[must_use]
    pub fn from_bytes(packet: &[u8]) -> Option<Self> {
        let (kind, rest) = packet.split_first()?;
        match kind {
            0 => Some(Self::Run),
            1 => {
                let (count, rest) = rest.split_first()?;
                let (calls, text) = rest.split_at_checked(usize::from(*count) * size_of::<Call>())?;
                let mut numbers = words(calls);
                let calls = (0..*count).map(|_| std::array::from_fn(|_| numbers.next().unwrap_or(0)));
                Some(Self::Calls { calls: calls.collect(), text: text.to_vec() })
            }
            2 => {
                let (name, rest) = rest.split_at_checked(NAME_BYTES)?;
                let (numbers, text) = rest.split_at_checked(4 * 8)?;
                let mut numbers = words(numbers);
                let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
                let numbers = std::array::from_fn(|_| numbers.next().unwrap_or(0));
                Some(Self::Routine { name, numbers, text: text.to_vec() })
            }
            _ => None,
        }
    }
}

/// Little-endian numbers of eight bytes.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

/// What a worker says of an order. Nobody has to believe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It worked. The results of the calls, or what the routine found.
    Done {
        /// One a call.
        results: Vec<u64>,
        /// The buffer, after calls.
        buffer: Vec<u8>,
    },
    /// The kernel refused one with this error number; zero: a routine found nothing.
    Refused(i32),
}

impl Report {
    /// As a packet.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Done { results, buffer } => {
                let mut packet = vec![0, results.len() as u8];
                results.iter().for_each(|number| packet.extend(number.to_le_bytes()));
                packet.extend(buffer);
                packet
            }
            Self::Refused(errno) => {
                let mut packet = vec![1];
                packet.extend(errno.to_le_bytes());
                packet
            }
        }
    }

    /// From a packet; `None` if it isn't a report.
    #[must_use]
    pub fn from_bytes(packet: &[u8]) -> Option<Self> {
        let (kind, rest) = packet.split_first()?;
        match kind {
            0 => {
                let (count, rest) = rest.split_first()?;
                let (results, buffer) = rest.split_at_checked(usize::from(*count) * 8)?;
                Some(Self::Done { results: words(results).collect(), buffer: buffer.to_vec() })
            }
            1 => Some(Self::Refused(i32::from_le_bytes(rest.try_into().ok()?))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_reports_and_plans_come_back_as_they_were_sent() {
        let calls =
            vec![call(libc::SYS_openat, &[0, text(3)]), call(libc::SYS_read, &[result(0), buffer(1)])];
        for order in [
            Order::Run,
            Order::Calls { calls, text: b"abc".to_vec() },
            Order::Routine { name: "scan".into(), numbers: [1, 2, 3, 4], text: b"abc".to_vec() },
        ] {
            assert_eq!(Order::from_bytes(&order.to_bytes()), Some(order));
        }
        for report in
            [Report::Refused(libc::EPERM), Report::Done { results: vec![1, 2], buffer: b"abc".to_vec() }]
        {
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
        for change in [Change::None, Change::Without(List::Run, 3), Change::Wider(List::Load, 2, 1)] {
            let plan = Plan { own: Own::REAL_RUN, change };
            assert_eq!(Plan::from_bytes(plan.to_bytes()), plan);
        }
    }

    #[test]
    fn arguments_are_filled_in_and_plain_numbers_are_left_alone() {
        let fill = |argument| fill_in(argument, 0x1000, 0x2000, &[7, 8]);
        assert_eq!([fill(text(3)), fill(buffer(1)), fill(result(1))], [0x1003, 0x2001, 8]);
        for plain in [0, u64::MAX, 1 << 63, (-100_i64) as u64] {
            assert_eq!(fill(plain), plain);
        }
    }
}
