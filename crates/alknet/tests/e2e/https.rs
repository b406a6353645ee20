//! HTTP by hand: every byte of the answer counts.

use std::time::Duration;

use alknet_core::{Alpn, Connection, Dial, Pin};
use alknet_http::h3;
use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{node::Node, process::SOON};

/// Headers of a WebSocket handshake (RFC 6455, section 1.3), without a subprotocol.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub(crate) fn dial(alpn: &str) -> Dial {
    Dial {
        server_name: "localhost".into(),
        alpn: Alpn::new(alpn).unwrap(),
        pin: Pin::Learn,
        key: None,
        timeout: SOON,
    }
}

/// Sends one HTTP/1.1 request with these header lines and gives everything that came back,
/// the date aside, up to the end of the connection or of the head of a 101.
pub(crate) async fn raw(node: &Node, request_line: &str, headers: &str, body: &[u8]) -> String {
    let connection = dial("http/1.1").tls(node.address()).await.unwrap().connection;
    let mut stream = connection.open_bi().await.unwrap();
    let host = format!("localhost:{}", node.address().port());
    let head = format!("{request_line} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        while stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {
            if answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n") {
                break;
            }
        }
    };
    timeout(SOON, reading).await.unwrap();
    without_date(&String::from_utf8_lossy(&answer))
}

/// A WebSocket handshake for a path.
pub(crate) async fn upgrade(node: &Node, path: &str, headers: &str) -> String {
    // Whatever refuses must also end the connection, or there is no end to wait for.
    raw(node, &format!("GET {path}"), &format!("{UPGRADE}{headers}"), b"").await
}

fn without_date(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let kept: Vec<&str> =
        head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect();
    format!("{}\r\n\r\n{body}", kept.join("\r\n"))
}

/// An HTTP/3 connection.
pub(crate) async fn http3(node: &Node) -> h3::Client {
    h3::Client::new(quic(node, "h3").await).await.unwrap()
}

pub(crate) async fn quic(node: &Node, alpn: &str) -> Connection {
    dial(alpn).quic(node.address()).await.unwrap().connection
}

/// A `GET`, or a request for a session.
pub(crate) fn request<T>(node: &Node, path: &str, headers: &[(&str, &str)], body: T) -> Request<T> {
    let uri = format!("https://localhost:{}{path}", node.address().port());
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

/// What an answer says, the date aside.
pub(crate) fn shown<T>(response: &Response<T>) -> (u16, Vec<(String, String)>) {
    let headers = response.headers().iter().filter(|(name, _)| *name != "date");
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    (
        response.status().as_u16(),
        headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
    )
}

/// The answer to an ordinary HTTP/3 request.
pub(crate) async fn get3(node: &Node, path: &str) -> Response<Bytes> {
    timeout(
        Duration::from_secs(30),
        http3(node).await.request(request(node, path, &[], Bytes::new())),
    )
    .await
    .unwrap()
    .unwrap()
}
