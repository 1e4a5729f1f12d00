//! Rollouts over the interface: what they do, what was said of them, and what people ask of them.

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router, body::Bytes};
use rollout::audit::{self, FILE_NAME};
use rollout::machine::Promotion;
use rollout::store::{FileStore, StateStore, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::Peer;
use super::commands::{Ask, Command, Verb};
use super::http::Shared;
use super::problem::Problem;

/// Longest body of a command, bytes.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 1 << 10;
/// Entries of the audit log in one answer.
const ENTRIES_MAX: usize = 1_000;

/// Where commands go. On the admin socket alone.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/rollouts/{id}", post(of_rollout))
        .route("/v1/kill:on", post(|peer, shared, body| of_node(peer, shared, body, Verb::Kill(true))))
        .route("/v1/kill:off", post(|peer, shared, body| of_node(peer, shared, body, Verb::Kill(false))))
        .route("/v1/line:stop", post(|peer, shared, body| of_node(peer, shared, body, Verb::StopLine(true))))
        .route("/v1/line:go", post(|peer, shared, body| of_node(peer, shared, body, Verb::StopLine(false))))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// What a command may say of itself.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    reason: Option<String>,
    if_generation: Option<u64>,
    dry_run: bool,
    skip_bake: bool,
    full: bool,
}

fn body(bytes: Result<Bytes, BytesRejection>) -> Result<Body, Problem> {
    let bytes = bytes.map_err(|error| {
        let why = format!("{}; a command has at most {BODY_BYTES_MAX} bytes", error.body_text());
        Problem::new(error.status(), why)
    })?;
    if bytes.is_empty() {
        return Ok(Body::default());
    }
    let body: Body = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("the body is no command: {error}")))?;
    match &body.reason {
        Some(reason) if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX => Err(
            Problem::bad_request(format!("a reason has 1 to {REASON_BYTES_MAX} bytes, and not only spaces")),
        ),
        Some(reason) if reason.contains(char::is_control) => {
            Err(Problem::bad_request("a reason has no control characters"))
        }
        _ => Ok(body),
    }
}

async fn of_rollout(
    Extension(peer): Extension<Peer>,
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(path) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let body = body(bytes)?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "a command is POST /v1/rollouts/ID:VERB");
    let (id, verb) = path.rsplit_once(':').ok_or_else(none)?;
    let promotion = match (body.skip_bake, body.full) {
        (false, false) => Promotion::Next,
        (true, false) => Promotion::SkipBake,
        (false, true) => Promotion::Full,
        (true, true) => return Err(Problem::bad_request("skip_bake and full are two different promotions")),
    };
    let ask = match verb {
        "start" => Ask::Start,
        "pause" => Ask::Pause,
        "resume" => Ask::Resume,
        "promote" => Ask::Promote(promotion),
        "abort" => Ask::Abort,
        "ack" => Ask::Acknowledge,
        "retry" => Ask::Retry,
        "finish" => Ask::Finish,
        _ => {
            let known = "start, pause, resume, promote, abort, ack, retry, finish";
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                format!("there is no such command; there are {known}"),
            ));
        }
    };
    if promotion != Promotion::Next && !matches!(ask, Ask::Promote(_)) {
        return Err(Problem::bad_request("skip_bake and full belong to promote"));
    }
    send(&shared, peer, body, Verb::Rollout(id.to_owned(), ask)).await
}

async fn of_node(
    Extension(peer): Extension<Peer>,
    State(shared): State<Shared>,
    bytes: Result<Bytes, BytesRejection>,
    verb: Verb,
) -> Result<Json<Value>, Problem> {
    let body = body(bytes)?;
    if body.skip_bake || body.full {
        return Err(Problem::bad_request("skip_bake and full belong to promote"));
    }
    send(&shared, peer, body, verb).await
}

async fn send(shared: &Shared, peer: Peer, body: Body, verb: Verb) -> Result<Json<Value>, Problem> {
    let Body { reason, if_generation, dry_run, .. } = body;
    let actor = format!("uid {}", peer.uid);
    let answer = shared.commands.send(Command { verb, actor, reason, if_generation, dry_run }).await;
    answer.map(Json).map_err(|refused| Problem::new(refused.status, refused.why))
}

/// One rollout.
pub(super) async fn one(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let board = shared.board.rollouts_with_history();
    let found = board["rollouts"].as_array().into_iter().flatten().find(|rollout| rollout["id"] == *id);
    let none = || Problem::new(StatusCode::NOT_FOUND, "there is no such rollout for this subnet");
    Ok(Json(found.cloned().ok_or_else(none)?))
}

fn unreadable(error: &StoreError) -> Problem {
    let status = match error {
        StoreError::Id(_) | StoreError::Name(_) => StatusCode::BAD_REQUEST,
        StoreError::Absent { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, error.to_string())
}

/// Reads from the disk, apart from the thread that answers everybody else.
async fn read<T: Send + 'static>(
    shared: &Shared,
    read: impl FnOnce(&std::path::Path) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let board = std::sync::Arc::clone(&shared.board);
    let read = tokio::task::spawn_blocking(move || read(board.state())).await;
    read.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
}

/// The names of a rollout's verdict records, oldest first.
pub(super) async fn verdicts(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let names = read(&shared, move |state| {
        FileStore::beside(state).verdicts(&id).map_err(|error| unreadable(&error))
    });
    Ok(Json(json!({ "verdicts": names.await? })))
}

/// A record, for `bulkhead verdict --recompute`.
pub(super) async fn verdict(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((id, name)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let record = read(&shared, move |state| {
        FileStore::beside(state).verdict(&id, &name).map_err(|error| unreadable(&error))
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok((headers, record.await?).into_response())
}

#[derive(Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// Entries of the audit log after a number; without one, the last.
pub(super) async fn audit(
    State(shared): State<Shared>,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(After { after, limit }) =
        query.map_err(|error| Problem::bad_request(format!("{}; e.g. ?after=12", error.body_text())))?;
    let limit = limit.unwrap_or(100).clamp(1, ENTRIES_MAX);
    let entries = read(&shared, move |state| {
        let path = state.join(FILE_NAME);
        let failed =
            |error: audit::AuditError| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        let last = audit::last_seq(&path).map_err(failed)?;
        let after = if after == 0 { last.saturating_sub(limit as u64) } else { after };
        audit::read_after(&path, after, limit).map_err(failed)
    });
    let entries: Vec<Value> =
        entries.await?.iter().filter_map(|record| serde_json::from_str(&record.line).ok()).collect();
    Ok(Json(json!({ "entries": entries })))
}
