//! What people ask of rollouts, and how they are shown.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use axum::http::Method;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{AdminArgs, StatusArgs, ask, list, number, send, word};
use crate::cli::CommandError;

/// Time between two looks with `--wait`.
const WAIT: Duration = Duration::from_secs(1);

/// How a command is given.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Why; stands in the audit log. The policy may ask for one
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only if this generation of the policy is in force
    #[arg(long, value_name = "N")]
    if_generation: Option<u64>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A command to one rollout.
#[derive(Debug, Args)]
pub struct VerbArgs {
    /// The rollout: ID of [rollouts.ID] in the policy file
    #[arg(value_name = "ID")]
    rollout: String,
    #[command(flatten)]
    ask: AskArgs,
}

/// What `promote` may be told.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    #[command(flatten)]
    verb: VerbArgs,
    /// To the next step now, without the rest of its bake
    #[arg(long, conflicts_with = "full")]
    skip_bake: bool,
    /// To the last step now
    #[arg(long)]
    full: bool,
}

/// What `kill` may be told.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Engage the switch, or release it
    #[arg(value_enum)]
    to: OnOff,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnOff {
    /// Everything runs in the mode of [kill_switch]
    On,
    /// The policy holds again; what was rolled back stays so
    Off,
}

/// What `line` may be told.
#[derive(Debug, Args)]
pub struct LineArgs {
    /// Stop it, or let it go on
    #[arg(value_enum)]
    to: StopGo,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StopGo {
    /// No rollout goes on to a next step; rollbacks do
    Stop,
    /// They may again
    Go,
}

/// Longest id that a policy file may have.
const ID_CHARS_MAX: usize = 63;

/// Where the interface has a rollout.
pub(super) fn path(id: &str) -> Result<String, CommandError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if id.is_empty() || id.len() > ID_CHARS_MAX || !id.chars().all(plain) {
        let why =
            format!("`{}` is no id of a rollout: 1 to 63 letters, digits, `-` or `_`", id.escape_debug());
        return Err(CommandError::Usage(why));
    }
    Ok(format!("/v1/rollouts/{id}"))
}

/// Asks `verb` of a rollout.
///
/// # Errors
/// There is no node, or it refuses.
pub fn verb(arguments: &VerbArgs, verb: &str) -> Result<(), CommandError> {
    post(&arguments.ask, &format!("{}:{verb}", path(&arguments.rollout)?), json!({}))
}

/// Has a rollout go on.
///
/// # Errors
/// As [`verb`].
pub fn promote(arguments: &PromoteArgs) -> Result<(), CommandError> {
    let PromoteArgs { verb: VerbArgs { rollout, ask }, skip_bake, full } = arguments;
    post(ask, &format!("{}:promote", path(rollout)?), json!({ "skip_bake": skip_bake, "full": full }))
}

/// Engages or releases the kill switch.
///
/// # Errors
/// As [`verb`].
pub fn kill(arguments: &KillArgs) -> Result<(), CommandError> {
    let to = if arguments.to == OnOff::On { "on" } else { "off" };
    post(&arguments.ask, &format!("/v1/kill:{to}"), json!({}))
}

/// Stops the line, or lets it go on.
///
/// # Errors
/// As [`verb`].
pub fn line(arguments: &LineArgs) -> Result<(), CommandError> {
    let to = if arguments.to == StopGo::Stop { "stop" } else { "go" };
    post(&arguments.ask, &format!("/v1/line:{to}"), json!({}))
}

fn post(arguments: &AskArgs, path: &str, mut body: Value) -> Result<(), CommandError> {
    let AskArgs { admin, reason, if_generation, dry_run, json } = arguments;
    if let Some(reason) = reason {
        body["reason"] = reason.as_str().into();
    }
    if let Some(generation) = if_generation {
        body["if_generation"] = (*generation).into();
    }
    body["dry_run"] = (*dry_run).into();
    let answer = send(&admin.admin, &Method::POST, path, Some(&body))?;
    let shown = if *json { format!("{answer}\n") } else { format!("{}\n", text(&answer["said"])) };
    io::stdout().write_all(shown.as_bytes()).map_err(|error| CommandError::output(&error))
}

/// Waits until a rollout has ended or is held. One that a person paused is waited for on.
pub(super) fn wait(arguments: &StatusArgs) -> Result<(), CommandError> {
    let id = arguments.rollout.as_deref().unwrap_or_default();
    let path = path(id)?;
    let (began, mut said) = (Instant::now(), None);
    loop {
        let late = began.elapsed() >= arguments.timeout;
        match ask(&arguments.admin.admin, &Method::GET, &path) {
            Ok(rollout) => {
                let now = line_of(&rollout);
                if said.as_ref() != Some(&now) && !arguments.json {
                    tell(&format!("{now}\n"))?;
                }
                said = Some(now);
                if let Some(ending) = ending(&rollout) {
                    if arguments.json {
                        tell(&format!("{rollout}\n"))?;
                    }
                    return ending;
                }
            }
            // It was there: a node that is started anew is waited for.
            Err(error) if said.is_some() && !late && error.status.is_none() => {}
            Err(error) => return Err(error.into()),
        }
        if late {
            let why = format!("{id} has neither ended nor is it held after {:?}", arguments.timeout);
            return Err(CommandError::Undecided(why));
        }
        std::thread::sleep(WAIT);
    }
}

/// How a rollout has ended, or that it is held.
fn ending(rollout: &Value) -> Option<Result<(), CommandError>> {
    match (rollout["phase"].as_str()?, rollout["paused"].as_str()) {
        ("completed" | "finished", _) => Some(Ok(())),
        ("rolled-back", _) => Some(Err(CommandError::RolledBack)),
        ("paused", Some("guard" | "inconclusive")) => Some(Err(CommandError::Inconclusive)),
        _ => None,
    }
}

/// A text of the node as it is, without what a terminal would obey.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").chars().filter(|c| !c.is_control()).collect()
}

fn tell(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| CommandError::output(&error))
}

/// A rollout in one line.
fn line_of(rollout: &Value) -> String {
    let step = &rollout["step"];
    let mut text = format!("{}  {}", word(&rollout["id"]), word(&rollout["phase"]).to_uppercase());
    if step.is_object() {
        let _ = write!(
            text,
            "  step {}/{} {}",
            number(&step["index"]) + 1,
            number(&step["count"]),
            word(&step["name"])
        );
    }
    if matches!(rollout["phase"].as_str(), Some("baking" | "paused")) {
        let _ = write!(text, "  {} of {}", time(&rollout["baked_ms"]), time(&rollout["bake_ms"]));
    }
    if rollout["latched"] == true {
        text += if rollout["acknowledged"] == true { "  latched, acknowledged" } else { "  latched" };
    }
    text
}

fn time(milliseconds: &Value) -> String {
    let seconds = number(milliseconds) / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// Every rollout in a line, for the status of a node.
pub(super) fn listed(board: &Value) -> String {
    let mut lines = String::new();
    for rollout in list(&board["rollouts"]) {
        let _ = writeln!(lines, "rollout {}   next: {}", line_of(rollout), text(&rollout["next"]));
    }
    if board["line"]["stopped"].is_string() {
        let _ = writeln!(lines, "the line is stopped: {}", text(&board["line"]["stopped"]));
    }
    if board["trouble"].is_string() {
        let _ = writeln!(lines, "trouble: {}", text(&board["trouble"]));
    }
    lines
}

/// A rollout with all that is known of it.
pub(super) fn shown(rollout: &Value) -> String {
    let mut lines = format!(
        "{}   max {}   run {}\n",
        line_of(rollout),
        time(&rollout["max_bake_ms"]),
        number(&rollout["run"])
    );
    if rollout["why"].is_string() {
        let _ = writeln!(lines, "because {}", text(&rollout["why"]));
    }
    let _ = writeln!(lines, "next: {}", text(&rollout["next"]));
    let now = rollout["step"]["index"].as_u64();
    for step in list(&rollout["steps"]) {
        let this = number(&step["number"]);
        let mark = match now {
            Some(index) if this == index + 1 => "→",
            Some(index) if this <= index => "✓",
            _ => " ",
        };
        let _ = writeln!(
            lines,
            "{mark} {this:>2} {:<20} {:<11} {:<11} {:>6} %   bake {}",
            word(&step["name"]),
            word(&step["design"]),
            word(&step["mode"]),
            step["percent"],
            time(&step["bake_ms"])
        );
    }
    let (messages, traps) = (&rollout["messages"], &rollout["traps"]);
    if messages.is_array() {
        let _ = writeln!(
            lines,
            "messages {} / {} (control / candidate), traps {} / {}, compared {}",
            messages[0], messages[1], traps[0], traps[1], rollout["compared"]
        );
    }
    if rollout["look"].as_u64().is_some_and(|look| look > 0) {
        let _ = writeln!(lines, "look {} of {}", rollout["look"], rollout["looks"]);
    }
    for verdict in list(&rollout["verdicts"]) {
        let _ = writeln!(lines, "  {}", text(&verdict["line"]));
    }
    if rollout["record"].is_string() {
        let _ =
            writeln!(lines, "record STATE/verdicts/{}/{}", word(&rollout["id"]), word(&rollout["record"]));
    }
    if rollout["incomplete"].is_string() {
        let _ = writeln!(lines, "measurements are missing: {}", text(&rollout["incomplete"]));
    }
    lines
}
