//! The policy: which mode applies where.

mod bounds;
mod bucket;
mod contradictions;
mod document;
mod explanation;
mod exposure;
mod finish;
mod inline;
mod json_schema;
mod kind;
mod notice;
mod parse;
mod resolution;
mod rollouts;
mod rule;
mod schema;
mod shadow;
mod show;
mod syntax;
mod units;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use execution::Principal;
use jiff::Timestamp;

pub use bounds::Bounds;
pub use document::Change;
pub use explanation::{LayerSaid, Location, Resolution, Standing};
pub use exposure::{ExposedStep, Exposure, Exposures};
pub use finish::finished;
pub use json_schema::json_schema;
pub use notice::Notice;
pub use resolution::{Conditions, Decision, Layer, Reason, Scope};
pub use rollouts::{COMPARISONS_MIN, GuardRule, GuardTest, RolloutRule, Schedule, StepRule};
pub use rule::Measure;
pub use shadow::ShadowRule;

use crate::{Diagnostic, Mode, Position};
use document::{Document, Entry};
use kind::Value;
use rule::{KillSwitch, Meta, Rule, Switching};

pub(crate) use bucket::{Buckets, PPM};

/// Largest policy file, bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most tables of those that may stand more than once, all kinds together.
pub const ENTRIES_MAX: usize = 10_000;

/// A valid policy. Immutable. Layers, weakest first: default, subnets, rollouts, canisters,
/// exemptions, nodes, latches, kill switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    file: Arc<str>,
    document: Document,
    meta: Option<Meta>,
    kill_switch: Option<KillSwitch>,
    default: Rule,
    subnets: HashMap<String, Rule>,
    nodes: HashMap<String, Rule>,
    canisters: HashMap<Principal, Rule>,
    exemptions: HashMap<Principal, Rule>,
    bounds: Bounds,
    switching: Switching,
    measure: Measure,
    shadow: ShadowRule,
    rollouts: Vec<RolloutRule>,
    guards: Vec<GuardRule>,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said<T> {
    value: T,
    at: Position,
    /// Byte offsets of the value: start, end.
    bytes: (usize, usize),
}

impl<T> Said<T> {
    fn span(&self) -> std::ops::Range<usize> {
        self.bytes.0..self.bytes.1
    }

    /// Another value in the same place.
    fn of<U>(&self, value: U) -> Said<U> {
        Said { value, at: self.at, bytes: self.bytes }
    }
}

impl Policy {
    /// Reads a policy from `text`; `file` is how messages name it.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        parse::parse(file, text)
    }

    /// As [`Policy::parse`], for bytes that may not be text.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        parse::parse_bytes(file, bytes)
    }

    /// What `document`, which is valid, says.
    fn new(file: Arc<str>, document: Document) -> Self {
        let rules =
            |section| document.of(section).map(|entry| (entry.id.clone(), Rule::read(entry))).collect();
        let by_canister = |section| {
            let id = |entry: &Entry| match entry.get("id")?.value {
                Value::Canister(id) => Some(id),
                _ => None,
            };
            document.of(section).filter_map(|entry| Some((id(entry)?, Rule::read(entry)))).collect()
        };
        let policy = Self {
            meta: document.of("meta").find_map(Meta::read),
            kill_switch: document.of("kill_switch").find_map(KillSwitch::read),
            default: document.of("default").map(Rule::read).next().unwrap_or_default(),
            subnets: rules("subnets"),
            nodes: rules("nodes"),
            canisters: by_canister("canisters"),
            exemptions: by_canister("exemptions"),
            bounds: Bounds::read(&document),
            switching: Switching::read(&document),
            measure: Measure::read(&document),
            shadow: ShadowRule::read(&document),
            rollouts: rollouts::read(&document),
            guards: rollouts::guards(&document),
            file,
            document: Document::default(),
        };
        Self { document, ..policy }
    }

    /// The policy of a node without a file: `mode` everywhere, no floor.
    #[must_use]
    pub fn fixed(mode: Mode) -> Self {
        let mut policy = Self::new("(fixed)".into(), Document::default());
        policy.shadow = ShadowRule::EVERYTHING;
        policy.default.mode = Some(Said { value: mode, at: Position { line: 1, column: 1 }, bytes: (0, 0) });
        policy
    }

    /// The file it was read from, as named to [`Policy::parse`].
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Bounds of the node that reads it. They are in force from its start on, so a change of them takes
    /// another start; see [`crate::InForce::restart_for`].
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// How long a change to a weaker mode waits for what still runs sandboxed; then its workers are ended, and it runs
    /// again in the mode in force. `[switch] rollback_deadline`, from 50 ms to a minute; 500 ms where the file is silent.
    #[must_use]
    pub fn rollback_deadline(&self) -> Duration {
        self.switching.rollback_deadline
    }

    /// How long a step waits for executions that began before it. Then it is rolled back. `[switch] drain_timeout`, from a
    /// second to an hour; 30 s where the file is silent.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.switching.drain_timeout
    }

    /// The rollouts, by id.
    #[must_use]
    pub fn rollouts(&self) -> &[RolloutRule] {
        &self.rollouts
    }

    /// The rollout called `id`.
    #[must_use]
    pub fn rollout(&self, id: &str) -> Option<&RolloutRule> {
        self.rollouts.iter().find(|rollout| rollout.id == id)
    }

    /// The guards, in the order of the file.
    #[must_use]
    pub fn guards(&self) -> &[GuardRule] {
        &self.guards
    }

    /// What guards measure.
    #[must_use]
    pub fn measure(&self) -> Measure {
        self.measure
    }

    /// What of the executions in shadow is compared.
    #[must_use]
    pub fn shadow(&self) -> ShadowRule {
        self.shadow
    }

    /// Whether a command has to say why.
    #[must_use]
    pub fn reason_required(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.reason_required)
    }

    /// The file whose presence engages the kill switch.
    #[must_use]
    pub fn kill_file(&self) -> Option<&Path> {
        self.kill_switch.as_ref().map(|kill_switch| kill_switch.file.as_path())
    }

    /// Whether that file is there.
    ///
    /// # Errors
    /// As for [`is_there`].
    pub fn kill_engaged(&self) -> io::Result<bool> {
        self.kill_file().map_or(Ok(false), is_there)
    }

    /// What applies in `scope`, and why. Pure.
    #[must_use]
    pub fn resolve(&self, scope: &Scope<'_>, conditions: Conditions<'_>) -> Resolution {
        explanation::explain(self, scope, conditions)
    }

    /// As [`Policy::resolve`], without the reasoning.
    #[must_use]
    pub fn decide(&self, scope: &Scope<'_>, conditions: Conditions<'_>) -> Decision {
        resolution::decide(self, scope, conditions)
    }

    /// What it says on a node of canisters without rules of their own, where a step divides them: how they are put in
    /// buckets, and up to which bucket which decision holds.
    pub(crate) fn by_bucket(
        &self,
        scope: &Scope<'_>,
        conditions: Conditions<'_>,
    ) -> Option<(Buckets, [(u32, Decision); 3])> {
        let scope = Scope { canister: None, ..*scope };
        let mut rules = resolution::Rules::of(self, &scope, conditions.exposures);
        let exposed = rules.rollout?;
        let mut first = 0;
        let ranges = exposed.split?.ends().map(|end| {
            rules.bucket = Some(first);
            // An empty range ends where it begins, and nothing is looked for in it.
            first = end.min(PPM - 1);
            (end, resolution::decide_by(self, &rules, conditions))
        });
        Some((exposed.rollout.buckets, ranges))
    }

    /// The canisters that may be run in another mode than the others of their subnet.
    pub fn canisters(&self) -> impl Iterator<Item = &Principal> {
        let only_exempt = self.exemptions.keys().filter(|id| !self.canisters.contains_key(*id));
        self.canisters.keys().chain(only_exempt)
    }

    /// What an operator should know of it at `at`: what has expired, what is exempt from the floor, what is stale.
    #[must_use]
    pub fn notices(&self, at: Timestamp) -> Vec<Notice> {
        notice::all(self, at)
    }

    /// The moments at which what it says changes by itself.
    pub(crate) fn turns(&self) -> impl Iterator<Item = Timestamp> {
        let rules = self.subnets.values().chain(self.nodes.values());
        let rules = rules.chain(self.canisters.values()).chain(self.exemptions.values());
        let review = self.meta.iter().map(|meta| meta.review_by.value);
        rules.filter_map(|rule| rule.expires.map(|expires| expires.value)).chain(review)
    }

    /// The keys by which `next` differs.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Vec<Change> {
        self.document.changes(&next.document)
    }

    /// The whole policy with what holds where it is silent, as a policy file that says where each value came from.
    /// `built_in`: bounds where the file has none.
    #[must_use]
    pub fn show(&self, built_in: &Bounds) -> String {
        show::show(self, built_in)
    }

    /// As [`Policy::show`], as data.
    #[must_use]
    pub fn show_json(&self, built_in: &Bounds) -> serde_json::Value {
        show::show_json(self, built_in)
    }
}

/// A moment as policy files write it: `2027-03-01T12:00:00Z`, or a date, which means its midnight in UTC.
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    kind::time(text)
}

/// Whether a file is there, a link that leads nowhere included.
///
/// # Errors
/// It can't be seen whether it is.
pub fn is_there(file: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(file) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
