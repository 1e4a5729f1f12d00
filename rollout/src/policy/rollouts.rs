//! `[rollouts.ID]` with its steps, and `[[guards]]`: what is to happen, not where it is.

use std::time::Duration;

use execution::Principal;
use sha2::{Digest, Sha256};

use super::Said;
use super::bucket::{Buckets, PPM};
use super::document::{Document, Entry};
use super::kind::{ScopeSaid, Value};
use crate::machine::OnFail;
use crate::{Design, LatencyRatio, Limit, Mode, Position, Quantile, RateRatio};

/// A rollout as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutRule {
    /// `ID` of `[rollouts.ID]`.
    pub id: String,
    /// The mode to be put in force.
    pub candidate: Mode,
    /// The mode it is compared with, and goes back to.
    pub control: Mode,
    /// Decides which canisters, and which nodes, come first.
    pub salt: String,
    /// Canisters per million that stay with the control to the end.
    pub holdout_ppm: u32,
    /// After a rollback no other attempt begins for so long.
    pub retry_cooldown: Duration,
    /// No step after this one begins, from zero.
    pub hold_at_step: Option<usize>,
    /// The steps, one at least.
    pub steps: Vec<StepRule>,
    /// Where its table begins.
    pub at: Position,
    pub(super) buckets: Buckets,
}

/// A step as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRule {
    /// For people.
    pub name: String,
    /// The subnets it covers, sorted; those of a label when the file was read.
    pub subnets: Vec<String>,
    /// In a node-split: on so many nodes of each subnet the candidate is in force.
    pub nodes_per_subnet: Option<usize>,
    /// How candidate and control share the traffic.
    pub design: Design,
    /// What is in force where the candidate is: shadow, or the rollout's candidate.
    pub mode: Mode,
    /// Canisters per million that it concerns.
    pub percent_ppm: u32,
    /// With traffic for so long before the next step.
    pub bake: Duration,
    /// After so long with traffic an open guard pauses.
    pub max_bake: Duration,
    /// Fewest comparisons in shadow that pass; zero: the default of the guard.
    pub comparisons_min: u64,
    /// SHA-256 of all that the file says of it and that changes what it does.
    pub digest: [u8; 32],
    /// Where its table begins.
    pub at: Position,
}

/// How often a step is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// With traffic for so long between two looks.
    pub period: Duration,
    /// Looks until its longest bake is over, 1 to 48: more of them only cost power.
    pub planned: u32,
}

/// Most looks that a step is planned with.
const LOOKS_PLANNED_MAX: u32 = 48;

impl Schedule {
    /// Looks that are due after so long with traffic.
    #[must_use]
    pub fn due(&self, watched: Duration) -> u32 {
        u32::try_from(watched.as_millis() / self.period.as_millis().max(1)).unwrap_or(u32::MAX)
    }
}

/// What ends or holds a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardRule {
    /// Another one for each guard.
    pub name: String,
    /// Kinds of messages that it looks at.
    pub kinds: Vec<&'static str>,
    /// What its failure does.
    pub on_fail: OnFail,
    /// What has to hold.
    pub test: GuardTest,
}

/// What a guard asks.
#[derive(Clone, Debug, PartialEq)]
pub enum GuardTest {
    /// `latency-ratio`
    Latency(LatencyRatio),
    /// `rate-ratio` of traps.
    Traps(RateRatio),
    /// `fuse` on workers that crash: of at most so many canisters within so long.
    Crashes {
        /// Accepted.
        max: usize,
        /// Within.
        window: Duration,
    },
    /// `fuse` on confirmed divergences: none is accepted.
    Divergences,
}

// Ratios are read from decimal numbers: none is NaN.
impl Eq for GuardRule {}

/// Comparisons in shadow that pass where a step doesn't say: none different in so many shows a rate below 1e-5.
pub const COMPARISONS_MIN: u64 = 300_000;

impl GuardRule {
    /// Whether it can judge `step`: whether what it asks about is there to be seen.
    #[must_use]
    pub fn judges(&self, step: &StepRule) -> bool {
        match self.test {
            GuardTest::Latency(_) => {
                step.mode != Mode::Shadow
                    && matches!(step.design, Design::NodeSplit | Design::Switchback | Design::Aa)
            }
            GuardTest::Traps(_) => {
                step.mode != Mode::Shadow && matches!(step.design, Design::NodeSplit | Design::Switchback)
            }
            GuardTest::Crashes { .. } => step.design != Design::Aa && step.mode != Mode::InProcess,
            GuardTest::Divergences => step.mode == Mode::Shadow,
        }
    }
}

impl RolloutRule {
    /// Whether one of its steps covers `subnet`.
    #[must_use]
    pub fn covers(&self, subnet: &str) -> bool {
        self.steps.iter().any(|step| step.covers(subnet))
    }

    /// The bucket of a canister by `sip13-ppm-v1`, from 0 to 999,999: it joins a step whose share in parts per million is
    /// higher. `(h * 1,000,000) >> 64`, where `h` is SipHash-1-3 under the key (0, 0) of the salt's length as eight bytes,
    /// lowest first, the salt, and the id's bytes.
    #[must_use]
    pub fn bucket(&self, canister: &Principal) -> u32 {
        self.buckets.of(canister)
    }

    /// Those of a subnet's `nodes` on which a step's node-split puts the candidate in force.
    #[must_use]
    pub fn chosen<'a>(&self, step: &StepRule, nodes: &'a [String]) -> Vec<&'a str> {
        let count = step.nodes_per_subnet.unwrap_or(nodes.len());
        let chosen = nodes.iter().filter(|node| self.buckets.is_among_first(count, node, nodes));
        chosen.map(String::as_str).collect()
    }

    fn read(entry: &Entry, document: &Document) -> Option<Self> {
        let mode = |key| match entry.get(key)?.value {
            Value::Mode(mode) => Some(mode),
            _ => None,
        };
        let (candidate, control) = (mode("candidate")?, mode("control")?);
        let salt = text(entry, "salt").unwrap_or_else(|| entry.id.clone());
        let holdout_ppm = number(entry, "holdout_ppm").unwrap_or(0);
        let common = format!("{candidate} {control} {holdout_ppm} {salt}\n");
        let steps = document.of("rollouts.steps").filter(|step| step.id == entry.id);
        let hold_at_step = number(entry, "hold_at_step").and_then(|step| usize::try_from(step - 1).ok());
        Some(Self {
            candidate,
            control,
            holdout_ppm: u32::try_from(holdout_ppm).ok()?,
            retry_cooldown: number(entry, "retry_cooldown").map_or(HOUR, Duration::from_millis),
            hold_at_step,
            steps: steps.filter_map(|step| StepRule::read(step, document, candidate, &common)).collect(),
            at: entry.at,
            buckets: Buckets::new(&salt),
            salt,
            id: entry.id.clone(),
        })
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

impl StepRule {
    /// Whether it concerns `subnet`.
    #[must_use]
    pub fn covers(&self, subnet: &str) -> bool {
        self.subnets.binary_search_by(|covered| covered.as_str().cmp(subnet)).is_ok()
    }

    /// Looks every `looks`, or less often where its longest bake is long.
    #[must_use]
    pub fn schedule(&self, looks: Duration) -> Schedule {
        let period = looks.max(self.max_bake / LOOKS_PLANNED_MAX);
        let planned = self.max_bake.as_millis().div_ceil(period.as_millis().max(1));
        Schedule { period, planned: u32::try_from(planned).unwrap_or(LOOKS_PLANNED_MAX).max(1) }
    }

    fn read(entry: &Entry, document: &Document, candidate: Mode, common: &str) -> Option<Self> {
        let Value::Scope(scope) = &entry.get("scope")?.value else { return None };
        let mode = entry.get("mode").and_then(|said| match said.value {
            Value::Mode(mode) => Some(mode),
            _ => None,
        });
        let percent_ppm = number(entry, "percent").map_or(PPM, ppm_of_percent);
        let mode = mode.unwrap_or(candidate);
        let bake = Duration::from_millis(number(entry, "bake")?);
        let mut digest = Sha256::new();
        digest.update(common);
        for (key, said) in &entry.values {
            digest.update(format!("{key} = {}\n", entry.write(key, &said.value)));
        }
        Some(Self {
            name: text(entry, "name")?,
            subnets: subnets(scope, document),
            nodes_per_subnet: scope.nodes_per_subnet.and_then(|nodes| usize::try_from(nodes).ok()),
            design: design_said(entry).unwrap_or_else(|| default_design(scope, mode, percent_ppm)),
            mode,
            percent_ppm,
            bake,
            max_bake: number(entry, "max_bake").map_or(bake * 3, Duration::from_millis),
            comparisons_min: number(entry, "require").unwrap_or(0),
            digest: digest.finalize().into(),
            at: entry.at,
        })
    }
}

/// Percent in millionths as parts per million.
fn ppm_of_percent(millionths: u64) -> u32 {
    u32::try_from(millionths / 100).unwrap_or(PPM).min(PPM)
}

/// What a step's own key says.
pub(super) fn design_said(entry: &Entry) -> Option<Design> {
    match entry.get("design")?.value {
        Value::Word(word) => Design::from_word(word),
        _ => None,
    }
}

/// The best comparison that the rest of the step allows.
fn default_design(scope: &ScopeSaid, mode: Mode, percent_ppm: u32) -> Design {
    if mode == Mode::Shadow {
        Design::Percent
    } else if scope.nodes_per_subnet.is_some() {
        Design::NodeSplit
    } else if percent_ppm < PPM {
        Design::Switchback
    } else {
        Design::Percent
    }
}

/// The subnets that a scope names, sorted.
pub(super) fn subnets(scope: &ScopeSaid, document: &Document) -> Vec<String> {
    let mut subnets = scope.subnets.clone();
    if let Some((name, value)) = &scope.label {
        let labelled =
            document.of("subnets").filter(|entry| match entry.get("labels").map(|said| &said.value) {
                Some(Value::Labels(labels)) => labels.get(name) == Some(value),
                _ => false,
            });
        subnets.extend(labelled.map(|entry| entry.id.clone()));
    }
    subnets.sort();
    subnets.dedup();
    subnets
}

impl GuardRule {
    fn read(entry: &Entry) -> Option<Self> {
        let limit = |silent| {
            #[expect(clippy::cast_precision_loss, reason = "at most 10^9")]
            Limit::new(number(entry, "limit").unwrap_or(silent) as f64 / 1e6)
        };
        let test = match (word(entry, "type")?, word(entry, "event")) {
            ("latency-ratio", _) => {
                let ppm = u32::try_from(number(entry, "quantile")?).ok()?;
                GuardTest::Latency(LatencyRatio {
                    quantile: Quantile::from_ppm(ppm)?,
                    limit: limit(1_000_000)?,
                })
            }
            ("rate-ratio", _) => GuardTest::Traps(RateRatio {
                limit: limit(1_000_000)?,
                allowance: number(entry, "allowance").unwrap_or(0),
            }),
            (_, Some("sandbox-crash")) => GuardTest::Crashes {
                max: usize::try_from(number(entry, "max").unwrap_or(0)).ok()?,
                window: Duration::from_millis(number(entry, "window")?),
            },
            _ => GuardTest::Divergences,
        };
        let on_fail = match word(entry, "on_fail") {
            Some("pause") => OnFail::Pause,
            Some("observe") => OnFail::Observe,
            _ => OnFail::Rollback,
        };
        let kinds = match entry.get("kinds").map(|said| &said.value) {
            Some(Value::Names(names)) => {
                crate::KINDS.into_iter().filter(|kind| names.iter().any(|name| name == kind)).collect()
            }
            _ => vec!["update", "query"],
        };
        Some(Self { name: text(entry, "name")?, kinds, on_fail, test })
    }
}

pub(super) fn word(entry: &Entry, key: &str) -> Option<&'static str> {
    match entry.get(key)? {
        Said { value: Value::Word(word), .. } => Some(word),
        _ => None,
    }
}

fn text(entry: &Entry, key: &str) -> Option<String> {
    match &entry.get(key)?.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

pub(super) fn number(entry: &Entry, key: &str) -> Option<u64> {
    match entry.get(key)?.value {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

/// All rollouts of a document, by id. Of one that isn't valid, what can be read.
pub(super) fn read(document: &Document) -> Vec<RolloutRule> {
    document.of("rollouts").filter_map(|entry| RolloutRule::read(entry, document)).collect()
}

/// All guards, in the order of the file.
pub(super) fn guards(document: &Document) -> Vec<GuardRule> {
    let mut entries: Vec<&Entry> = document.of("guards").collect();
    entries.sort_by_key(|entry| entry.bytes);
    entries.into_iter().filter_map(GuardRule::read).collect()
}
