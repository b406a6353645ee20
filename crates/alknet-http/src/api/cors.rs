//! Pages of other origins: kept out by every browser unless they are listed.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};

use crate::origin::{normal, single};

/// How long a browser remembers what it was told, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, last-event-id, request-timeout");
const EXPOSED: HeaderValue = HeaderValue::from_static("allow, retry-after");

/// The origins whose pages may call. Never with a cookie: credentials are not allowed.
#[derive(Debug, Default)]
pub(super) struct Cors(Vec<String>);

impl Cors {
    pub(super) fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| normal(origin)).collect())
    }

    /// The answer to a browser that asks on behalf of a listed page (Fetch, section 3.2.2).
    pub(super) fn preflight(&self, parts: &Parts) -> Option<Response> {
        let asks = parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = self.origin(parts).filter(|_| asks)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        Some(response)
    }

    /// Lets a listed page read the answer.
    pub(super) fn allow(&self, parts: &Parts, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.origin(parts) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// The origin of the request, if it is listed.
    fn origin(&self, parts: &Parts) -> Option<HeaderValue> {
        let origin = single(&parts.headers, &header::ORIGIN)?;
        let listed = self.0.contains(&normal(origin));
        listed.then(|| HeaderValue::from_str(origin).ok()).flatten()
    }
}
