//! The opening handshake (RFC 6455, section 4, and RFC 8441).

use alknet_core::AuditEvent;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wire::{BINARY, FIN, connect, frame};
use crate::harness::{HOST, Node, POOR_TOKEN, TOKEN, closing, timeless};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const UPGRADE: [&str; 2] = ["Connection: Upgrade", "Upgrade: websocket"];

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// The head of the answer to a handshake with these fields.
async fn head(node: &Node, start: &str, fields: &[&str]) -> String {
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    let fields = fields.join("\r\n");
    let request = format!("{start} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

/// Section 1.3 has the key and what becomes of it. No extension is accepted, and no
/// subprotocol that was not offered.
#[tokio::test]
async fn the_published_handshake_is_answered_as_published() {
    let node = Node::new();
    let token = bearer(TOKEN);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
    let fields = [UPGRADE[0], UPGRADE[1], KEY, VERSION, offer, &token];
    let answer = head(&node, "GET /alknet/echo", &fields).await;
    let lines: Vec<&str> = answer.trim_end().split("\r\n").collect();
    assert_eq!(lines[0], "HTTP/1.1 101 Switching Protocols");
    assert!(lines.contains(&"Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    assert!(lines.contains(&"Upgrade: websocket"), "{answer}");
    assert!(lines.contains(&"Connection: upgrade"), "{answer}");
    assert!(!answer.contains("Extensions") && !answer.contains("Sec-Websocket-Protocol"));
}

#[tokio::test]
async fn names_and_lists_are_read_as_http_has_them() {
    let node = Node::new();
    let token = bearer(TOKEN);
    for fields in [
        ["connection: keep-alive, UPGRADE", "upgrade: WebSocket", KEY, VERSION],
        ["CONNECTION: upgrade", "UPGRADE: h2c, websocket", KEY, VERSION],
        ["Connection: Upgrade", "Upgrade: websocket", KEY, "sec-websocket-version:13"],
    ] {
        let fields = [&fields[..], &[&token]].concat();
        let answer = head(&node, "GET /alknet/echo", &fields).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{fields:?}: {answer}");
    }
}

/// Section 4.4: who speaks another version is told which one there is.
#[tokio::test]
async fn another_version_is_told_the_right_one() {
    let node = Node::new();
    let token = bearer(TOKEN);
    for versions in [
        &["Sec-WebSocket-Version: 8"][..],
        &["Sec-WebSocket-Version: 0"],
        &["Sec-WebSocket-Version: 14"],
        &["Sec-WebSocket-Version: 013"],
        &["Sec-WebSocket-Version: 13, 8"],
        &["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"],
        &["Sec-WebSocket-Version:"],
        &[],
    ] {
        let fields = [&UPGRADE[..], versions, &[KEY, &token]].concat();
        let answer = head(&node, "GET /alknet/echo", &fields).await;
        assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{versions:?}: {answer}");
        assert!(answer.contains("\r\nSec-Websocket-Version: 13\r\n"), "{answer}");
        assert!(answer.contains("\r\nUpgrade: websocket\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: upgrade\r\n"), "{answer}");
    }
    let started = |event: AuditEvent| {
        event.event == AuditEvent::SESSION_START && event.alpn.as_deref() == Some("alknet/echo")
    };
    assert!(!node.log.events().into_iter().any(started), "no session begins");
}

/// HTTP/2 has no 426 (RFC 9110, section 15.5.22, asks for `Upgrade` in it).
#[tokio::test]
async fn another_version_over_http2_is_a_bad_request() {
    let node = Node::new();
    let (answer, _carrier) = connect(&node, "/alknet/echo", "8", TOKEN).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["sec-websocket-version"], "13");
    let (stranger, _carrier) = connect(&node, "/alknet/echo", "8", POOR_TOKEN).await;
    let (elsewhere, _carrier) = connect(&node, "/alknet/qqqq", "8", POOR_TOKEN).await;
    assert_eq!(stranger.status(), elsewhere.status());
    assert!(!stranger.headers().contains_key("sec-websocket-version"));
}

/// Section 4.2.1: a handshake that is not as it must be.
#[tokio::test]
async fn a_broken_handshake_is_a_bad_request() {
    let node = Node::new();
    let token = bearer(TOKEN);
    for keys in [
        &[][..],
        &["Sec-WebSocket-Key:"],
        &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ"],
        &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"],
        &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE="],
        &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE", KEY],
        &["Sec-WebSocket-Key: not*base64*but*24*bytes*"],
        &[KEY, KEY],
    ] {
        let fields = [&UPGRADE[..], keys, &[VERSION, &token]].concat();
        let answer = head(&node, "GET /alknet/echo", &fields).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{keys:?}: {answer}");
    }
    for method in ["POST", "PUT", "OPTIONS"] {
        let fields = [&UPGRADE[..], &[KEY, VERSION, &token]].concat();
        let answer = head(&node, &format!("{method} /alknet/echo"), &fields).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{method}: {answer}");
    }
}

/// Who may not use a service learns nothing from its answers, how odd the handshake may be.
#[tokio::test]
async fn to_strangers_a_broken_handshake_is_any_request() {
    for cover in [false, true] {
        let node = Node::with(|builder| builder.cover(cover));
        for credential in [None, Some(bearer(POOR_TOKEN)), Some(bearer("alk_unknown"))] {
            for fields in [
                &[UPGRADE[0], UPGRADE[1], KEY, "Sec-WebSocket-Version: 8"][..],
                &[UPGRADE[0], UPGRADE[1], KEY],
                &[UPGRADE[0], UPGRADE[1], VERSION],
                &[UPGRADE[0], UPGRADE[1]],
                &[UPGRADE[1]],
            ] {
                let fields: Vec<&str> =
                    fields.iter().copied().chain(credential.as_deref()).collect();
                for method in ["GET", "POST"] {
                    let ask = async |path: &str| {
                        timeless(&node.raw(&closing(&format!("{method} {path}"), &fields)).await)
                    };
                    let (echo, nothing) = (ask("/alknet/echo").await, ask("/alknet/qqqq").await);
                    assert!(echo.contains("<hr><center>nginx</center>"), "{echo}");
                    assert_eq!(echo, nothing, "{method} {fields:?}");
                }
            }
        }
    }
}

/// `Upgrade` counts only if `Connection` names it (RFC 9110, section 7.8), and never in
/// HTTP/1.0.
#[tokio::test]
async fn a_request_that_asks_for_no_upgrade_gets_none() {
    let node = Node::new();
    let token = bearer(TOKEN);
    for (start, fields) in [
        ("GET /alknet/echo HTTP/1.1", &["Upgrade: websocket", "Connection: close"][..]),
        ("GET /alknet/echo HTTP/1.1", &["Upgrade: h2c", "Connection: upgrade, close"]),
        ("GET /alknet/echo HTTP/1.1", &["Connection: upgrade, close"]),
        ("GET /alknet/echo HTTP/1.0", &UPGRADE),
    ] {
        let fields = [fields, &[KEY, VERSION, &token]].concat().join("\r\n");
        let answer = node.raw(&format!("{start}\r\nHost: {HOST}\r\n{fields}\r\n\r\n")).await;
        assert!(answer.contains(" 404 Not Found\r\n"), "{start}: {answer}");
    }
}

/// A request has to end before what it upgrades to begins (RFC 9110, section 7.8): its body
/// is never taken for frames.
#[tokio::test]
async fn a_body_is_no_frame() {
    let node = Node::new();
    let token = bearer(TOKEN);
    let body = frame(FIN | BINARY, b"body");
    let length = format!("Content-Length: {}", body.len());
    let fields = [UPGRADE[0], UPGRADE[1], KEY, VERSION, &token, &length].join("\r\n");
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    let head = format!("GET /alknet/echo HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n");
    let sent = [head.as_bytes(), &body, &frame(FIN | BINARY, b"frame")].concat();
    stream.write_all(&sent).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let mut rest = vec![0; 7];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, b"\x82\x05frame", "{}", String::from_utf8_lossy(&answer));
}

/// What follows the handshake in the same packet is the first frame.
#[tokio::test]
async fn a_frame_may_come_along_with_the_handshake() {
    let node = Node::new();
    let token = bearer(TOKEN);
    let fields = [UPGRADE[0], UPGRADE[1], KEY, VERSION, &token].join("\r\n");
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    let head = format!("GET /alknet/echo HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &frame(FIN | BINARY, b"early")].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x82\x05early") {
        answer.push(stream.read_u8().await.unwrap());
    }
}
