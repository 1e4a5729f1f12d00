//! The page at `/`: files that the program carries, and what a browser may do for them. It reads the same data as
//! everybody: `/v1/status`, `/v1/latencies`, `/v1/events`.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// Path, media type and content of each file. `uplot.*` is uPlot 1.6.32 (MIT) as it is published.
const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("dashboard/index.html")),
    ("/dashboard.css", "text/css; charset=utf-8", include_str!("dashboard/dashboard.css")),
    ("/dashboard.js", "text/javascript; charset=utf-8", include_str!("dashboard/dashboard.js")),
    ("/uplot.css", "text/css; charset=utf-8", include_str!("dashboard/uplot.css")),
    ("/uplot.js", "text/javascript; charset=utf-8", include_str!("dashboard/uplot.js")),
];

/// Nothing but this node's own files and data is loaded, nothing is sent, and no other page may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A route for each file.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, media_type, content)| {
        router.route(path, get(move || async move { file(media_type, content) }))
    })
}

fn file(media_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // The files change with the program.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content)
}
