//! `bulkhead divergences replay`: whether a difference is still there.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use execution::{Backend, Module};
use rollout::{Comparison, Mode, compare};
use serde_json::{Value, json};

use super::{Bundle, BundleError, Gave};
use crate::cli::CommandError;
use crate::observation::escaped;
use crate::{Node, NodeOptions, Preset};

/// What `divergences replay` may be told.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The bundle: `divergences show` names it
    file: PathBuf,
    /// Runs in each mode
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs a bundle in both modes and says whether they still differ.
///
/// # Errors
/// They do, or it can't be said.
pub(crate) fn run(arguments: &ReplayArgs) -> Result<(), CommandError> {
    let undecided = |what: String| CommandError::Undecided(format!("{}: {what}", arguments.file.display()));
    let replayed = crate::node::on_executor_stack(|| {
        let bundle = Bundle::open(&arguments.file).map_err(|error| error.to_string())?;
        let node = node(&bundle)?;
        let module = compile(&node, &bundle)?;
        let [in_process, sandboxed] = node.backends().map_err(|error| error.to_string())?;
        let backends = [in_process.as_ref(), sandboxed.as_ref()];
        let replayed = Replayed::new(&bundle, &module, backends, arguments.runs)?;
        Ok((bundle, replayed))
    });
    let (bundle, replayed) = replayed.map_err(undecided)?;
    let text = match arguments.json {
        true => format!("{:#}\n", replayed.json(&bundle)),
        false => replayed.text(&arguments.file, &bundle),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| undecided(format!("could not write to standard output: {error}")))?;
    if replayed.is_reproduced() { Err(CommandError::Reported) } else { Ok(()) }
}

fn node(bundle: &Bundle) -> Result<Node, String> {
    let preset = if bundle.invocation.limits.system_subnet { Preset::System } else { Preset::Application };
    // With a sandbox: for nothing else is there a second mode.
    Node::new(NodeOptions::fixed(Mode::Shadow, preset)).map_err(|error| error.to_string())
}

/// The bundle's module.
fn compile(node: &Node, bundle: &Bundle) -> Result<Arc<Module>, String> {
    let module = node.compile(&bundle.wasm).map_err(|error| format!("its module: {error}"))?;
    let module = module.map_err(|refused| format!("its module is refused: {}", refused.0))?;
    bundle.fits(&module).map_err(|error: BundleError| error.to_string())?;
    Ok(module)
}

/// What came of running a bundle again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// In each mode.
    pub runs: u32,
    /// Of those in-process, and of those in the sandbox, so many gave what was recorded of that mode.
    pub as_recorded: [u32; 2],
    /// So many pairs differed.
    pub different: u32,
    /// In what the first of them did.
    pub differences: Vec<Comparison>,
    /// So many runs in-process differed from the first one.
    pub control_unstable: u32,
}

impl Replayed {
    /// Runs `bundle` on `backends`: in-process, and what is compared with it.
    ///
    /// # Errors
    /// What failed around the guest.
    pub fn new(
        bundle: &Bundle,
        module: &Arc<Module>,
        backends: [&dyn Backend; 2],
        runs: u32,
    ) -> Result<Self, String> {
        let snapshot = bundle.snapshot(module);
        let mut replayed =
            Self { runs, as_recorded: [0; 2], different: 0, differences: Vec::new(), control_unstable: 0 };
        let mut first = None;
        for _ in 0..runs {
            let mut outcomes = Vec::new();
            for (at, (backend, recorded)) in
                backends.into_iter().zip([&bundle.control, &bundle.candidate]).enumerate()
            {
                let mode = [Mode::InProcess, Mode::Sandboxed][at];
                let outcome = bundle.run(backend, module).map_err(|error| format!("{mode}: {error}"))?;
                replayed.as_recorded[at] += u32::from(Gave::of(&outcome) == *recorded);
                outcomes.push(outcome);
            }
            let differences = compare(&snapshot, &outcomes[0], &outcomes[1]);
            if !differences.is_empty() {
                replayed.different += 1;
                if replayed.differences.is_empty() {
                    replayed.differences = differences;
                }
            }
            let control = outcomes.swap_remove(0);
            let first = first.get_or_insert_with(|| control.clone());
            replayed.control_unstable += u32::from(!compare(&snapshot, first, &control).is_empty());
        }
        Ok(replayed)
    }

    /// Whether there is a difference.
    #[must_use]
    pub fn is_reproduced(&self) -> bool {
        self.different > 0 || self.control_unstable > 0
    }

    fn text(&self, path: &Path, bundle: &Bundle) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a String takes it");
        let Bundle { program, node, class, canister, invocation, .. } = bundle;
        let time =
            i64::try_from(bundle.time_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let time = time.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string());
        line(format_args!(
            "{}: {class}, found by node {node} at {time} with bulkhead {program}",
            path.display()
        ));
        let method = invocation.entry.method().map(|method| format!(" `{}`", escaped(method)));
        line(format_args!(
            "{}{} of canister {canister}",
            invocation.entry.kind(),
            method.unwrap_or_default()
        ));
        line(format_args!("\nrecorded"));
        for [field, control, candidate] in &bundle.differences {
            line(format_args!("  {field}: in-process {control}, sandboxed {candidate}"));
        }
        let runs = self.runs;
        line(format_args!("\nrun again, {runs} times in each mode"));
        for (mode, count) in ["in-process", "sandboxed"].into_iter().zip(self.as_recorded) {
            line(format_args!("  {mode:<10}  {count} of {runs} gave what was recorded"));
        }
        for Comparison { field, control, candidate } in &self.differences {
            line(format_args!("  {}: in-process {control}, sandboxed {candidate}", field.as_str()));
        }
        match (self.different, self.control_unstable) {
            (0, 0) => line(format_args!("NOT REPRODUCED: the modes agree in all {runs} runs")),
            (0, unstable) => {
                line(format_args!("REPRODUCED: in-process differs from itself in {unstable} of {runs} runs"))
            }
            (different, _) => {
                line(format_args!("REPRODUCED: the modes differ in {different} of {runs} runs"))
            }
        }
        text
    }

    fn json(&self, bundle: &Bundle) -> Value {
        let Self { runs, as_recorded, different, differences, control_unstable } = self;
        let told = |[field, control, candidate]: [&str; 3]| json!({ "field": field, "control": control, "candidate": candidate });
        let recorded: Vec<Value> =
            bundle.differences.iter().map(|one| told([&one[0], &one[1], &one[2]])).collect();
        let found: Vec<Value> =
            differences.iter().map(|one| told([one.field.as_str(), &one.control, &one.candidate])).collect();
        json!({
            "reproduced": self.is_reproduced(),
            "program": bundle.program, "node": bundle.node, "time_ms": bundle.time_ms, "class": bundle.class,
            "canister": bundle.canister.to_text(),
            "kind": bundle.invocation.entry.kind(),
            "method": bundle.invocation.entry.method().map(escaped),
            "recorded": recorded,
            "runs": runs,
            "as_recorded": { "in_process": as_recorded[0], "sandboxed": as_recorded[1] },
            "different": different,
            "differences": found,
            "control_unstable": control_unstable,
        })
    }
}
