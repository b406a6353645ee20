//! Failures as problem details (RFC 9457).

use std::borrow::Cow;

use alknet_call::{CallError, ErrorCode, Spec};
use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use percent_encoding::utf8_percent_encode;
use serde::Serialize;
use serde_json::Value;

use super::{Methods, PAGE};
use crate::outbound::UNRESERVED;

/// What a failure is sent as.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// When to try again what is not possible now, in seconds.
const RETRY: HeaderValue = HeaderValue::from_static("1");

/// One kind of failure that every operation may end with.
#[derive(Debug)]
pub(super) struct Class {
    /// The fragment of its `type`.
    pub(super) slug: &'static str,
    pub(super) status: StatusCode,
    /// Of the call protocol.
    pub(super) code: &'static str,
    pub(super) title: &'static str,
}

const fn class(
    slug: &'static str,
    status: StatusCode,
    code: &'static str,
    title: &'static str,
) -> Class {
    Class { slug, status, code, title }
}

pub(super) const NOT_FOUND: Class =
    class("not-found", StatusCode::NOT_FOUND, "NOT_FOUND", "There is no such operation");
pub(super) const FORBIDDEN: Class =
    class("forbidden", StatusCode::FORBIDDEN, "FORBIDDEN", "Not with this input");
pub(super) const INVALID_INPUT: Class =
    class("invalid-input", StatusCode::BAD_REQUEST, "INVALID_INPUT", "The request makes no sense");
pub(super) const METHOD: Class = class(
    "method-not-allowed",
    StatusCode::METHOD_NOT_ALLOWED,
    "INVALID_INPUT",
    "Not with this method",
);
pub(super) const SLOW_BODY: Class =
    class("slow-body", StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "The body did not come in time");
pub(super) const TOO_LARGE: Class =
    class("too-large", StatusCode::PAYLOAD_TOO_LARGE, "INVALID_INPUT", "The body is too long");
pub(super) const NOT_JSON: Class = class(
    "not-json",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "INVALID_INPUT",
    "The body has to be JSON",
);
pub(super) const INTERNAL: Class =
    class("internal", StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "The operation failed");
pub(super) const UNAVAILABLE: Class =
    class("unavailable", StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "Not now");
pub(super) const TIMEOUT: Class =
    class("timeout", StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", "The deadline has passed");

/// All of them, in order of the status.
pub(super) const CLASSES: [&Class; 10] = [
    &INVALID_INPUT,
    &FORBIDDEN,
    &NOT_FOUND,
    &METHOD,
    &SLOW_BODY,
    &TOO_LARGE,
    &NOT_JSON,
    &INTERNAL,
    &UNAVAILABLE,
    &TIMEOUT,
];

/// The status of a failure that an operation declares.
pub(super) const DECLARED: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// A failure, as a caller gets it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Problem(Box<Told>);

#[derive(Debug, Clone, Serialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    title: Cow<'static, str>,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: String,
    code: ErrorCode,
    retryable: bool,
    details: Value,
    #[serde(skip)]
    allow: Option<HeaderValue>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn of(class: &Class, error: CallError) -> Self {
        let CallError { code, message, retryable, details, .. } = error;
        Self(Box::new(Told {
            kind: reference(class.slug),
            title: class.title.into(),
            status: class.status,
            detail: message,
            code,
            retryable,
            details,
            allow: None,
        }))
    }

    /// How an operation failed.
    pub(super) fn failed(error: CallError, spec: &Spec) -> Self {
        let ErrorCode::Other(code) = &error.code else { return error.into() };
        let declared = spec.errors.iter().find(|declared| declared.code == *code);
        let title = declared.map(|declared| declared.description.clone()).unwrap_or_default();
        let title = if title.is_empty() { code.to_string() } else { title };
        let kind = reference(&utf8_percent_encode(code, UNRESERVED).to_string());
        let Self(told) = Self::of(&INTERNAL, error);
        Self(Box::new(Told { kind, title: title.into(), status: DECLARED, ..*told }))
    }

    pub(super) fn not_found() -> Self {
        CallError::not_found().into()
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        CallError::invalid_input(message).into()
    }

    pub(super) fn method_not_allowed(methods: Methods) -> Self {
        let error = CallError::invalid_input("the path does not have this method");
        let Self(mut told) = Self::of(&METHOD, error);
        told.allow = Some(methods.allow());
        Self(told)
    }

    pub(super) fn not_json() -> Self {
        let message = "the Content-Type has to be application/json";
        Self::of(&NOT_JSON, CallError::invalid_input(message))
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body has {limit} bytes at most");
        Self::of(&TOO_LARGE, CallError::invalid_input(message))
    }

    pub(super) fn slow_body() -> Self {
        Self::of(&SLOW_BODY, CallError::timeout())
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// As JSON text. There is nothing in it that cannot be written.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(allow) = self.0.allow {
            headers.insert(header::ALLOW, allow);
        }
        if self.0.retryable && self.0.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY);
        }
        response
    }
}

/// Of a failure outside of any operation.
impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let class = match &error.code {
            ErrorCode::NotFound => &NOT_FOUND,
            ErrorCode::Forbidden => &FORBIDDEN,
            ErrorCode::InvalidInput => &INVALID_INPUT,
            ErrorCode::Timeout => &TIMEOUT,
            ErrorCode::Unavailable => &UNAVAILABLE,
            _ => &INTERNAL,
        };
        Self::of(class, error)
    }
}

fn reference(fragment: &str) -> String {
    format!("{PAGE}#{fragment}")
}
