//! The opening handshake (RFC 6455, section 4, and RFC 8441 for HTTP/2).

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use crate::origin::single;

/// How a request asks for a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By an upgrade of the HTTP/1.1 connection, with this key.
    Upgrade(String),
    /// By an extended CONNECT.
    Connect,
    /// By a handshake that is not in order.
    Wrongly(Fault),
}

/// What is wrong with a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Over HTTP/1.1 the version is not ours.
    Version,
    /// Anything else.
    Malformed,
}

/// The only version that there is (RFC 6455, section 4.1).
const VERSION: &str = "13";

/// Whether, and how, a request asks for a WebSocket.
pub(crate) fn asked<B>(request: &Request<B>) -> Option<Asked> {
    let headers = request.headers();
    let version = single(headers, &header::SEC_WEBSOCKET_VERSION) == Some(VERSION);
    if request.version() == Version::HTTP_2 {
        let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
        let connect = request.method() == Method::CONNECT && protocol == Some("websocket");
        let asked = if version { Asked::Connect } else { Asked::Wrongly(Fault::Malformed) };
        return connect.then_some(asked);
    }
    // In HTTP/1.0 there is no upgrade, and a field that `Connection` does not name is not
    // meant for this server (RFC 9110, section 7.8).
    let upgrade = request.version() == Version::HTTP_11
        && has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket");
    upgrade.then(|| match key_of(headers).filter(|_| request.method() == Method::GET) {
        _ if !version => Asked::Wrongly(Fault::Version),
        Some(key) => Asked::Upgrade(key.into()),
        None => Asked::Wrongly(Fault::Malformed),
    })
}

/// The client's key: 16 bytes in base64.
fn key_of(headers: &HeaderMap) -> Option<&str> {
    let key = single(headers, &header::SEC_WEBSOCKET_KEY)?;
    BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16).then_some(key)
}

impl Fault {
    /// What a caller is told who could have had the WebSocket (section 4.4, and RFC 9110,
    /// section 15.5.22).
    pub(crate) fn answer(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        match self {
            Self::Version => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            }
            Self::Malformed => *response.status_mut() = StatusCode::BAD_REQUEST,
        }
        response
    }
}

/// What the server makes of the client's key.
pub(crate) fn accept(key: &str) -> HeaderValue {
    let accept = derive_accept_key(key.as_bytes());
    HeaderValue::try_from(accept).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A client's key.
pub(crate) fn key() -> String {
    generate_key()
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|f| f.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request() -> http::request::Builder {
        Request::get("/alknet/echo")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", KEY)
    }

    fn asked(request: http::request::Builder) -> Option<Asked> {
        super::asked(&request.body(()).unwrap())
    }

    /// RFC 6455, section 1.3.
    #[test]
    fn the_published_key_is_accepted_as_published() {
        assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(asked(request()), Some(Asked::Upgrade(KEY.into())));
    }

    #[test]
    fn an_incomplete_handshake_asks_for_nothing_or_wrongly() {
        let without = |missing| {
            let mut request = request();
            request.headers_mut().unwrap().remove(missing);
            asked(request)
        };
        let (version, malformed) =
            (Some(Asked::Wrongly(Fault::Version)), Some(Asked::Wrongly(Fault::Malformed)));
        assert_eq!(without("connection"), None);
        assert_eq!(without("upgrade"), None);
        assert_eq!(without("sec-websocket-version"), version);
        assert_eq!(without("sec-websocket-key"), malformed);
        assert_eq!(asked(request().method("POST")), malformed);
        assert_eq!(asked(request().version(Version::HTTP_10)), None);
        assert_eq!(asked(request().header("sec-websocket-key", KEY)), malformed);
    }

    /// HTTP/2 has no `Connection` and no `Upgrade` (RFC 9113, section 8.2.2).
    #[test]
    fn over_http2_only_an_extended_connect_asks() {
        let connect = |version: &str| {
            Request::connect("https://node.example/alknet/echo")
                .version(Version::HTTP_2)
                .header("sec-websocket-version", version)
        };
        let websocket = Protocol::from_static("websocket");
        let other = Protocol::from_static("webtransport");
        assert_eq!(asked(connect("13").extension(websocket.clone())), Some(Asked::Connect));
        let wrongly = asked(connect("8").extension(websocket));
        assert_eq!(wrongly, Some(Asked::Wrongly(Fault::Malformed)));
        assert_eq!(asked(connect("13").extension(other)), None);
        assert_eq!(asked(connect("13")), None);
        assert_eq!(asked(request().version(Version::HTTP_2)), None);
        assert!(!Fault::Malformed.answer().headers().contains_key("upgrade"));
    }
}
