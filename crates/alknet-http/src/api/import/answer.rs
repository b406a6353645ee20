//! The API's answer as what a call comes to.

use std::error::Error;

use alknet_call::{CallError, Output};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json, value::RawValue};

/// The longest answer, in bytes: what a frame of the call protocol holds.
const ANSWER: usize = 4 * 1024 * 1024;
/// The longest explanation of a failure that is passed on, in bytes.
const EXPLANATION: usize = 16 * 1024;

const NO_SUCH_RESOURCE: &str = "NO_SUCH_RESOURCE";
const CONFLICT: &str = "CONFLICT";
const REFUSED: &str = "REFUSED";

/// The failures that every operation of an API declares.
pub(super) const DECLARED: [(&str, &str); 3] = [
    (NO_SUCH_RESOURCE, "The API does not have what is asked for."),
    (CONFLICT, "The API has it in another state."),
    (REFUSED, "The API refuses the request."),
];

/// The output, or the failure that the status stands for.
pub(super) async fn output(answer: Response<Incoming>) -> Result<Output, CallError> {
    let (parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        let body = Limited::new(body, EXPLANATION).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(failure(parts.status, &parts.headers, &body));
    }
    let body = Limited::new(body, ANSWER).collect().await.map_err(|error| {
        let too_long = error.is::<LengthLimitError>();
        let why = if too_long { "is too long" } else { "broke off" };
        let mut error = CallError::unavailable(format!("the API's answer {why}"));
        error.retryable = !too_long;
        error
    })?;
    written(&parts.headers, body.to_bytes())
}

fn written(headers: &HeaderMap, body: Bytes) -> Result<Output, CallError> {
    if body.is_empty() {
        return Ok(RawValue::NULL.to_owned());
    }
    let wrong = |what: &str| settled(format!("the API's answer is not {what}"));
    let text = String::from_utf8(body.into()).map_err(|_| wrong("text"))?;
    if is_json(headers) {
        return RawValue::from_string(text).map_err(|_| wrong("the JSON it is said to be"));
    }
    serde_json::value::to_raw_value(&text).map_err(CallError::internal)
}

fn failure(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> CallError {
    let explanation = Some(body).filter(|_| is_json(headers));
    let explanation = explanation.and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let details = json!({ "status": status.as_u16(), "answer": explanation });
    let message = format!("the API answered with {status}");
    let error = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            CallError::invalid_input(message)
        }
        StatusCode::FORBIDDEN => CallError::forbidden(message),
        StatusCode::NOT_FOUND | StatusCode::GONE => CallError::declared(NO_SUCH_RESOURCE, message),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {
            CallError::declared(CONFLICT, message)
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => CallError::timeout(),
        StatusCode::TOO_MANY_REQUESTS => CallError::unavailable(message),
        // The node's own credential, or an address that has moved.
        StatusCode::UNAUTHORIZED => settled(message),
        status if status.is_redirection() => settled(message),
        status if status.is_client_error() => CallError::declared(REFUSED, message),
        _ => CallError::unavailable(message),
    };
    error.with_details(details)
}

/// What trying again does not change.
fn settled(message: String) -> CallError {
    let mut error = CallError::unavailable(message);
    error.retryable = false;
    error
}

pub(super) fn unreachable(error: &hyper_util::client::legacy::Error) -> CallError {
    tracing::debug!(error = error as &dyn Error, "an imported API cannot be reached");
    CallError::unavailable("the API cannot be reached")
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}
