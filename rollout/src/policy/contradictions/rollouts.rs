//! Rollouts and guards that mean nothing, or less than their writer thinks.

use std::collections::BTreeMap;

use super::super::Said;
use super::super::document::{Document, Entry};
use super::super::rollouts::{self, RolloutRule, StepRule, design_said, number, word};
use super::super::rule::Measure;
use crate::diagnostic::Source;
use crate::machine::{OnFail, STEPS_MAX};
use crate::{BLOCKS_MAX, Design, Diagnostic, GUARDS_MAX, Mode, SETTLING};

pub(super) fn check(document: &Document, source: &Source<'_>) -> Vec<Diagnostic> {
    let mut check = Check { document, source, errors: Vec::new() };
    let measure = Measure::read(document);
    check.measure(&measure);
    let guards = document.of("guards").count();
    document.of("guards").for_each(|entry| check.guard(entry));
    if guards > GUARDS_MAX as usize {
        let message = format!("{guards} guards, at most {GUARDS_MAX} are allowed");
        check.errors.push(source.diagnostic(0..0, message, ""));
    }
    let all = rollouts::read(document);
    all.iter().for_each(|rollout| check.rollout(rollout, &measure));
    check.overlaps(&all);
    check.errors
}

struct Check<'a> {
    document: &'a Document,
    source: &'a Source<'a>,
    errors: Vec<Diagnostic>,
}

impl Check<'_> {
    /// At the value of `key`, or at the table where it has none.
    fn error(&mut self, entry: &Entry, key: &str, message: String, expected: &str) {
        let span = entry.get(key).map_or(entry.span(), Said::span);
        self.errors.push(self.source.diagnostic(span, message, expected));
    }

    fn measure(&mut self, measure: &Measure) {
        let Some(entry) = self.document.of("measure").next() else { return };
        if !measure.block.as_millis().is_multiple_of(measure.interval.as_millis()) {
            let message = format!(
                "a block of {:?} is no multiple of the interval {:?}",
                measure.block, measure.interval
            );
            self.error(entry, "block", message, "expected a multiple: an interval belongs to one block");
        }
    }

    fn guard(&mut self, entry: &Entry) {
        let (Some(kind), event) = (word(entry, "type"), word(entry, "event")) else { return };
        let (wanted, allowed): (&[&str], &[&str]) = match (kind, event) {
            ("latency-ratio", _) => (&["quantile", "limit"], &["kinds"]),
            ("rate-ratio", _) => (&["event", "limit"], &["allowance"]),
            (_, Some("sandbox-crash")) => (&["event", "max", "window"], &[]),
            _ => (&["event"], &["max"]),
        };
        for &key in wanted.iter().filter(|key| entry.get(key).is_none()) {
            self.error(entry, key, format!("a guard of type `{kind}` has no `{key}`"), "add it");
        }
        for (key, _) in &entry.values {
            if !["name", "type", "on_fail"].contains(key) && !wanted.contains(key) && !allowed.contains(key) {
                let message = format!("a guard of type `{kind}` can't use `{key}`");
                self.error(entry, key, message, "remove it, or choose another type");
            }
        }
        match (kind, event) {
            ("rate-ratio", Some(event)) if event != "trap" => {
                self.error(entry, "event", format!("a rate of `{event}`"), "expected trap; a fuse counts it");
            }
            ("fuse", Some("trap")) => {
                let expected = "expected sandbox-crash or confirmed-divergence; a rate-ratio compares traps";
                self.error(entry, "event", "a fuse on traps, which canisters may do".into(), expected);
            }
            ("fuse", Some("confirmed-divergence")) if number(entry, "max").is_some_and(|max| max > 0) => {
                let message = "a divergence that is accepted".to_owned();
                self.error(entry, "max", message, "expected 0: both modes have to give the same");
            }
            _ => {}
        }
    }

    fn rollout(&mut self, rollout: &RolloutRule, measure: &Measure) {
        let document = self.document;
        let Some(entry) = document.of("rollouts").find(|entry| entry.id == rollout.id) else { return };
        if rollout.candidate == rollout.control {
            let message = format!("candidate and control are both `{}`", rollout.control);
            self.error(entry, "candidate", message, "expected two modes");
        }
        let steps: Vec<_> = document.of("rollouts.steps").filter(|step| step.id == rollout.id).collect();
        if rollout.hold_at_step.is_some_and(|step| step >= steps.len()) {
            let message = format!("there are {} steps", steps.len());
            self.error(entry, "hold_at_step", message, "expected the number of one of them, from 1");
        }
        if steps.len() > STEPS_MAX {
            let message = format!("{} steps, at most {STEPS_MAX} are allowed", steps.len());
            self.error(entry, "name", message, "expected fewer");
        }
        // One that couldn't be read is an error already.
        if steps.len() != rollout.steps.len() {
            return;
        }
        let mut names = BTreeMap::new();
        let mut exposed = BTreeMap::new();
        for (entry, step) in steps.into_iter().zip(&rollout.steps) {
            if let Some(first) = names.insert(&step.name, entry.at) {
                let message = format!("step `{}` stands twice in [rollouts.{}]", step.name, rollout.id);
                self.error(entry, "name", message, &format!("the first one is at line {}", first.line));
            }
            self.modes(entry, step, rollout);
            self.design(entry, step, measure);
            self.judged(entry, step);
            self.growth(entry, step, &mut exposed);
        }
    }

    fn modes(&mut self, entry: &Entry, step: &StepRule, rollout: &RolloutRule) {
        let name = format!("step \"{}\"", step.name);
        if step.subnets.is_empty() {
            let message = format!("{name}: no [subnets.ID] has that label");
            self.error(entry, "scope", message, "expected a label that a subnet has");
        }
        if step.bake > step.max_bake {
            let message = format!("{name}: bake ({:?}) exceeds max_bake ({:?})", step.bake, step.max_bake);
            self.error(entry, "max_bake", message, "expected max_bake at least as long");
        }
        if step.mode != Mode::Shadow && step.mode != rollout.candidate {
            let message = format!("{name}: mode `{}` is not the candidate", step.mode);
            self.error(entry, "mode", message, &format!("expected shadow or {}", rollout.candidate));
        }
        if step.mode == Mode::Shadow && rollout.control != Mode::InProcess {
            let message =
                format!("{name}: shadow commits what runs in-process, and the control is another mode");
            self.error(entry, "mode", message, "expected control = \"in-process\" for a step in shadow");
        }
        if step.mode != Mode::Shadow && entry.get("require").is_some() {
            let message = format!("{name}: comparisons are made in shadow alone");
            self.error(entry, "require", message, "remove it");
        }
    }

    fn design(&mut self, entry: &Entry, step: &StepRule, measure: &Measure) {
        let name = format!("step \"{}\"", step.name);
        match (step.design, step.nodes_per_subnet) {
            (Design::NodeSplit, None) => {
                let message = format!("{name}: a node-split on how many nodes?");
                self.error(entry, "design", message, "expected nodes_per_subnet in the scope");
            }
            (Design::Aa | Design::Switchback | Design::Percent, Some(_)) => {
                let message = format!("{name}: nodes_per_subnet without a node-split");
                self.error(entry, "scope", message, "remove it, or take design = \"node-split\"");
            }
            (Design::NodeSplit, Some(_)) | (_, None) => {}
        }
        if step.mode == Mode::Shadow && design_said(entry).is_some_and(|design| design != Design::Percent) {
            let message = format!("{name}: shadow compares by itself and has no other design");
            self.error(entry, "design", message, "remove it");
        }
        if matches!(step.design, Design::Aa | Design::NodeSplit) && entry.get("percent").is_some() {
            let message = format!("{name}: `percent` means nothing in a step of design {}", step.design);
            self.error(entry, "percent", message, "remove it");
        }
        let pairs_of = if step.design == Design::NodeSplit { 1 } else { 2 };
        let longest = measure.block * pairs_of * BLOCKS_MAX as u32;
        if step.mode != Mode::Shadow && step.design != Design::Percent && step.max_bake > longest {
            let message = format!(
                "{name}: max_bake ({:?}) has more than the {BLOCKS_MAX} pairs of blocks that are compared",
                step.max_bake
            );
            self.error(
                entry,
                "max_bake",
                message,
                &format!("expected {longest:?} at most, or a longer block"),
            );
        }
        if step.design == Design::Switchback && measure.block <= SETTLING {
            let message = format!("{name}: a block of {:?} is over before it has settled", measure.block);
            self.error(entry, "design", message, "expected a block of more than 5s in [measure]");
        }
    }

    fn judged(&mut self, entry: &Entry, step: &StepRule) {
        let guards = rollouts::guards(self.document);
        if guards.iter().any(|guard| guard.on_fail != OnFail::Observe && guard.judges(step)) {
            return;
        }
        let message = format!("step \"{}\": no guard that rolls back or pauses can judge it", step.name);
        let expected = match (step.mode, step.design) {
            (Mode::Shadow, _) => "expected a fuse on confirmed-divergence or sandbox-crash",
            (_, Design::Aa) => "expected a latency-ratio",
            (_, Design::Percent) => {
                "expected a fuse on sandbox-crash; for latencies another design than percent"
            }
            _ => "expected a latency-ratio, a rate-ratio or a fuse on sandbox-crash",
        };
        self.error(entry, "name", message, expected);
    }

    /// Steps only add: going on takes the candidate away from nobody.
    fn growth<'s>(&mut self, entry: &Entry, step: &'s StepRule, exposed: &mut BTreeMap<&'s str, u32>) {
        if step.mode == Mode::Shadow || !matches!(step.design, Design::Switchback | Design::Percent) {
            return;
        }
        for subnet in &step.subnets {
            if exposed.insert(subnet, step.percent_ppm).is_some_and(|before| before > step.percent_ppm) {
                let message = format!("step \"{}\": less of subnet {subnet} than a step before", step.name);
                self.error(entry, "percent", message, "expected as much at least: steps only add");
                return;
            }
        }
    }

    /// Two rollouts of one subnet would contradict each other.
    fn overlaps(&mut self, all: &[RolloutRule]) {
        let mut covered: BTreeMap<&str, &str> = BTreeMap::new();
        for rollout in all {
            let others = rollout.steps.iter().flat_map(|step| &step.subnets).find_map(|subnet| {
                let first = *covered.entry(subnet).or_insert(&rollout.id);
                (first != rollout.id).then_some((subnet, first))
            });
            let entry = self.document.of("rollouts").find(|entry| entry.id == rollout.id);
            if let (Some((subnet, first)), Some(entry)) = (others, entry) {
                let message = format!("rollouts `{first}` and `{}` both cover subnet {subnet}", rollout.id);
                self.error(entry, "name", message, "expected one rollout for each subnet");
            }
        }
    }
}
