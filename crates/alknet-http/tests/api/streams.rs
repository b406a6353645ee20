//! Subscriptions as server-sent events.

use std::{sync::atomic::Ordering, time::Duration};

use alknet_http::h3;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use crate::harness::{Exchange, HOST, Node, TOKEN, by};

/// Reads until the text is there.
async fn until(exchange: &mut Exchange, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        read += &exchange.piece().await.expect("the stream ended").unwrap();
    }
    read
}

#[tokio::test]
async fn items_are_messages_and_the_end_is_an_event() {
    let node = Node::new();
    for answer in [
        node.get("/alknet/api/count/up?to=3").await,
        node.post("/alknet/api/count/up", json!({ "to": 3 })).await,
    ] {
        assert_eq!(
            (answer.status(), answer.header("content-type")),
            (200, Some("text/event-stream"))
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let events = "id: 0\ndata: 0\n\nid: 1\ndata: 1\n\nid: 2\ndata: 2\n\n\
                      event: completed\ndata: {}\n\n";
        assert_eq!(answer.text().trim_start_matches(":\n\n"), events);
    }
}

#[tokio::test]
async fn a_stream_goes_on_behind_an_event() {
    let node = Node::new();
    let after = async |event: &str| {
        let request = Request::get("/alknet/api/count/up?to=3").header("last-event-id", event);
        node.ask(TOKEN, request, "").await.text().to_owned()
    };
    assert!(after("1").await.starts_with(":\n\nid: 2\n"));
    assert!(after("").await.starts_with(":\n\nid: 0\n"));
    assert!(after("nonsense").await.contains("event: error\n"));
}

#[tokio::test]
async fn a_failure_is_an_event_and_an_input_that_does_not_fit_a_problem() {
    let node = Node::new();
    let answer = node.get("/alknet/api/count/up?to=1&fails=true").await;
    let (_, error) = answer.text().split_once("id: 0\ndata: 0\n\nevent: error\ndata: ").unwrap();
    let problem: Value = serde_json::from_str(error.trim()).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!("UNAVAILABLE"), &json!(503)));
    let answer = node.get("/alknet/api/count/up?to=x").await;
    assert_eq!(
        (answer.status(), answer.header("content-type")),
        (400, Some("application/problem+json"))
    );
}

/// It may do something, which nobody has asked for.
#[tokio::test]
async fn a_subscription_does_not_begin_without_a_subscriber() {
    let node = Node::new();
    let answer = node.ask(TOKEN, Request::head("/alknet/api/wait/items"), "").await;
    assert_eq!((answer.status(), answer.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(node.done.begun.load(Ordering::SeqCst), 0);
    let answer = node.ask(TOKEN, Request::head("/alknet/api/count/up?to=x"), "").await;
    assert_eq!(answer.status(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_kept_alive() {
    let node = Node::new();
    let mut exchange = node.send(by(TOKEN, Request::get("/alknet/api/wait/items"), "")).await;
    until(&mut exchange, "data: 0\n\n").await;
    let begun = tokio::time::Instant::now();
    assert_eq!(exchange.piece().await.unwrap().unwrap(), ":\n\n");
    assert_eq!(begun.elapsed(), Duration::from_secs(15));
}

/// Over every version of HTTP, for a query and for a subscription.
#[tokio::test]
async fn a_client_that_goes_away_ends_the_operation() {
    let node = Node::new();
    for path in ["/alknet/api/wait/query", "/alknet/api/wait/items"] {
        let request = || by(TOKEN, Request::get(format!("https://node.example{path}")), "");
        let h1 = async {
            let mut exchange = node.send(by(TOKEN, Request::get(path), "")).await;
            while exchange.piece().await.is_some() {}
        };
        let h2 = async {
            let stream = node.connect("h2").open_bi().await.unwrap();
            let io = TokioIo::new(stream);
            let (mut sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let mut tasks = JoinSet::new();
            tasks.spawn(driver);
            drop(sender.send_request(request()).await.unwrap().collect().await);
        };
        let h3 = async {
            let client = h3::Client::new(node.connect("h3")).await.unwrap();
            drop(client.request(request().map(|_| Bytes::new())).await);
        };
        tokio::select! {
            () = h1 => panic!("{path} ended"),
            () = node.done.hanging(1) => {}
        }
        node.done.hanging(0).await;
        tokio::select! {
            () = h2 => panic!("{path} ended"),
            () = node.done.hanging(1) => {}
        }
        node.done.hanging(0).await;
        tokio::select! {
            () = h3 => panic!("{path} ended"),
            () = node.done.hanging(1) => {}
        }
        node.done.hanging(0).await;
    }
}

/// The stream is cut, so that it cannot be taken for a whole one.
#[tokio::test]
async fn revocation_ends_what_runs() {
    let node = Node::new();
    let mut stream = node.send(by(TOKEN, Request::get("/alknet/api/wait/items"), "")).await;
    until(&mut stream, "data: 0\n\n").await;
    let query = node.get("/alknet/api/wait/query");
    let revoke = async {
        node.done.hanging(2).await;
        assert_eq!(node.dispatcher.end_identity("id-alice"), 2);
        node.done.hanging(0).await;
    };
    let (answer, ()) = tokio::join!(query, revoke);
    assert!(answer.is_decoy(), "{answer:?}");
    assert!(stream.piece().await.unwrap().is_err());
}

/// Whoever is revoked while their body is on its way runs nothing with it.
#[tokio::test]
async fn revocation_ends_what_has_not_begun() {
    let node = Node::new();
    for (path, body) in [
        ("/alknet/api/math/store", "1"),
        ("/alknet/api/batch", r#"[{"operation":"math/store","input":1}]"#),
    ] {
        let mut stream = node.connect("http/1.1").open_bi().await.unwrap();
        let (first, rest) = body.split_at(body.len() - 1);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{first}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        while node.dispatcher.end_identity("id-alice") == 0 {
            tokio::task::yield_now().await;
        }
        stream.write_all(rest.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 404", "{path}");
        assert_eq!(node.done.mutations.load(Ordering::SeqCst), 0, "{path}");
    }
}

/// So that a shutdown need not wait for its deadline.
#[tokio::test]
async fn a_shutdown_ends_a_stream() {
    let node = Node::new();
    let mut stream = node.send(by(TOKEN, Request::get("/alknet/api/wait/items"), "")).await;
    until(&mut stream, "data: 0\n\n").await;
    let dispatcher = node.dispatcher.clone();
    let shutdown = dispatcher.shutdown(Duration::from_secs(3600));
    // Sooner than the stream would have looked for a reader by itself.
    let told = tokio::time::timeout(Duration::from_secs(10), until(&mut stream, "shutting down"));
    let (_, read) = tokio::join!(shutdown, told);
    let read = read.unwrap();
    assert!(read.starts_with("event: error\n"), "{read}");
    node.done.hanging(0).await;
}

/// One that does not read holds no more than what is under way, and is told in the end.
#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_told_and_ended() {
    let node = Node::new();
    let mut exchange = node.send(by(TOKEN, Request::get("/alknet/api/count/flood"), "")).await;
    tokio::time::sleep(Duration::from_secs(45)).await;
    let mut read = String::new();
    while let Some(piece) = exchange.piece().await {
        read += &piece.unwrap();
    }
    assert!(read.len() < 2 * 1024 * 1024, "{}", read.len());
    let (_, error) = read.rsplit_once("event: error\ndata: ").unwrap();
    let problem: Value = serde_json::from_str(error.trim()).unwrap();
    assert_eq!(problem["details"], json!({ "reason": "slow-consumer" }));
}
