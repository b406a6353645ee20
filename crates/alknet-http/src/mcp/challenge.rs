//! What strangers are told: RFC 9728, and the challenge that leads there.

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::json;

use super::PATH;
use crate::{Conceal, origin::authority};

/// Where the metadata is: the well-known name before the path of the resource (RFC 9728,
/// section 3.1).
const METADATA: &str = "/.well-known/oauth-protected-resource/alknet/mcp";

pub(super) fn routes(name: &str) -> Router {
    let name: std::sync::Arc<str> = name.into();
    Router::new()
        .route(PATH, any(challenge))
        .route(METADATA, get(async move |parts: Parts| metadata(&parts, &name)))
}

async fn challenge(parts: Parts) -> Response {
    let value = authority(&parts).and_then(|authority| {
        let text = format!(r#"Bearer resource_metadata="https://{authority}{METADATA}""#);
        HeaderValue::try_from(text).ok()
    });
    match value {
        Some(value) => {
            let headers = [(header::WWW_AUTHENTICATE, value), (header::CACHE_CONTROL, no_store())];
            (StatusCode::UNAUTHORIZED, headers).into_response()
        }
        None => Conceal.into_response(),
    }
}

fn metadata(parts: &Parts, name: &str) -> Response {
    let Some(authority) = authority(parts) else { return Conceal.into_response() };
    let metadata = json!({
        "resource": format!("https://{authority}{PATH}"),
        "resource_name": name,
        "bearer_methods_supported": ["header"],
    });
    ([(header::CACHE_CONTROL, no_store())], Json(metadata)).into_response()
}

/// What is told depends on the name the node was asked by.
fn no_store() -> HeaderValue {
    HeaderValue::from_static("no-store")
}
