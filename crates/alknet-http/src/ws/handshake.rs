//! The opening handshake (RFC 6455, section 4, and RFC 8441 for HTTP/2).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
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
}

/// Whether, and how, a request asks for a WebSocket.
pub(crate) fn asked<B>(request: &Request<B>) -> Option<Asked> {
    let headers = request.headers();
    if single(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return None;
    }
    if request.version() == Version::HTTP_2 {
        let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
        let connect = request.method() == Method::CONNECT && protocol == Some("websocket");
        return connect.then_some(Asked::Connect);
    }
    let upgrade = request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket");
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).filter(|_| upgrade)?;
    let valid = BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    valid.then(|| Asked::Upgrade(key.into()))
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
    fn an_incomplete_handshake_asks_for_nothing() {
        for missing in ["connection", "upgrade", "sec-websocket-version", "sec-websocket-key"] {
            let mut request = request();
            request.headers_mut().unwrap().remove(missing);
            assert_eq!(asked(request), None, "{missing}");
        }
        assert_eq!(asked(request().method("POST")), None);
        assert_eq!(asked(request().version(Version::HTTP_10)), None);
        assert_eq!(asked(request().header("sec-websocket-key", KEY)), None);
    }
}
