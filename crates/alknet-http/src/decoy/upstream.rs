//! The reverse proxy behind a decoy.

use std::time::Duration;

use axum::body::Body;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::DecoyError;
use crate::{auth::SESSION_COOKIE, body};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// nginx's `proxy_read_timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_CONNECTIONS: usize = 32;

/// Fields that belong to one hop (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// One site behind plain HTTP.
#[derive(Clone)]
pub(super) struct Upstream {
    authority: http::uri::Authority,
    host: HeaderValue,
    client: Client<HttpConnector, Body>,
}

/// Why the upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the request cannot be forwarded")]
    Request,
    #[error("the upstream could not be asked")]
    Client(#[from] Error),
    #[error("the upstream took too long")]
    Timeout,
}

impl Failure {
    /// What nginx answers then.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Request => StatusCode::BAD_REQUEST,
            Self::Client(_) => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl Upstream {
    pub(super) fn new(uri: Uri) -> Result<Self, DecoyError> {
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|_| plain).cloned();
        let host = authority.as_ref().and_then(|a| HeaderValue::try_from(a.as_str()).ok());
        let (Some(authority), Some(host)) = (authority, host) else {
            return Err(DecoyError::Upstream(uri));
        };
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(Self { authority, host, client })
    }

    /// Asks the upstream. Both bodies stream; a peer that stalls ends them.
    pub(super) async fn forward(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let request = self.rewrite(request)?;
        let answer = timeout(ANSWER_TIMEOUT, self.client.request(request));
        let mut response = answer.await.map_err(|_| Failure::Timeout)??;
        strip_hop_by_hop(response.headers_mut());
        Ok(response.map(body::guarded))
    }

    fn rewrite(&self, request: Request<Body>) -> Result<Request<Body>, Failure> {
        let (mut parts, body) = request.into_parts();
        let path = parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        let uri =
            Uri::builder().scheme("http").authority(self.authority.clone()).path_and_query(path);
        parts.uri = uri.build().map_err(|_| Failure::Request)?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        strip_hop_by_hop(&mut parts.headers);
        strip_our_credentials(&mut parts.headers);
        parts.headers.insert(header::HOST, self.host.clone());
        Ok(Request::from_parts(parts, body))
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// A credential that was meant for this node is not the upstream's to see, not even one
/// that does not hold.
fn strip_our_credentials(headers: &mut HeaderMap) {
    let ours = |value: &HeaderValue| {
        let scheme = value.to_str().ok().and_then(|text| text.split_once(' ')).map(|(s, _)| s);
        scheme.is_some_and(|s| {
            s.eq_ignore_ascii_case("Bearer") || s.eq_ignore_ascii_case("Concealed")
        })
    };
    if headers.get_all(header::AUTHORIZATION).iter().any(ours) {
        headers.remove(header::AUTHORIZATION);
    }
    for name in ["sec-websocket-protocol", "wt-available-protocols"] {
        headers.remove(name);
    }
    let with_session =
        |value: &HeaderValue| value.to_str().is_ok_and(|v| v.contains(SESSION_COOKIE));
    if headers.get_all(header::COOKIE).iter().any(with_session) {
        headers.remove(header::COOKIE);
    }
}
