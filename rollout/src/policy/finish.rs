//! The policy file after a rollout: what it came to, and no rollout.

use toml_edit::{DocumentMut, Item, Table, value};

use super::bucket::PPM;
use super::{Policy, RolloutRule};
use crate::{Design, Mode};

/// The text of a policy file after `rule` was finished: the candidate is the mode of every subnet that the rollout put
/// it in force on, and the rollout's table is gone. Everything else stays as it is written, comments too.
///
/// # Errors
/// A step before had less than all of a subnet, so that nobody has seen the candidate everywhere; or what comes of it
/// would be no valid policy.
pub fn finished(text: &str, rule: &RolloutRule) -> Result<String, String> {
    let ends = || rule.steps.iter().filter(|step| step.mode != Mode::Shadow && step.design != Design::Aa);
    for subnet in ends().flat_map(|step| &step.subnets) {
        let last = ends().rfind(|step| step.covers(subnet));
        if let Some(part) = last.filter(|step| step.percent_ppm < PPM || step.design == Design::NodeSplit) {
            return Err(format!(
                "its last step on subnet {subnet}, \"{}\", has not all of it: add one that has",
                part.name
            ));
        }
    }
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    if let Some(rollouts) = document.get_mut("rollouts").and_then(Item::as_table_like_mut) {
        rollouts.remove(&rule.id);
        if rollouts.is_empty() {
            document.remove("rollouts");
        }
    }
    for subnet in ends().flat_map(|step| &step.subnets) {
        let implicit = || {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        };
        let subnets = document.entry("subnets").or_insert_with(implicit);
        let subnets = subnets.as_table_like_mut().ok_or("`subnets` is no table")?;
        let own = subnets.entry(subnet).or_insert(Item::Table(Table::new()));
        let own = own.as_table_like_mut().ok_or_else(|| format!("[subnets.{subnet}] is no table"))?;
        own.insert("mode", value(rule.candidate.as_str()));
    }
    let text = document.to_string();
    match Policy::parse("finished", &text) {
        Ok(_) => Ok(text),
        Err(errors) => Err(errors.iter().map(|error| error.message.clone()).collect::<Vec<_>>().join("; ")),
    }
}
