//! What a request brings along.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderName, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::time::timeout;

use super::Problem;
use crate::origin::single;

/// How long a body may take.
const BODY: Duration = Duration::from_secs(60);
/// How long the caller will wait, in seconds.
pub(super) const TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");
/// The longest that it may say: a day.
pub(super) const MAX_TIMEOUT: u32 = 24 * 60 * 60;

/// The body as JSON; no body at all is `null`.
pub(super) async fn json(parts: &Parts, body: Body, limit: usize) -> Result<Value, Problem> {
    let announced = parts.headers.contains_key(header::CONTENT_TYPE);
    if announced && !is_json(&parts.headers) {
        return Err(Problem::not_json());
    }
    let bytes = read(body, limit).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if !announced {
        return Err(Problem::not_json());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::invalid(format!("the body is not JSON: {error}")))
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    // What announces itself as too long need not be waited for.
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::too_large(limit));
    }
    match timeout(BODY, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large(limit)),
        Ok(Err(_)) => Err(Problem::invalid("the body broke off")),
        Err(_) => Err(Problem::slow_body()),
    }
}

/// Whether the one `Content-Type` is that of JSON (RFC 8259), whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = single(headers, &header::CONTENT_TYPE) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// How long the caller will wait.
pub(super) fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    if !headers.contains_key(&TIMEOUT) {
        return Ok(None);
    }
    let text = single(headers, &TIMEOUT).unwrap_or_default();
    let plain = text.len() <= 16 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = text.parse::<f64>().ok().filter(|_| plain);
    let within = seconds.filter(|&seconds| seconds > 0.0 && seconds <= f64::from(MAX_TIMEOUT));
    match within.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Problem::invalid(format!(
            "Request-Timeout is a number of seconds above 0 and up to {MAX_TIMEOUT}"
        ))),
    }
}
