//! The interface: for reading on a loopback address, and with changes on the admin socket. It runs on a thread of its own
//! and takes nothing from the one that runs rounds but what the board shows.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use execution::Principal;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use rollout::{Arm, Hlog, Trigger, write_hgrm};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;

use super::commands::Commands;
use super::events::Events;
use super::problem::Problem;
use super::status::Board;
use super::{admin, ask, dashboard, differences, metrics, view};

/// Connections at once, on each of the two listeners.
const CONNECTIONS_MAX: usize = 64;
/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// How long the head of a request may take, and how long a connection may wait for the next one.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take nothing of its answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Names that a browser may know a loopback address by. Any other is a page that had its own name point here.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Where the interface listens.
pub(super) struct Listeners {
    /// For reading.
    pub(super) http: Option<TcpListener>,
    /// For reading and changes.
    pub(super) admin: UnixListener,
}

/// Binds the address for reading, which must be a loopback address.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    if !address.ip().is_loopback() {
        return Err(format!(
            "--http {address}: the interface has no authentication and listens on loopback addresses alone, e.g. 127.0.0.1:{}",
            address.port()
        ));
    }
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| format!("--http {address}: could not listen: {error}"))
}

/// Serves until the process ends.
pub(super) fn start(listeners: Listeners, board: Arc<Board>, commands: Commands) -> Result<(), String> {
    let cannot = |error| format!("could not start the interface: {error}");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(cannot)?;
    let shared = Shared { board, commands, events: Arc::new(Events::new()) };
    let thread = std::thread::Builder::new().name("interface".to_owned());
    thread
        .spawn(move || {
            runtime.block_on(async {
                tokio::spawn(Arc::clone(&shared.events).tick(Arc::clone(&shared.board)));
                if let Some(http) = listeners.http {
                    tokio::spawn(serve_http(http, reading(&shared).layer(from_fn(only_loopback))));
                }
                admin::serve(listeners.admin, changing(&shared)).await;
            });
        })
        .map_err(cannot)?;
    Ok(())
}

/// What every request may see.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) board: Arc<Board>,
    pub(super) commands: Commands,
    events: Arc<Events>,
}

fn reading(shared: &Shared) -> Router {
    others(routes()).with_state(shared.clone())
}

fn changing(shared: &Shared) -> Router {
    others(routes().merge(ask::routes()).route("/v1/config:reload", post(reload))).with_state(shared.clone())
}

fn routes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route(
            "/v1/status",
            get(|State(shared): State<Shared>| async move { Json(view::status(&shared.board)) }),
        )
        .route(
            "/v1/latencies",
            get(|State(shared): State<Shared>| async move { Json(view::latencies(&shared.board)) }),
        )
        .route(
            "/v1/divergences",
            get(|State(shared): State<Shared>| async move { Json(differences::divergences(&shared.board)) }),
        )
        .route(
            "/v1/rollouts",
            get(|State(shared): State<Shared>| async move { Json(shared.board.rollouts_with_history()) }),
        )
        .route("/v1/rollouts/{id}", get(ask::one))
        .route("/v1/rollouts/{id}/verdicts", get(ask::verdicts))
        .route("/v1/rollouts/{id}/verdicts/{name}", get(ask::verdict))
        .route("/v1/audit", get(ask::audit))
        .route("/v1/resolve", get(resolve))
        .route("/v1/hist", get(histogram))
        .route("/v1/events", get(events))
        .merge(dashboard::routes())
}

/// What every other path gets.
fn others(router: Router<Shared>) -> Router<Shared> {
    router
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has no such method; changes go to the admin socket",
            )
        })
}

async fn serve_http(listener: TcpListener, router: Router) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("could not listen for HTTP: {error}"),
    };
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // One that finds no room waits in the kernel's queue, which has a bound.
        let permit = Arc::clone(&connections).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(permit);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// What can't be accepted for want of descriptors may be a little later.
pub(super) async fn pause_after(error: &std::io::Error) {
    tracing::warn!("could not accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Answers the requests of one connection.
pub(super) async fn connection(stream: impl AsyncRead + AsyncWrite + Send + 'static, router: Router) {
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_PATIENCE));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!("connection ended: {error}");
    }
}

/// Refuses requests that name another host: a page whose name was made to point here (DNS rebinding).
async fn only_loopback(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let name = host.map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    });
    match name {
        Some(name) if LOOPBACK_NAMES.contains(&name.to_ascii_lowercase().as_str()) => next.run(request).await,
        _ => Problem::new(StatusCode::FORBIDDEN, "the Host header names no loopback address").into_response(),
    }
}

async fn ready(State(shared): State<Shared>) -> Result<Json<serde_json::Value>, Problem> {
    match shared.board.phase().why_not_ready() {
        None => Ok(Json(json!({ "ready": true }))),
        Some(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

async fn scrape(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = metrics::Format::accepted(accept);
    let text = metrics::scrape(&shared.board, format).expect("a String takes everything");
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

#[derive(Deserialize)]
struct Scope {
    subnet: String,
    node: String,
    canister: Option<String>,
}

async fn resolve(
    State(shared): State<Shared>,
    scope: Result<Query<Scope>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<serde_json::Value>, Problem> {
    let Query(Scope { subnet, node, canister }) = scope.map_err(|error| {
        Problem::bad_request(format!("{}; e.g. ?subnet=local&node=n1", error.body_text()))
    })?;
    let canister = canister.map(|text| Principal::from_text(&text));
    let canister = canister
        .transpose()
        .map_err(|error| Problem::bad_request(format!("canister is no principal: {error}")))?;
    // All nodes follow one file.
    let in_force = shared.board.nodes()[0].instruments.live().in_force();
    let conditions = in_force.conditions(Timestamp::now());
    let scope = rollout::Scope { subnet: &subnet, node: &node, canister };
    let mut resolution = in_force.policy.resolve(&scope, conditions);
    resolution.generation = in_force.generation;
    let mut answer = resolution.to_json();
    answer["text"] = resolution.to_string().into();
    Ok(Json(answer))
}

#[derive(Deserialize)]
struct Series {
    mode: String,
    kind: String,
    format: Format,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Hgrm,
    Hlog,
    V2,
}

/// One merged histogram of all nodes, in a format of HdrHistogram's tools.
async fn histogram(
    State(shared): State<Shared>,
    series: Result<Query<Series>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Series { mode, kind, format }) = series.map_err(|error| {
        let text = error.body_text();
        Problem::bad_request(format!("{text}; e.g. ?mode=sandboxed&kind=update&format=hgrm (or hlog, v2)"))
    })?;
    let modes = Arm::ALL.map(Arm::as_str).join(", ");
    let arm = Arm::from_word(&mode)
        .ok_or_else(|| Problem::bad_request(format!("unknown mode; there are {modes}")))?;
    if !rollout::KINDS.contains(&kind.as_str()) {
        return Err(Problem::bad_request(format!("unknown kind; there are {}", rollout::KINDS.join(", "))));
    }
    let interval = view::merged(&shared.board).only(arm, &kind);
    let Some(found) = interval.one(arm, &kind) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("nothing was measured yet of {mode}, {kind}"),
        ));
    };
    let failed = |error: &dyn std::fmt::Debug| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("could not encode the histogram: {error:?}"))
    };
    let (content_type, bytes) = match format {
        Format::Hgrm => {
            let mut text = String::new();
            write_hgrm(&mut text, found, 1e6).map_err(|error| failed(&error))?;
            ("text/plain; charset=utf-8", text.into_bytes())
        }
        Format::Hlog => {
            let mut log = Hlog::begin(Vec::new(), &interval).map_err(|error| failed(&error))?;
            log.write(&interval).map_err(|error| failed(&error))?;
            ("text/plain; charset=utf-8", log.finish())
        }
        Format::V2 => {
            use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
            let mut bytes = Vec::new();
            V2DeflateSerializer::new().serialize(found, &mut bytes).map_err(|error| failed(&error))?;
            ("application/octet-stream", bytes)
        }
    };
    Ok(([(header::CONTENT_TYPE, content_type)], bytes).into_response())
}

async fn events(State(shared): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").map(|id| id.to_str().ok().and_then(|id| id.parse().ok()));
    let last = match last {
        Some(None) => return Err(Problem::bad_request("Last-Event-ID is no number of an event")),
        Some(last) => last,
        None => None,
    };
    let stream = shared.events.after(last);
    let stream = stream.ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "as many clients as may follow the events do already")
    })?;
    Ok(Sse::new(stream).into_response())
}

/// Reads the policy file again, for every node.
async fn reload(State(shared): State<Shared>) -> Result<Json<serde_json::Value>, Problem> {
    let board = Arc::clone(&shared.board);
    // It waits for the disk, and everybody else's answers are given by this thread.
    let reloaded = tokio::task::spawn_blocking(move || board.reload(Trigger::Request)).await;
    let reloaded = reloaded.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the reload broke off: {error}"))
    })?;
    let mut nodes = Vec::new();
    for (node, reloaded) in shared.board.nodes().iter().zip(reloaded) {
        let receipt = reloaded.map_err(|error| {
            Problem::new(StatusCode::CONFLICT, format!("{error}. The last good policy stays in force"))
        })?;
        let in_force = node.instruments.live().in_force();
        nodes.push(json!({
            "node": node.name, "changed": receipt.is_new, "generation": receipt.generation,
            "sha256": receipt.checksum.to_string(), "took_ms": receipt.took.as_secs_f64() * 1e3,
            "changes": receipt.changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "mode": in_force.mode().as_str(), "restart_for": in_force.restart_for,
        }));
    }
    Ok(Json(json!({ "nodes": nodes })))
}
