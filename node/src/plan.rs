//! `bulkhead plan`: what a rollout of a policy file would do on a subnet.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use execution::Principal;
use rollout::machine::OnFail;
use rollout::{ALPHA, Design, GuardRule, GuardTest, Policy, RolloutRule, Schedule, StepRule};
use serde_json::{Value, json};

use crate::cli::CommandError;
use crate::policy::refused;

/// What `plan` may be told.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The subnet, as the policy file calls it
    #[arg(long, value_name = "ID", default_value = "local")]
    subnet: String,
    /// Nodes of the subnet: n1, n2, ...
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    nodes: u16,
    /// Say of these canisters at which step they join
    #[arg(long = "canister", value_name = "ID", value_parser = |text: &str| Principal::from_text(text))]
    canisters: Vec<Principal>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints what each step of the subnet's rollout would do.
///
/// # Errors
/// The file is no valid policy, or has no rollout that covers the subnet.
pub fn run(arguments: &PlanArgs) -> Result<(), CommandError> {
    let policy = Policy::load(&arguments.config).map_err(refused)?;
    let Some(rule) = policy.rollouts().iter().find(|rule| rule.covers(&arguments.subnet)) else {
        let known: Vec<_> = policy.rollouts().iter().map(|rule| rule.id.as_str()).collect();
        let known =
            if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        let (file, subnet) = (arguments.config.display(), &arguments.subnet);
        return Err(CommandError::Failed(format!("{file}: no rollout covers subnet {subnet}; {known}")));
    };
    let nodes: Vec<String> = (1..=arguments.nodes).map(|number| format!("n{number}")).collect();
    let steps: Vec<Planned<'_>> =
        rule.steps.iter().map(|step| Planned::of(&policy, rule, step, &nodes)).collect();
    let text = if arguments.json {
        let steps: Vec<_> = steps.iter().map(|step| step.json(&arguments.subnet)).collect();
        let canisters: Vec<_> =
            arguments.canisters.iter().map(|id| joins_json(rule, id, &arguments.subnet)).collect();
        json!({ "rollout": rule.id, "subnet": arguments.subnet, "steps": steps, "canisters": canisters })
            .to_string()
    } else {
        shown(rule, &steps, arguments)
    };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(|error| CommandError::output(&error))
}

/// A step with what comes of it.
struct Planned<'a> {
    step: &'a StepRule,
    chosen: Vec<&'a str>,
    nodes: usize,
    guards: Vec<&'a GuardRule>,
    schedule: Schedule,
}

impl<'a> Planned<'a> {
    fn of(policy: &'a Policy, rule: &RolloutRule, step: &'a StepRule, nodes: &'a [String]) -> Self {
        Self {
            step,
            chosen: rule.chosen(step, nodes),
            nodes: nodes.len(),
            guards: policy.guards().iter().filter(|guard| guard.judges(step)).collect(),
            schedule: step.schedule(policy.measure().looks),
        }
    }

    fn what(&self) -> String {
        let percent = f64::from(self.step.percent_ppm) / 1e4;
        match self.step.design {
            Design::Aa => "control against control: shows what differs without a candidate".into(),
            Design::NodeSplit => {
                format!(
                    "{} on {} of {} nodes: {}",
                    self.step.mode,
                    self.chosen.len(),
                    self.nodes,
                    self.chosen.join(", ")
                )
            }
            Design::Switchback => {
                format!("{} of {percent} % of the canisters, turned on and off by blocks", self.step.mode)
            }
            Design::Percent => format!("{} of {percent} % of the canisters", self.step.mode),
        }
    }

    /// Why nothing could be learned from it on so few nodes.
    fn warning(&self) -> Option<&'static str> {
        let all = self.step.design == Design::NodeSplit && self.chosen.len() >= self.nodes;
        all.then_some("no node is left for the control: its guards will have nothing to compare with")
    }

    fn json(&self, subnet: &str) -> Value {
        json!({
            "name": self.step.name,
            "here": self.step.covers(subnet),
            "design": self.step.design.as_str(),
            "mode": self.step.mode.as_str(),
            "percent": f64::from(self.step.percent_ppm) / 1e4,
            "nodes": self.chosen,
            "bake_seconds": self.step.bake.as_secs_f64(),
            "max_bake_seconds": self.step.max_bake.as_secs_f64(),
            "looks": self.schedule.planned,
            "look_seconds": self.schedule.period.as_secs_f64(),
            "guards": self.guards.iter().map(|guard| guard.name.as_str()).collect::<Vec<_>>(),
            "warning": self.warning(),
        })
    }
}

/// The first step here that puts the candidate in force for a canister, from one.
fn joins(rule: &RolloutRule, canister: &Principal, subnet: &str) -> Option<usize> {
    let bucket = rule.bucket(canister);
    let holdout = 1_000_000 - rule.holdout_ppm;
    let joins = |step: &StepRule| {
        step.covers(subnet)
            && step.mode == rule.candidate
            && step.design != Design::Aa
            && bucket < step.percent_ppm.min(holdout)
    };
    rule.steps.iter().position(joins).map(|index| index + 1)
}

fn joins_json(rule: &RolloutRule, canister: &Principal, subnet: &str) -> Value {
    json!({ "id": canister.to_text(), "bucket": rule.bucket(canister), "joins_at_step": joins(rule, canister, subnet) })
}

fn shown(rule: &RolloutRule, steps: &[Planned<'_>], arguments: &PlanArgs) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| _ = writeln!(text, "{arguments}");
    line(format_args!("{}: {} -> {} on subnet {}", rule.id, rule.control, rule.candidate, arguments.subnet));
    if rule.holdout_ppm > 0 {
        line(format_args!("{} of a million canisters stay {} to the end", rule.holdout_ppm, rule.control));
    }
    for (planned, number) in steps.iter().zip(1..) {
        let step = planned.step;
        let elsewhere = if step.covers(&arguments.subnet) { "" } else { "   (not on this subnet)" };
        line(format_args!("\nstep {number}/{} {}{elsewhere}", steps.len(), step.name));
        line(format_args!("  {}", planned.what()));
        let (period, looks) = (planned.schedule.period, planned.schedule.planned);
        line(format_args!(
            "  bake {:?} to {:?} with traffic; {looks} looks, one each {period:?}",
            step.bake, step.max_bake
        ));
        for guard in &planned.guards {
            let does = match guard.on_fail {
                // Nothing is exposed that could be rolled back.
                OnFail::Rollback if step.design == Design::Aa => "pauses",
                OnFail::Rollback => "rolls back",
                OnFail::Pause => "pauses",
                OnFail::Observe => "notes",
            };
            line(format_args!("  {:<14} {does}: {}", guard.name, test(guard)));
        }
        if let Some(warning) = planned.warning() {
            line(format_args!("  warning: {warning}"));
        }
    }
    line(format_args!("\nchance of a false rollback at the limits: {} % a step at most", ALPHA * 100.0));
    for canister in &arguments.canisters {
        let at = joins(rule, canister, &arguments.subnet);
        let at =
            at.map_or_else(|| "never: it stays with the control".into(), |step| format!("at step {step}"));
        line(format_args!("{}   bucket {:06}   joins {at}", canister.to_text(), rule.bucket(canister)));
    }
    text
}

fn test(guard: &GuardRule) -> String {
    match &guard.test {
        GuardTest::Latency(ratio) => {
            format!("{} of {} above {}x", ratio.quantile, guard.kinds.join(", "), ratio.limit.as_f64())
        }
        GuardTest::Traps(ratio) => {
            format!("traps above {}x, and more than {}", ratio.limit.as_f64(), ratio.allowance)
        }
        GuardTest::Crashes { max, window } => {
            format!("workers of more than {max} canisters crash within {window:?}")
        }
        GuardTest::Divergences => "any confirmed difference".into(),
    }
}
