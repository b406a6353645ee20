//! The operations of a registry over plain HTTP: `POST /alknet/api/<namespace>/<name>`.
//!
//! Everything is under `/alknet/api` and for callers with an identity and a scope of `call`, or of
//! a service with operations of its own; for all others there is the decoy. An operation that a caller may not use answers as one
//! that does not exist does, whatever is asked of it.
//!
//! # Calls
//! The body of a `POST` is the input, as JSON, and the answer's is the output. A query can be
//! asked by `GET` as well: the members of its input are query parameters, read by the types of
//! its schema. Parameters end up in histories and logs, so a member that the schema marks as
//! a secret (`writeOnly`, or the format `password`) goes into a body alone.
//! `Request-Timeout` is how long the caller will wait, in seconds.
//!
//! # Subscriptions
//! `GET` and `POST` give server-sent events: a message for each item; at the end the event
//! `completed`, or `error` with the problem as its data. `Last-Event-ID` goes on behind an
//! item, where the operation supports that. A stream that is cut has neither: the
//! connection broke, or the caller's credential was revoked.
//!
//! # Batches
//! `POST /alknet/api/batch` takes an array of `{"id", "operation", "input"}` and answers with
//! an array of `{"id", "status", "output"}` or `{"id", "status", "error"}` in the same order.
//!
//! # Failures
//! Problem details (RFC 9457) with the members `code`, `retryable` and `details` of the call
//! protocol. `type` leads to an explanation on the page at `/alknet/api/`.
//!
//! # Browsers
//! A session cookie counts for an operation only where the browser says that a page of this
//! very origin asked: neither a foreign page nor a link can make it run anything. Pages of
//! the origins in [`Settings::cors_origins`] may call with a bearer token of their own.

mod batch;
mod body;
mod caller;
mod cors;
mod events;
pub mod import;
mod openapi;
mod operation;
mod page;
mod parameters;
mod problem;
mod shape;
mod walk;

use std::{fmt, sync::Arc};

use alknet_call::{Operation, OperationRegistry, Request as Call};
use alknet_core::AuthContext;
use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{any, options},
};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{Conceal, app::Shutdown};
use caller::Caller;
use cors::Cors;
use problem::Problem;

/// Where it is.
const ROOT: &str = "/alknet/api";
const PAGE: &str = "/alknet/api/";

/// How the HTTP projection is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Origins, such as `https://app.example`, whose pages may call with a bearer token.
    /// None: browsers keep all other pages out.
    pub cors_origins: Vec<String>,
    /// The longest body that is taken, in bytes.
    pub max_body: usize,
    /// The version of the node, for the description of its operations.
    pub version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cors_origins: Vec::new(),
            max_body: 4 * 1024 * 1024,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What answers the requests.
struct Api {
    registry: OperationRegistry,
    settings: Settings,
    cors: Cors,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The routes for [`Builder::private`](crate::Builder::private).
pub fn routes(registry: OperationRegistry, settings: Settings) -> Router {
    let cors = Cors::new(&settings.cors_origins);
    let api = Arc::new(Api { registry, settings, cors });
    Router::new()
        .route(ROOT, any(serve))
        .route(PAGE, any(serve))
        .route("/alknet/api/{*path}", any(serve))
        .with_state(api)
}

/// The routes for [`Builder::public`](crate::Builder::public): browsers ask without any
/// credential whether a page may call. There are none unless origins are configured.
pub fn preflights(settings: &Settings) -> Router {
    if settings.cors_origins.is_empty() {
        return Router::new();
    }
    let cors = Arc::new(Cors::new(&settings.cors_origins));
    Router::new().route("/alknet/api/{*path}", options(preflight)).with_state(cors)
}

async fn preflight(State(cors): State<Arc<Cors>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    cors.preflight(&parts).unwrap_or_else(|| Conceal.into_response())
}

async fn serve(
    State(api): State<Arc<Api>>,
    Extension(auth): Extension<AuthContext>,
    Extension(shutdown): Extension<Shutdown>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(answer) = api.cors.preflight(&parts) {
        return answer;
    }
    let Some(caller) = Caller::of(&api.registry, auth, shutdown, &parts) else {
        return Conceal.into_response();
    };
    let mut response = match api.answer(&caller, &parts, body).await {
        Ok(response) => response,
        Err(Refusal::Problem(problem)) => problem.into_response(),
        Err(Refusal::Conceal) => return Conceal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    api.cors.allow(&parts, headers);
    response
}

/// Why a request does not get what it asks for.
#[derive(Debug)]
enum Refusal {
    /// The caller is told.
    Problem(Problem),
    /// The caller has, or has by now, no business here.
    Conceal,
}

impl<P: Into<Problem>> From<P> for Refusal {
    fn from(problem: P) -> Self {
        Self::Problem(problem.into())
    }
}

impl Api {
    async fn answer(
        &self,
        caller: &Caller,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, Refusal> {
        let path = parts.uri.path().strip_prefix(ROOT).unwrap_or_default();
        let document: fn(&Self, &Caller) -> Response = match path {
            "" => {
                |_, _| (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, PAGE)]).into_response()
            }
            "/" => page::page,
            "/page.css" => |_, _| page::style(),
            "/page.js" => |_, _| page::script(),
            "/openapi.json" => openapi::answer,
            _ if !caller.may_call() => return Err(Refusal::Conceal),
            "/batch" => return self.batch(caller, parts, body).await,
            path => {
                return self
                    .operation(caller, parts, path.strip_prefix('/').unwrap_or(path), body)
                    .await;
            }
        };
        Ok(match Methods::Read.check(parts)? {
            Some(options) => options,
            None => document(self, caller),
        })
    }

    /// An operation that the caller may use; else the one answer for all others.
    fn find(&self, caller: &Caller, name: &str) -> Result<Arc<Operation>, Problem> {
        match self.registry.find(name, &caller.auth) {
            Some(operation) => Ok(operation),
            None => {
                // The registry knows which of the two it is, and so does the audit log.
                drop(self.registry.start(Call::new(name, caller.auth.clone())));
                Err(Problem::not_found())
            }
        }
    }
}

/// The methods that a path has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Methods {
    /// It is read.
    Read,
    /// It changes something.
    Write,
    /// Either way.
    Both,
}

impl Methods {
    /// As the `Allow` field names them.
    fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Read => "GET, HEAD, OPTIONS",
            Self::Write => "OPTIONS, POST",
            Self::Both => "GET, HEAD, OPTIONS, POST",
        })
    }

    /// Whether the request has one of them: that it goes on, or the answer to `OPTIONS`.
    fn check(self, parts: &Parts) -> Result<Option<Response>, Problem> {
        match parts.method {
            Method::GET | Method::HEAD if self != Self::Write => Ok(None),
            Method::POST if self != Self::Read => Ok(None),
            Method::OPTIONS => {
                Ok(Some((StatusCode::NO_CONTENT, [(header::ALLOW, self.allow())]).into_response()))
            }
            _ => Err(Problem::method_not_allowed(self)),
        }
    }
}
