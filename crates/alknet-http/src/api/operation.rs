//! One operation, called by one request.

use alknet_call::{CallError, Execution, Kind, Output, Request as Call, Spec};
use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use serde_json::{Map, Value};

use super::{Api, Caller, Methods, Problem, Refusal, body, events, parameters};
use crate::origin::single;

/// The event behind which a subscription goes on (HTML, section 9.2).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The methods of an operation.
pub(super) fn methods(spec: &Spec) -> Methods {
    match spec.kind {
        Kind::Mutation => Methods::Write,
        _ if parameters::hold(spec.input.json()) => Methods::Both,
        _ => Methods::Write,
    }
}

impl Api {
    pub(super) async fn operation(
        &self,
        caller: &Caller,
        parts: &Parts,
        name: &str,
        body: Body,
    ) -> Result<Response, Refusal> {
        // Before all else: nothing that follows may tell that there is such an operation.
        let operation = self.find(caller, name)?;
        let spec = operation.spec();
        if let Some(options) = methods(spec).check(parts)? {
            return Ok(options);
        }
        let mut call = Call::new(name, caller.auth.clone());
        call.timeout = body::deadline(&parts.headers)?;
        if spec.resumable {
            call.after = last_event(&parts.headers)?;
        }
        // Before the body is waited for: what is revoked meanwhile must not run any more.
        let login = caller.login()?;
        call.input = match parts.method {
            Method::POST => tokio::select! {
                biased;
                () = login.revoked() => return Err(Refusal::Conceal),
                input = body::json(parts, body, self.settings.max_body) => input?,
            },
            _ => parameters::input(spec.input.json(), parts.uri.query())?,
        };
        if parts.method == Method::HEAD && spec.kind == Kind::Subscription {
            // There is nobody to give an item to, so nothing begins.
            fits(spec, &call.input).map_err(|error| Problem::failed(error, spec))?;
            return Ok(events::head());
        }
        let execution = self.start(call, spec)?;
        if spec.kind == Kind::Subscription {
            return Ok(events::answer(execution, login, caller.shutdown()));
        }
        tokio::select! {
            biased;
            () = login.revoked() => Err(Refusal::Conceal),
            outcome = execution.output() => {
                Ok(json(outcome.map_err(|error| Problem::failed(error, spec))?))
            }
        }
    }

    pub(super) fn start(&self, call: Call, spec: &Spec) -> Result<Execution, Problem> {
        self.registry.start(call).map_err(|error: CallError| Problem::failed(error, spec))
    }
}

/// Whether the input is one that the registry takes: nothing is an object without members.
fn fits(spec: &Spec, input: &Value) -> Result<(), CallError> {
    match spec.input.check(input) {
        Err(_) if input.is_null() => spec.input.check(&Value::Object(Map::new())),
        checked => checked,
    }
}

fn json(output: Output) -> Response {
    let mut response = Response::new(Body::from(String::from(Box::<str>::from(output))));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// The event that the client saw last; an empty one is none.
fn last_event(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(None) };
    // Browsers send it as UTF-8, which `single` takes for no text at all.
    let text = match single(headers, &LAST_EVENT_ID) {
        Some(text) => Some(text),
        None => std::str::from_utf8(value.as_bytes()).ok(),
    };
    match text {
        Some("") => Ok(None),
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Problem::invalid("Last-Event-ID is not UTF-8")),
    }
}
