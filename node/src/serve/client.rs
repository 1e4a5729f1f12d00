//! `bulkhead status`, `divergences`, `config reload` and what is asked of rollouts: a running node over its admin socket.

mod rollouts;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use clap::Args;
use execution::Principal;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::UnixStream;

use crate::cli::CommandError;
use crate::observation::escaped;

pub use rollouts::{KillArgs, LineArgs, PromoteArgs, VerbArgs, kill, line, promote, verb};

/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long an answer may take: longer than the node waits before it says that it won't.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks with `--watch`.
const WATCH: Duration = Duration::from_secs(1);

/// What `status` may be told.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A rollout, to show it alone and whole
    #[arg(value_name = "ID")]
    rollout: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Wait until the rollout has ended or is held, and say how by the exit code
    #[arg(long, requires = "rollout", conflicts_with = "watch")]
    wait: bool,
    /// How long to wait, e.g. 30m
    #[arg(long, value_name = "TIME", value_parser = crate::compare::duration, default_value = "2h", requires = "wait")]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print it again every second, until the node is gone
    #[arg(long)]
    watch: bool,
}

/// Which node is asked.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The node's admin socket: `admin.sock` in its state directory, unless it was told another
    #[arg(long, value_name = "PATH")]
    admin: PathBuf,
}

/// Shows the status of a running node.
///
/// # Errors
/// There is none, or it doesn't answer.
pub fn status(arguments: &StatusArgs) -> Result<(), CommandError> {
    if arguments.wait {
        return rollouts::wait(arguments);
    }
    let admin = &arguments.admin.admin;
    let path = arguments.rollout.as_deref().map(rollouts::path).transpose()?;
    let look = || match &path {
        Some(path) => {
            let rollout = ask(admin, &Method::GET, path)?;
            Ok(if arguments.json { format!("{rollout}\n") } else { rollouts::shown(&rollout) })
        }
        None => {
            let mut status = ask(admin, &Method::GET, "/v1/status")?;
            if !arguments.json {
                return Ok(shown(&status));
            }
            status["phases"] = phases(&ask(admin, &Method::GET, "/v1/latencies")?);
            Ok(format!("{status}\n"))
        }
    };
    let mut looked = false;
    loop {
        let mut text = match look() {
            Ok(text) => text,
            // It was there, and its end is the end of the watch.
            Err(AskError { status: None, .. }) if looked => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if arguments.watch && !arguments.json && io::stdout().is_terminal() {
            text.insert_str(0, "\x1b[H\x1b[2J");
        }
        let mut out = io::stdout();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| CommandError::output(&error))?;
        if !arguments.watch {
            return Ok(());
        }
        looked = true;
        std::thread::sleep(WATCH);
    }
}

/// Where the time goes, of what `/v1/latencies` says: of all nodes together, and of each.
fn phases(latencies: &Value) -> Value {
    let nodes: Map<String, Value> = list(&latencies["nodes"])
        .map(|node| (node["node"].as_str().unwrap_or_default().to_owned(), node["phases"].clone()))
        .collect();
    json!({ "unit": latencies["unit"], "merged": latencies["merged"]["phases"], "nodes": nodes })
}

/// Has a running node read its policy file again, and says what is in force then.
///
/// # Errors
/// There is none, or it refuses the file.
pub fn reload(arguments: &AdminArgs) -> Result<(), CommandError> {
    let receipt = ask(&arguments.admin, &Method::POST, "/v1/config:reload")?;
    let mut text = String::new();
    for node in list(&receipt["nodes"]) {
        let changed = if node["changed"] == true { "changed" } else { "as before" };
        let _ = writeln!(
            text,
            "{}: generation {}, {}, mode {}",
            word(&node["node"]),
            node["generation"],
            changed,
            word(&node["mode"])
        );
        for change in list(&node["changes"]) {
            let _ = writeln!(text, "    {}", word(change));
        }
    }
    io::stdout().write_all(text.as_bytes()).map_err(|error| CommandError::output(&error))
}

/// Says which mode is in effect on a running node, and why.
///
/// # Errors
/// There is none, or it doesn't answer.
pub fn explain(
    admin: &Path,
    (subnet, node, canister): (&str, &str, Option<Principal>),
    json: bool,
) -> Result<(), CommandError> {
    let plain = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !plain(subnet) || !plain(node) {
        return Err(CommandError::Usage("ids have letters, digits, `-` and `_`".to_owned()));
    }
    let canister = canister.map(|id| format!("&canister={}", id.to_text())).unwrap_or_default();
    let path = format!("/v1/resolve?subnet={subnet}&node={node}{canister}");
    let found = ask(admin, &Method::GET, &path)?;
    let text = match found["text"].as_str() {
        Some(text) if !json => text.chars().filter(|c| *c == '\n' || !c.is_control()).collect(),
        _ => found.to_string(),
    };
    writeln!(io::stdout(), "{text}").map_err(|error| CommandError::output(&error))
}

/// What `divergences` may be told.
#[derive(Debug, Args)]
pub struct DivergencesArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Lists what shadow has found on a running node.
///
/// # Errors
/// There is none, or it doesn't answer.
pub fn divergences(arguments: &DivergencesArgs) -> Result<(), CommandError> {
    let found = ask(&arguments.admin.admin, &Method::GET, "/v1/divergences")?;
    let text = if arguments.json { format!("{found}\n") } else { listed(&found) };
    io::stdout().write_all(text.as_bytes()).map_err(|error| CommandError::output(&error))
}

/// Shows the difference that `divergences` lists at `number`, from 1.
///
/// # Errors
/// There is no node, it doesn't answer, or there is no such difference.
pub fn divergence(arguments: &DivergencesArgs, number: usize) -> Result<(), CommandError> {
    let found = ask(&arguments.admin.admin, &Method::GET, "/v1/divergences")?;
    let Some(one) = number.checked_sub(1).and_then(|index| list(&found["divergences"]).nth(index)) else {
        let count = list(&found["divergences"]).count();
        return Err(CommandError::Failed(format!("there is no difference {number}; {count} are listed")));
    };
    let text = if arguments.json { format!("{one}\n") } else { shown_difference(one) };
    io::stdout().write_all(text.as_bytes()).map_err(|error| CommandError::output(&error))
}

fn listed(found: &Value) -> String {
    let compared = number(&found["compared"]);
    let since = list(&found["divergences"]).any(|one| number(&one["count"]) > 0);
    let mut text = match compared {
        _ if since => String::new(),
        0 => "nothing was compared: no node has run a message in shadow since its start\n".to_owned(),
        // None in n: the rule of three.
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        _ => format!(
            "no difference in {compared} comparisons: fewer than {:.1e} of messages differ, at 95 % confidence\n",
            3.0 / compared as f64
        ),
    };
    if list(&found["divergences"]).next().is_some() {
        let _ = writeln!(
            text,
            "{:>3}  {:<24} {:<5} {:>7} {:<7} {:<27} {:<16} field",
            "#", "class", "node", "count", "found", "canister", "kind"
        );
    }
    for (one, at) in list(&found["divergences"]).zip(1..) {
        let when = match (number(&one["count"]), one["found_before"].is_object()) {
            (0, _) => "before",
            (_, true) => "again",
            (_, false) => "now",
        };
        let _ = writeln!(
            text,
            "{at:>3}  {:<24} {:<5} {:>7} {when:<7} {:<27} {:<16} {}",
            word(&one["class"]),
            word(&one["node"]),
            number(&one["count"]),
            word(&one["canister"]),
            word(&one["kind"]),
            word(&one["field"]),
        );
    }
    if since {
        let _ = writeln!(text, "{compared} comparisons; more of one: bulkhead divergences show N");
    }
    if number(&found["not_shown"]) > 0 {
        let _ = writeln!(text, "{} more are not shown", number(&found["not_shown"]));
    }
    let before = &found["found_before"];
    if number(&before["kinds"]) > 0 {
        let kinds = number(&before["kinds"]);
        let _ = writeln!(
            text,
            "{kinds} found before this start, by what was kept: no count and no guard has them"
        );
    }
    for unread in list(&before["unread"]) {
        let _ = writeln!(text, "not listed: {}", word(unread));
    }
    text
}

fn shown_difference(one: &Value) -> String {
    let time = |seconds: &Value| {
        let time = seconds.as_f64().and_then(|seconds| jiff::SignedDuration::try_from_secs_f64(seconds).ok());
        let time = time.and_then(|since| jiff::Timestamp::from_duration(since).ok());
        time.map_or_else(|| "-".to_owned(), |time| time.to_string())
    };
    let at = |seconds: &Value, invocation: &Value| match seconds {
        Value::Null => "-".to_owned(),
        seconds => format!("{}, invocation {invocation}", time(seconds)),
    };
    let before = &one["found_before"];
    let lines = [
        ("class", word(&one["class"])),
        ("node", word(&one["node"])),
        ("canister", word(&one["canister"])),
        ("message", format!("{} {}", word(&one["kind"]), word(&one["method"]))),
        ("field", word(&one["field"])),
        ("in-process", word(&one["control"])),
        ("sandboxed", word(&one["candidate"])),
        ("seen", format!("{} times since the start", number(&one["count"]))),
        ("first", at(&one["first_time"], &one["first_invocation"])),
        ("last", at(&one["last_time"], &one["last_invocation"])),
        ("before", at(&before["time"], &before["invocation"])),
    ];
    let mut text: String = lines.iter().map(|(name, said)| format!("{name:<11}{said}\n")).collect();
    let bundle = one["bundle"].as_str().or_else(|| before["bundle"].as_str());
    let again = match bundle {
        Some(bundle) => format!("bulkhead divergences replay {bundle}"),
        None => format!(
            "not kept, {}; the whole log: bulkhead replay STATE/input.log --mode in-process --against sandboxed",
            one["no_bundle"].as_str().unwrap_or("-")
        ),
    };
    let _ = writeln!(text, "{:<11}{again}", "again");
    text
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), escaped)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn shown(status: &Value) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| _ = writeln!(text, "{arguments}");
    line(format_args!("{}", word(&status["phase"])));
    if status["why_not_ready"].is_string() {
        line(format_args!("not ready: {}", word(&status["why_not_ready"])));
    }
    if status["rounds"].is_null() {
        return text;
    }
    line(format_args!(
        "rounds {}, messages acknowledged {}, refused {}, in the log {} ({} bytes)",
        status["rounds"],
        status["messages"]["acknowledged"],
        status["messages"]["refused"],
        status["messages"]["in_log"],
        status["input_log_bytes"]
    ));
    line(format_args!("state root     {}", word(&status["state_root"])));
    line(format_args!("certified root {}", word(&status["certified_root"])));
    line(format_args!(
        "{:<5} {:<11} {:<8} {:>10} {:>8} {:>9} {:>9}  confinement",
        "node", "mode", "reason", "generation", "workers", "compared", "different"
    ));
    for node in list(&status["nodes"]) {
        line(format_args!(
            "{:<5} {:<11} {:<8} {:>10} {:>8} {:>9} {:>9}  {}",
            word(&node["node"]),
            word(&node["mode"]),
            word(&node["resolution"]["reason"]),
            number(&node["generation"]),
            list(&node["sandbox"]["workers"]).count(),
            number(&node["shadow"]["equal"]) + number(&node["shadow"]["diverged"]),
            number(&node["shadow"]["diverged"]),
            word(&node["sandbox"]["confinement"]),
        ));
        if node["policy_refused"].is_string() {
            line(format_args!("      policy file refused, the last good one stays in force: see its log"));
        }
    }
    let before = number(&status["divergences_found_before"]);
    if before > 0 {
        let _ =
            writeln!(text, "differences found before this start: {before}, see bulkhead divergences list");
    }
    text += &rollouts::listed(&status["rollouts"]);
    text
}

/// Why there is no answer, or a refusal.
#[derive(Debug)]
struct AskError {
    /// Of the refusal; `None`: nobody answered.
    status: Option<StatusCode>,
    /// This user may not connect.
    denied: bool,
    text: String,
}

impl From<AskError> for CommandError {
    fn from(error: AskError) -> Self {
        match error.status {
            Some(StatusCode::FORBIDDEN) => Self::Denied(error.text),
            None if error.denied => Self::Denied(error.text),
            Some(_) | None => Self::Failed(error.text),
        }
    }
}

/// One request and its answer.
fn ask(admin: &Path, method: &Method, path: &str) -> Result<Value, AskError> {
    send(admin, method, path, None)
}

/// As [`ask`], with a body.
fn send(admin: &Path, method: &Method, path: &str, body: Option<&Value>) -> Result<Value, AskError> {
    let nobody = |text: String| AskError { status: None, denied: false, text };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| nobody(format!("could not ask: {error}")))?;
    runtime.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, exchange(admin, method, path, body)).await;
        asked.unwrap_or_else(|_| Err(nobody(format!("{}: no answer within {PATIENCE:?}", admin.display()))))
    })
}

async fn exchange(
    admin: &Path,
    method: &Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, AskError> {
    let failed = |error: &dyn std::fmt::Display| AskError {
        status: None,
        denied: false,
        text: format!("{}: {error}", admin.display()),
    };
    let stream = UnixStream::connect(admin).await.map_err(|error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let why = if denied {
            format!("this user may not connect ({error}): the socket is for the node's user and root")
        } else {
            format!("no node answers on this admin socket ({error}): is `bulkhead serve` running?")
        };
        AskError { denied, ..failed(&why) }
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| failed(&error))?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|error| failed(&format!("no JSON: {error}")))?;
    if status.is_success() {
        return Ok(value);
    }
    let detail = value["detail"].as_str().unwrap_or("it refuses without a reason");
    let detail = detail.lines().map(escaped).collect::<Vec<_>>().join("\n");
    Err(AskError { status: Some(status), ..failed(&detail) })
}
