//! Feeds a log to one node or two, and finds the first thing that they don't do alike.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::time::Duration;

use execution::{Ingress, Principal, RoundReport};
use rollout::ShadowCounts;

use super::states;
use crate::Node;
use crate::log::{Admission, Entry, LogError, Message, Reader};
use crate::observation::{Failed, Field, Observation, Refusal, escaped};

/// How long a round's comparisons in shadow are waited for.
const SHADOW_PATIENCE: Duration = Duration::from_secs(60);

/// How a replay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was the same.
    Equal,
    /// Something was not; what came later was not run.
    Different(Box<Difference>),
    /// A node could not do what the log asks for; what came before was the same.
    Undecided(String),
}

/// The first difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Number of the round that it is in, or that the round before has; from 1.
    pub round: u64,
    /// Number of the run of an entry point, from 1 over the whole log; `None`: it isn't in a run.
    pub run: Option<u64>,
    /// Number of the user's message, from 1; `None`: it isn't in its admission or answer.
    pub message: Option<u64>,
    /// The canister, where it is in one.
    pub canister: Option<Principal>,
    /// The method, where it is in one.
    pub method: Option<String>,
    /// What it is in, as a person would call it.
    pub what: String,
    /// What differs.
    pub field: Field,
    /// Whose the values are.
    pub names: [String; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round, what, field, names, .. } = self;
        write!(f, "in round {round}, {what}: {} is {} (", field.name, field.values[0])?;
        write!(f, "{}) and {} ({})", names[0], field.values[1], names[1])
    }
}

/// What was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rounds.
    pub rounds: u64,
    /// Users' messages.
    pub messages: u64,
    /// Those of them that were refused.
    pub refused: u64,
    /// Queries.
    pub queries: u64,
    /// Runs of entry points.
    pub runs: u64,
}

/// A replay in progress.
pub struct Play {
    node: Node,
    other: Option<Node>,
    names: [String; 2],
    counts: Counts,
    /// Users' messages that wait for their answer, by number.
    waiting: HashMap<u64, (Principal, String)>,
    /// What the node gave in the round or query, and the log has not told of yet, last first.
    untold: Vec<Observation>,
    /// Whether a node in shadow has to have compared every run.
    compares_shadow: bool,
}

impl Play {
    /// Compares a fresh node, which is called `name`, with what the log says of the one that recorded it.
    #[must_use]
    pub fn beside_recording(node: Node, name: &str) -> Self {
        Self::new(node, None, ["recorded".to_owned(), name.to_owned()])
    }

    /// Brings a fresh node, which is called `name`, to where the log ends, comparing it with the recording. In shadow,
    /// the candidates' outcomes count for nothing.
    #[must_use]
    pub fn recovering(node: Node, name: &str) -> Self {
        Self { compares_shadow: false, ..Self::beside_recording(node, name) }
    }

    /// Compares two fresh nodes with each other.
    #[must_use]
    pub fn beside(node: Node, other: Node, names: [String; 2]) -> Self {
        Self::new(node, Some(other), names)
    }

    fn new(mut node: Node, mut other: Option<Node>, names: [String; 2]) -> Self {
        node.watch();
        other.iter_mut().for_each(Node::watch);
        let (counts, waiting, untold) = (Counts::default(), HashMap::new(), Vec::new());
        Self { node, other, names, counts, waiting, untold, compares_shadow: true }
    }

    /// Replays the records before offset `until`, or all of them. Canister code runs on this thread, which needs a
    /// stack of [`execution::EXECUTOR_STACK_BYTES`].
    ///
    /// # Errors
    /// The log can't be read on.
    pub fn run(&mut self, log: &mut Reader<impl Read>, until: Option<u64>) -> Result<Verdict, LogError> {
        self.run_while(log, until, |_, _| true)
    }

    /// As [`Play::run`], and shows `goes_on` every record with the node as it is before; false ends it, undecided.
    ///
    /// # Errors
    /// The log can't be read on.
    pub fn run_while(
        &mut self,
        log: &mut Reader<impl Read>,
        until: Option<u64>,
        mut goes_on: impl FnMut(&Node, &Entry<'_>) -> bool,
    ) -> Result<Verdict, LogError> {
        while until.is_none_or(|until| log.offset() < until) {
            let Some(entry) = log.read()? else { break };
            if !goes_on(&self.node, &entry) {
                return Ok(Verdict::Undecided(format!("stopped after round {}", self.counts.rounds)));
            }
            if let Some(verdict) = self.step(entry) {
                return Ok(verdict);
            }
        }
        Ok(self.shadow(None).or_else(|| self.not_compared()).unwrap_or(Verdict::Equal))
    }

    /// What was replayed so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The node that was played on.
    #[must_use]
    pub fn into_node(self) -> Node {
        self.node
    }

    /// The nodes; the second is the one that the first is compared with.
    pub fn nodes(&mut self) -> (&mut Node, Option<&mut Node>) {
        (&mut self.node, self.other.as_mut())
    }

    fn step(&mut self, entry: Entry<'_>) -> Option<Verdict> {
        match entry {
            Entry::Head(_) | Entry::End { .. } => None,
            Entry::Create { creator, cycles, created } => self.create(creator, cycles, created),
            Entry::Submit { message, admission } => self.submit(message, admission),
            Entry::Query { message } => self.query(&message),
            Entry::Round { time, seed } => self.round(time, seed),
            Entry::Observed(told) => self.told(told),
        }
    }

    fn create(
        &mut self,
        creator: Principal,
        cycles: u128,
        recorded: Result<Principal, Refusal>,
    ) -> Option<Verdict> {
        let create =
            |node: &mut Node| node.create_canister(creator, cycles).map_err(|error| Refusal::from(&error));
        let given = create(&mut self.node);
        let [left, right] = match &mut self.other {
            Some(other) => [given, create(other)],
            None => [recorded, given],
        };
        let field = Field::unless_equal("outcome", &left, &right)?;
        Some(self.differs(field, "a canister made by the operator".to_owned()))
    }

    fn submit(&mut self, message: Message<'_>, recorded: Admission) -> Option<Verdict> {
        self.counts.messages += 1;
        let ingress = Ingress::from(message);
        let given = Admission::from(&self.node.submit(ingress.clone()));
        let other = self.other.as_mut().map(|other| Admission::from(&other.submit(ingress.clone())));
        if let Some(verdict) = self.failed(given.failed(), other.as_ref().and_then(Admission::failed)) {
            return Some(verdict);
        }
        let [left, right] = match other {
            Some(other) => [given, other],
            None => match recorded.failed() {
                Some(failed) => return Some(self.recorder_failed(&failed)),
                None => [recorded, given],
            },
        };
        let Ingress { receiver, method, .. } = ingress;
        if let Some(field) = Field::unless_equal("admission", &left, &right) {
            return Some(Verdict::Different(Box::new(Difference {
                message: Some(self.counts.messages),
                what: format!("message {}, `{}` to {receiver}", self.counts.messages, escaped(&method)),
                canister: Some(receiver),
                method: Some(method),
                ..self.difference(field)
            })));
        }
        match left {
            Admission::Taken => _ = self.waiting.insert(self.counts.messages, (receiver, method)),
            Admission::Refused(_) => self.counts.refused += 1,
        }
        None
    }

    fn query(&mut self, message: &Message<'_>) -> Option<Verdict> {
        self.counts.queries += 1;
        let given = self.node.observed_query(message);
        let other = self.other.as_ref().map(|other| other.observed_query(message));
        self.any_failed(&given, other.as_deref())
            .or_else(|| self.gave(given, other))
            .or_else(|| self.shadow(None))
    }

    fn round(&mut self, time: u64, seed: [u8; 32]) -> Option<Verdict> {
        self.counts.rounds += 1;
        let runs = self.counts.runs;
        let (report, given) = self.node.observed_round(time, seed);
        let other = self.other.as_mut().map(|other| other.observed_round(time, seed).1);
        self.any_failed(&given, other.as_deref())
            .or_else(|| self.gave(given, other))
            .or_else(|| self.shadow(Some((&report, runs))))
    }

    fn any_failed(&self, given: &[Observation], other: Option<&[Observation]>) -> Option<Verdict> {
        let [given, other] =
            [given, other.unwrap_or_default()].map(|given| given.iter().find_map(Observation::failed));
        self.failed(given, other)
    }

    /// What a node could not do leaves it undecided, whatever the other one did.
    fn failed(&self, given: Option<Failed>, other: Option<Failed>) -> Option<Verdict> {
        let names = if self.other.is_some() { [0, 1] } else { [1, 1] };
        let (Failed { what, cause }, name) = given.zip(Some(names[0])).or(other.zip(Some(names[1])))?;
        let (name, round) = (&self.names[name], self.counts.rounds);
        Some(Verdict::Undecided(format!("the node ({name}) could not {what} in round {round}: {cause}")))
    }

    fn recorder_failed(&self, Failed { what, cause }: &Failed) -> Verdict {
        let round = self.counts.rounds;
        Verdict::Undecided(format!(
            "the node that recorded could not {what} in round {round} ({cause}): what follows may be in other rounds here; --against compares two modes all the same"
        ))
    }

    /// Takes what the nodes gave: two are compared now, one as the log tells what was recorded.
    fn gave(&mut self, given: Vec<Observation>, other: Option<Vec<Observation>>) -> Option<Verdict> {
        let Some(other) = other else {
            self.untold = given;
            self.untold.reverse();
            return None;
        };
        let mut pairs = (given.into_iter(), other.into_iter());
        loop {
            match (pairs.0.next(), pairs.1.next()) {
                (None, None) => return None,
                (left, right) => {
                    if let Some(verdict) = self.pair(left, right) {
                        return Some(verdict);
                    }
                }
            }
        }
    }

    /// The log tells what was recorded.
    fn told(&mut self, told: Observation) -> Option<Verdict> {
        if self.other.is_some() {
            return None;
        }
        if let Some(failed) = told.failed() {
            return Some(self.recorder_failed(&failed));
        }
        let given = self.untold.pop();
        self.pair(Some(told), given)
    }

    /// Compares what should be the same thing.
    fn pair(&mut self, left: Option<Observation>, right: Option<Observation>) -> Option<Verdict> {
        let run = matches!((&left, &right), (Some(Observation::Run(_)), _) | (_, Some(Observation::Run(_))));
        self.counts.runs += u64::from(run);
        let asked = match &left {
            Some(Observation::Answered { message, .. }) => self.waiting.remove(message),
            _ => None,
        };
        let field = match (&left, &right) {
            (Some(left), Some(right)) => left.difference(right)?,
            (left, right) => Field::new("what happened", left, right),
        };
        let subject = left.or(right);
        let mut difference = self.difference(field);
        match subject {
            Some(Observation::Run(run)) => {
                difference.run = Some(self.counts.runs);
                difference.what = format!("run {}, {run}", self.counts.runs);
                difference.canister = Some(run.canister);
                difference.method = run.method;
            }
            Some(Observation::Answered { message, .. }) => {
                let (receiver, method) = asked.unzip();
                let named = |method: &String| format!("`{}` to ", escaped(method));
                difference.what = format!(
                    "the answer to message {message}, {}{}",
                    method.as_ref().map(named).unwrap_or_default(),
                    receiver.map(|receiver| receiver.to_text()).unwrap_or_default()
                );
                difference.message = Some(message);
                (difference.canister, difference.method) = (receiver, method);
            }
            Some(Observation::Canister { id, .. }) => {
                difference.what = format!("canister {id} after the round");
                difference.canister = Some(id);
            }
            Some(Observation::QueryAnswered(_)) => {
                difference.what = format!("the answer to query {}", self.counts.queries);
            }
            Some(Observation::Root(_) | Observation::Failed { .. }) | None => {
                difference.what = "the state after the round".to_owned();
            }
        }
        if let Some(other) = &self.other {
            states::locate(&mut difference, self.node.state(), other.state());
        }
        Some(Verdict::Different(Box::new(difference)))
    }

    /// What shadow found, if a node runs in it.
    fn shadow(&self, round: Option<(&RoundReport, u64)>) -> Option<Verdict> {
        if !self.compares_shadow {
            return None;
        }
        let nodes = [Some(&self.node), self.other.as_ref()];
        let diverged = nodes.into_iter().flatten().find(|node| {
            // What isn't compared by then is missing from the counts: see `not_compared`.
            let _settled = node.settle_shadow(SHADOW_PATIENCE);
            node.shadow_counts().diverged > 0
        })?;
        let first = diverged.divergences().into_iter().next()?.first;
        let rollout::Divergence { canister, invocation, kind, method, difference: found, class } = first;
        let position = |(report, runs): (&RoundReport, u64)| {
            let at = report.executed.iter().position(|executed| executed.invocation == invocation)?;
            Some(runs + at as u64 + 1)
        };
        let run = round.and_then(position);
        let named = method.as_ref().map(|method| format!(" `{}`", escaped(method))).unwrap_or_default();
        let numbered = run.map(|run| format!("run {run}, ")).unwrap_or_default();
        Some(Verdict::Different(Box::new(Difference {
            run,
            what: format!("{numbered}{kind}{named} of canister {canister} ({class})"),
            canister: Some(canister),
            method,
            names: ["in-process", "sandboxed"].map(|mode| format!("{mode} in shadow")),
            ..self.difference(Field::of(found.field.as_str(), [found.control, found.candidate]))
        })))
    }

    /// Equal is only what shadow has compared: all that ran in it.
    fn not_compared(&self) -> Option<Verdict> {
        if !self.compares_shadow {
            return None;
        }
        let nodes = [Some(&self.node), self.other.as_ref()];
        let mut counts = nodes.into_iter().flatten().map(Node::shadow_counts);
        let ShadowCounts { offered, equal, .. } = counts.find(|counts| counts.equal < counts.offered)?;
        Some(Verdict::Undecided(format!(
            "shadow compared {equal} of {offered} runs: the others failed in the sandbox, or found no room or time"
        )))
    }

    fn differs(&self, field: Field, what: String) -> Verdict {
        Verdict::Different(Box::new(Difference { what, ..self.difference(field) }))
    }

    fn difference(&self, field: Field) -> Difference {
        Difference {
            round: self.counts.rounds,
            run: None,
            message: None,
            canister: None,
            method: None,
            what: String::new(),
            field,
            names: self.names.clone(),
        }
    }
}
