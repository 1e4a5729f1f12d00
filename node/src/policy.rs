//! `bulkhead config` and `bulkhead explain`: policy files, without a node.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use execution::Principal;
use jiff::Timestamp;
use rollout::{Conditions, Diagnostic, Exposures, LoadError, Notice, Policy, Scope};
use serde_json::{Value, json};

use crate::bounds;
use crate::cli::CommandError;
use crate::serve;

/// What `bulkhead explain` is asked.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The policy file; of rollouts it says nothing, which is what a node says that has none under way
    #[arg(long, value_name = "FILE", required_unless_present = "admin", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// The admin socket of a running node: what is in force there, rollouts and latches too
    #[arg(long, value_name = "PATH")]
    admin: Option<PathBuf>,
    /// The subnet's id, as in the policy file
    #[arg(long, value_name = "ID")]
    subnet: String,
    /// The node's id, as in the policy file
    #[arg(long, value_name = "ID")]
    node: String,
    /// A canister's id: its own rule and exemption count too
    #[arg(long, value_name = "ID", value_parser = |text: &str| Principal::from_text(text))]
    canister: Option<Principal>,
    /// The time to explain, like 2027-03-01T12:00:00Z, or a date for its midnight in UTC [default: now]
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "admin")]
    at: Option<Timestamp>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    rollout::parse_time(text).ok_or("expected a time like 2027-03-01T12:00:00Z or a date like 2027-03-01")
}

/// Checks a policy file. What is wrong goes to standard error, or with `as_json` to standard output; what is right and
/// should still be known (expired rules, live exemptions, a review that is due) to standard output.
///
/// # Errors
/// The file can't be read or is no valid policy.
pub fn check(path: &Path, as_json: bool) -> Result<(), CommandError> {
    let name = path.display().to_string();
    let loaded = Policy::load(path).map(|policy| policy.notices(Timestamp::now()));
    if as_json {
        let errors: Vec<Value> = match &loaded {
            Ok(_) => Vec::new(),
            Err(LoadError::Invalid(diagnostics)) => diagnostics.iter().map(diagnostic_json).collect(),
            Err(error) => vec![json!({ "message": error.to_string() })],
        };
        let notices: Vec<Value> = loaded.iter().flatten().map(notice_json).collect();
        print(
            &json!({ "file": name, "ok": loaded.is_ok(), "errors": errors, "notices": notices }).to_string(),
        )?;
        return loaded.map(drop).map_err(|_| CommandError::Reported);
    }
    for notice in loaded.map_err(refused)? {
        print(&format!("notice: {notice}"))?;
    }
    print(&format!("{name}: ok"))
}

/// Prints a policy file with what holds on this machine where it is silent, and where each value came from.
///
/// # Errors
/// The file can't be read or is no valid policy.
pub fn show(path: &Path, as_json: bool) -> Result<(), CommandError> {
    let policy = Policy::load(path).map_err(refused)?;
    let built_in = bounds::built_in();
    if as_json {
        print(&policy.show_json(&built_in).to_string())
    } else {
        print(policy.show(&built_in).trim_end())
    }
}

/// Prints the JSON Schema of policy files.
///
/// # Errors
/// Standard output failed.
pub fn schema() -> Result<(), CommandError> {
    print(&format!("{:#}", rollout::json_schema()))
}

/// Says which mode is in effect, and why: by a file, with the kill switch's file looked for on this machine, or by a
/// running node.
///
/// # Errors
/// The file can't be read or is no valid policy, the kill switch's file can't be looked for, or no node answers.
pub fn explain(arguments: &ExplainArgs) -> Result<(), CommandError> {
    let ExplainArgs { config, admin, subnet, node, canister, at, json: as_json } = arguments;
    if let Some(admin) = admin {
        return serve::client::explain(admin, (subnet, node, *canister), *as_json);
    }
    let policy = Policy::load(config.as_deref().unwrap_or(Path::new(""))).map_err(refused)?;
    let killed = policy.kill_engaged().map_err(|error| {
        CommandError::Failed(format!("could not look for the kill switch's file: {error}"))
    })?;
    let conditions =
        Conditions { at: at.unwrap_or_else(Timestamp::now), killed, exposures: Exposures::none() };
    let resolution = policy.resolve(&Scope { subnet, node, canister: *canister }, conditions);
    if *as_json { print(&resolution.to_json().to_string()) } else { print(&resolution.to_string()) }
}

/// Says what is wrong with a policy file.
pub(crate) fn refused(error: LoadError) -> CommandError {
    match error {
        LoadError::Invalid(_) => {
            // There is nobody to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "{error}. Nothing is changed.");
            CommandError::Reported
        }
        error => CommandError::Failed(error.to_string()),
    }
}

fn notice_json(notice: &Notice) -> Value {
    let position = notice.at.position;
    json!({ "line": position.line, "column": position.column, "message": notice.message })
}

fn diagnostic_json(error: &Diagnostic) -> Value {
    json!({
        "line": error.position.line,
        "column": error.position.column,
        "message": error.message,
        "expected": error.expected,
        "suggestion": error.suggestion,
        "note": error.note,
    })
}

fn print(text: &str) -> Result<(), CommandError> {
    writeln!(io::stdout(), "{text}").map_err(|error| CommandError::output(&error))
}
