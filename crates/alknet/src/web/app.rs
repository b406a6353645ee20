//! The web client's files, embedded in the program.

use alknet_http::Conceal;
use axum::{
    Router,
    extract::Path,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use rust_embed::RustEmbed;

/// `web/app/dist`, as it was when the program was built.
#[derive(RustEmbed)]
#[folder = "../../web/app/dist"]
#[allow_missing = true]
struct Files;

/// Scripts and WebAssembly of our own, connections to any node, nothing else. xterm.js sets
/// style attributes, hence `unsafe-inline` for styles alone.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
    style-src 'self' 'unsafe-inline'; font-src 'self'; img-src 'self' data:; \
    connect-src 'self' https: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router {
    Router::new()
        .route("/alknet/app/", get(|| async { file("index.html") }))
        .route("/alknet/app/{*path}", get(|Path(path): Path<String>| async move { file(&path) }))
}

/// The page at `/` of a node that does not hide.
pub(super) async fn landing() -> Html<&'static str> {
    Html(include_str!("landing.html"))
}

fn file(path: &str) -> Response {
    let Some(file) = Files::get(path) else {
        if path == "index.html" {
            return (StatusCode::NOT_FOUND, "This build of alknet has no web client.\n")
                .into_response();
        }
        return Conceal.into_response();
    };
    let kind = HeaderValue::from_str(file.metadata.mimetype());
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    // Vite names what it puts into assets/ by its content.
    let cache = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    (headers, file.data).into_response()
}
