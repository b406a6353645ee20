//! `POST /alknet/ticket`, and what its tickets open.

use alknet_core::AuditEvent;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{
    HOST, Node, POOR_TOKEN, SESSION, TOKEN, UPGRADE, alice, alpn, closing, timeless,
};

async fn post(node: &Node, fields: &[&str], body: &str) -> String {
    post_to(node, "/alknet/ticket", fields, body).await
}

async fn post_to(node: &Node, path: &str, fields: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    let mut all = vec![length.as_str(), "Content-Type: application/json"];
    all.extend(fields);
    timeless(&node.raw(&(closing(&format!("POST {path}"), &all) + body)).await)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// The status line of the answer to a WebSocket handshake with these fields.
async fn open(node: &Node, target: &str, fields: &str) -> String {
    let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{UPGRADE}{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_ticket_opens_one_websocket() {
    let node = Node::new();
    let answer = post(&node, &[&bearer(TOKEN)], r#"{"alpn": "alknet/echo"}"#).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nCache-Control: no-store"), "{head}");
    let issued: Value = serde_json::from_str(body).unwrap();
    assert_eq!(issued["expires_in"], 30);
    let ticket = issued["ticket"].as_str().unwrap();
    let fields = format!("Sec-WebSocket-Protocol: alknet.echo, ticket.{ticket}\r\n");
    let opened = open(&node, "/alknet/echo", &fields).await;
    assert!(opened.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{opened}");
    assert!(opened.contains("Sec-Websocket-Protocol: alknet.echo\r\n"), "{opened}");
    assert!(!opened.contains("ticket"), "{opened}");
    assert!(open(&node, "/alknet/echo", &fields).await.starts_with("HTTP/1.1 404"));
    let session = node
        .log
        .events()
        .into_iter()
        .find(|e| e.event == AuditEvent::SESSION_START && e.method == Some("ticket"));
    assert_eq!(session.unwrap().identity.as_deref(), Some("id-alice"));
}

#[tokio::test]
async fn a_ticket_in_the_query_is_the_last_resort() {
    let node = Node::new();
    let ticket = node.identities.ticket(&alice(), &alpn("alknet/echo"));
    let target = format!("/alknet/echo?x=1&ticket={}", ticket.expose());
    assert!(open(&node, &target, "").await.starts_with("HTTP/1.1 101"));
    assert!(open(&node, &target, "").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn of_two_at_the_same_moment_one_opens() {
    let node = Node::new();
    for _ in 0..20 {
        let ticket = node.identities.ticket(&alice(), &alpn("alknet/echo"));
        let fields = format!("Sec-WebSocket-Protocol: ticket.{}\r\n", ticket.expose());
        let (one, two) = tokio::join!(
            open(&node, "/alknet/echo", &fields),
            open(&node, "/alknet/echo", &fields)
        );
        let opened = [one, two].iter().filter(|answer| answer.starts_with("HTTP/1.1 101")).count();
        assert_eq!(opened, 1);
    }
}

#[tokio::test]
async fn whoever_may_not_have_a_ticket_sees_the_decoy() {
    let node = Node::with(|builder| builder);
    let cookie = format!("Cookie: __Host-alknet={SESSION}");
    let (same, foreign) = ("Origin: https://node.example", "Origin: https://evil.example");
    let large = format!(r#"{{"alpn": "alknet/echo"{}}}"#, " ".repeat(2 * 1024 * 1024));
    let good = r#"{"alpn": "alknet/echo"}"#;
    let (rich, poor) = (bearer(TOKEN), bearer(POOR_TOKEN));
    for (fields, body) in [
        (&[][..], good),
        (&[poor.as_str()][..], good),
        (&[cookie.as_str()], good),
        (&[&cookie, foreign], good),
        (&[&rich], r#"{"alpn": "alknet/nothere"}"#),
        (&[&rich], r#"{"alpn": "h2"}"#),
        (&[&rich], r#"{"alpn": ""}"#),
        (&[&rich], r#"{"alpn": "alknet/echo", "more": 1}"#),
        (&[&rich], "not json"),
        (&[&rich], ""),
        (&[&rich], &large),
    ] {
        let answer = post(&node, fields, body).await;
        let nothing = post_to(&node, "/alknet/nothing", fields, body).await;
        assert!(nothing.contains("<hr><center>nginx</center>"), "{nothing}");
        assert_eq!(answer, nothing, "{fields:?} {}", body.get(..40).unwrap_or(body));
    }
    let answer = post(&node, &[&cookie, same], good).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// Guesses count, whatever kind of credential they are of; then nothing that comes from the
/// address is looked at, and the answer is the one that strangers get.
#[tokio::test]
async fn an_address_that_guesses_is_not_listened_to_any_more() {
    let node = Node::new();
    let good = [&*bearer(TOKEN)];
    let private = |fields: &[&str]| closing("GET /private", fields);
    let ticket = node.identities.ticket(&alice(), &alpn("alknet/echo"));
    let fields = format!("Sec-WebSocket-Protocol: alknet.echo, ticket.{}\r\n", ticket.expose());
    // An ended session is no guess: a browser sends its cookie with every request.
    for _ in 0..40 {
        node.raw(&private(&["Cookie: __Host-alknet=alk_ended"])).await;
    }
    // Nor is what a client of the decoy's own site sends.
    for _ in 0..40 {
        node.raw(&private(&["Authorization: Bearer eyJhbGciOiJub25lIn0.e30."])).await;
        node.raw(&private(&["Authorization: what"])).await;
    }
    assert!(node.raw(&private(&good)).await.starts_with("HTTP/1.1 200"));
    for i in 0..11 {
        node.raw(&private(&[&bearer(&format!("alk_{i}"))])).await;
        let guess = format!("Sec-WebSocket-Protocol: alknet.echo, ticket.guess{i}\r\n");
        open(&node, "/alknet/echo", &guess).await;
    }
    let stranger = timeless(&node.raw(&private(&[])).await);
    assert_eq!(timeless(&node.raw(&private(&good)).await), stranger);
    assert!(open(&node, "/alknet/echo", &fields).await.starts_with("HTTP/1.1 404"));
    assert!(node.log.refusals().contains(&"unknown bearer token".into()));
}

/// The time is paused and moves only when everything waits: after the answer there is the
/// wait for the body that nobody reads, and there is none before it.
#[tokio::test(start_paused = true)]
async fn a_body_that_says_it_is_too_long_is_not_waited_for() {
    const LINGERING: std::time::Duration = std::time::Duration::from_secs(5);
    let node = Node::new();
    let begin = tokio::time::Instant::now();
    let fields = [&*bearer(TOKEN), "Content-Length: 99999999999", "Content-Type: application/json"];
    let answer = node.raw(&closing("POST /alknet/ticket", &fields)).await;
    assert_eq!(begin.elapsed().as_secs(), LINGERING.as_secs());
    assert!(answer.starts_with("HTTP/1.1 413"), "the decoy's, as for any path: {answer}");
    let elsewhere = node.raw(&closing("POST /nothing", &fields[1..])).await;
    assert_eq!(timeless(&answer), timeless(&elsewhere));
}
