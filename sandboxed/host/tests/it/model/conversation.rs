//! The reference: canisters as vectors of bytes, and what may be asked of them. It knows nothing of workers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

pub(super) const CANISTERS: usize = 3;
/// 4 KiB pages in a 64 KiB page.
pub(super) const PAGES: u64 = 16;
/// Largest heap of [`crate::peer::snapshot`], 64 KiB pages.
const HEAP_PAGES_MAX: u64 = 4;

/// A canister as its users know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Canister {
    /// Size of the heap, 64 KiB pages.
    pub(super) heap_pages: u64,
    /// First bytes of the 4 KiB pages that were written.
    pub(super) heap: BTreeMap<u64, u8>,
    /// Its one global: how many messages it has kept.
    pub(super) global: i32,
    /// A message that has paused, and how often.
    pub(super) in_hand: Option<(Message, u8)>,
}

/// What a message does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) writes: Vec<(u64, u8)>,
    pub(super) grows: bool,
    pub(super) traps: bool,
    pub(super) pauses: u8,
    /// Whether the node commits what comes of it, or gives it up.
    pub(super) committed: bool,
}

/// A step of the conversation: what the node asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Begin,
    Load,
    Lock,
    Execute,
    Resume,
    Pages,
}

pub(super) const STEPS: [Step; 6] =
    [Step::Begin, Step::Load, Step::Lock, Step::Execute, Step::Resume, Step::Pages];

/// How a worker answers, if not as a correct one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deviation {
    Dies,
    DiesInsideAFrame,
    /// Answers when the node has given up waiting.
    Late,
    Truncated,
    LongerThanAFrame,
    LongerThanAPacket,
    Undecodable,
    /// The right answer with another nonce, execution or worker.
    OtherNonce,
    OtherExecution,
    OtherWorker,
    /// The right answer, with what the node last asked another worker.
    OfAnotherWorker,
    /// What it had answered before.
    Stale,
    WrongKind,
    Twice,
    AnswersAndDies,
    SaysThatItFailed,
    /// Right in form and false in content; the number says how.
    Lie(u8),
}

/// Numbers of [`Deviation::Lie`].
pub(super) const LIES: u8 = 12;

pub(super) const DEVIATIONS: [Deviation; 16] = [
    Deviation::Dies,
    Deviation::DiesInsideAFrame,
    Deviation::Late,
    Deviation::Truncated,
    Deviation::LongerThanAFrame,
    Deviation::LongerThanAPacket,
    Deviation::Undecodable,
    Deviation::OtherNonce,
    Deviation::OtherExecution,
    Deviation::OtherWorker,
    Deviation::OfAnotherWorker,
    Deviation::Stale,
    Deviation::WrongKind,
    Deviation::Twice,
    Deviation::AnswersAndDies,
    Deviation::SaysThatItFailed,
];

/// What the next worker does that comes to a step.
pub(super) type Plan = Option<(Step, Deviation)>;

#[derive(Clone, Debug)]
pub(super) enum Transition {
    Message { canister: usize, message: Message, plan: Plan },
    Resume { canister: usize, plan: Plan },
    Abort { canister: usize },
    Query { canister: usize, plan: Plan },
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) canisters: Vec<Canister>,
    /// Whether the node waits long enough for any machine; where not, workers may be late.
    pub(super) patient: bool,
    /// Whether the node may read a worker's memory.
    pub(super) readable: bool,
}

impl Canister {
    /// What it is after a message that is kept.
    fn after(&self, message: &Message) -> Self {
        let mut after = Self { in_hand: None, ..self.clone() };
        if !message.traps {
            after.heap_pages += u64::from(message.grows);
            after.heap.extend(message.writes.iter().copied());
            after.global += 1;
        }
        after
    }

    /// A message goes on.
    fn run(&mut self, message: &Message, paused: u8) {
        if paused < message.pauses {
            self.in_hand = Some((message.clone(), paused + 1));
        } else if message.committed {
            *self = self.after(message);
        } else {
            self.in_hand = None;
        }
    }
}

fn message(grows: bool) -> impl Strategy<Value = Message> {
    let writes = proptest::collection::btree_map(0..PAGES, any::<u8>(), 0..5);
    (writes, any::<bool>(), 0..5_u8, 0..6_u8, 0..5_u8).prop_map(
        move |(writes, more, trap, pauses, given_up)| Message {
            writes: writes.into_iter().collect(),
            grows: grows && more,
            traps: trap == 0,
            pauses: pauses.saturating_sub(3),
            committed: given_up > 0,
        },
    )
}

fn plan(patient: bool) -> impl Strategy<Value = Plan> {
    // A patient node would wait long for one that is late.
    let others = DEVIATIONS.iter().copied().filter(|deviation| *deviation != Deviation::Late);
    let deviation = prop_oneof![
        u32::from(!patient) => Just(Deviation::Late),
        4 => proptest::sample::select(others.collect::<Vec<_>>()),
        1 => (0..LIES).prop_map(Deviation::Lie),
    ];
    proptest::option::weighted(0.6, (proptest::sample::select(&STEPS[..]), deviation))
}

/// The reference state machine.
pub(super) struct Conversation;

impl ReferenceStateMachine for Conversation {
    type State = State;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<State> {
        let canister = Canister { heap_pages: 1, heap: BTreeMap::new(), global: 0, in_hand: None };
        (0..5_u8, any::<bool>())
            .prop_map(move |(patient, readable)| State {
                canisters: vec![canister.clone(); CANISTERS],
                patient: patient > 0,
                readable,
            })
            .boxed()
    }

    fn transitions(state: &State) -> BoxedStrategy<Transition> {
        let canisters = state.canisters.clone();
        let patient = state.patient;
        (0..CANISTERS)
            .prop_flat_map(move |canister| {
                let query = plan(patient).prop_map(move |plan| Transition::Query { canister, plan });
                let of = &canisters[canister];
                if of.in_hand.is_some() {
                    let resume = plan(patient).prop_map(move |plan| Transition::Resume { canister, plan });
                    prop_oneof![5 => resume, 1 => Just(Transition::Abort { canister }), 2 => query].boxed()
                } else {
                    let message = (message(of.heap_pages < HEAP_PAGES_MAX), plan(patient));
                    let message = message.prop_map(move |(message, plan)| Transition::Message {
                        canister,
                        message,
                        plan,
                    });
                    prop_oneof![4 => message, 1 => query].boxed()
                }
            })
            .boxed()
    }

    fn preconditions(state: &State, transition: &Transition) -> bool {
        match transition {
            Transition::Message { canister, message, .. } => {
                let of = &state.canisters[*canister];
                of.in_hand.is_none() && !(message.grows && of.heap_pages == HEAP_PAGES_MAX)
            }
            Transition::Resume { canister, .. } | Transition::Abort { canister } => {
                state.canisters[*canister].in_hand.is_some()
            }
            Transition::Query { .. } => true,
        }
    }

    /// However workers behave, a message ends as it does with correct ones.
    fn apply(mut state: State, transition: &Transition) -> State {
        match transition {
            Transition::Message { canister, message, .. } => state.canisters[*canister].run(message, 0),
            Transition::Resume { canister, .. } => {
                let of = &mut state.canisters[*canister];
                if let Some((message, paused)) = of.in_hand.take() {
                    of.run(&message, paused);
                }
            }
            Transition::Abort { canister } => state.canisters[*canister].in_hand = None,
            Transition::Query { .. } => {}
        }
        state
    }
}
