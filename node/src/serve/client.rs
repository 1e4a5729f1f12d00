//! `bulkhead status` and `bulkhead config reload`: ask a running node over its admin socket.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use clap::Args;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::cli::CommandError;
use crate::observation::escaped;

/// Longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks with `--watch`.
const WATCH: Duration = Duration::from_secs(1);

/// What `status` may be told.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
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
    let mut looked = false;
    loop {
        let status = match ask(&arguments.admin.admin, &Method::GET, "/v1/status") {
            Ok(status) => status,
            // It was there, and its end is the end of the watch.
            Err(_) if looked => return Ok(()),
            Err(error) => return Err(CommandError::Failed(error)),
        };
        let mut text = if arguments.json { format!("{status}\n") } else { shown(&status) };
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

/// Has a running node read its policy file again, and says what is in force then.
///
/// # Errors
/// There is none, or it refuses the file.
pub fn reload(arguments: &AdminArgs) -> Result<(), CommandError> {
    let receipt = ask(&arguments.admin, &Method::POST, "/v1/config:reload").map_err(CommandError::Failed)?;
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
    text
}

/// One request and its answer.
fn ask(admin: &Path, method: &Method, path: &str) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| format!("could not ask: {error}"))?;
    runtime.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, exchange(admin, method, path)).await;
        asked.unwrap_or_else(|_| Err(format!("{}: no answer within {PATIENCE:?}", admin.display())))
    })
}

async fn exchange(admin: &Path, method: &Method, path: &str) -> Result<Value, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", admin.display());
    let stream = UnixStream::connect(admin).await.map_err(|error| {
        failed(&format!("no node answers on this admin socket ({error}): is `bulkhead serve` running?"))
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .body(Body::empty())
        .expect("its parts are valid");
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| failed(&error))?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|error| failed(&format!("no JSON: {error}")))?;
    if status.is_success() {
        return Ok(value);
    }
    let detail = value["detail"].as_str().unwrap_or("it refuses without a reason");
    Err(format!("{}: {}", admin.display(), detail.lines().map(escaped).collect::<Vec<_>>().join("\n")))
}
