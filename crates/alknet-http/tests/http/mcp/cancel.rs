//! Every way to stop an operation really stops it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::json;

use super::{
    client::{Client, message, read, session},
    fixture::{CAROL, Fixture},
};

#[tokio::test]
async fn a_request_that_is_dropped_ends_the_operation() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let call = carol.call("test_hang", json!({}));
    tokio::select! {
        _ = call => unreachable!("it hangs"),
        () = fixture.running.become_(1) => (),
    }
    fixture.running.become_(0).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_the_operation() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let params = json!({ "name": "test_endless", "_meta": { "progressToken": 1 } });
    let mut body = carol.open_current("tools/call", params).await.into_body();
    body.frame().await.unwrap().unwrap();
    fixture.running.become_(1).await;
    drop(body);
    fixture.running.become_(0).await;
}

#[tokio::test]
async fn an_answer_in_a_session_that_nobody_reads_ends_the_operation() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let id = carol.initialize().await;
    let call = message(1, "tools/call", &json!({ "name": "test_hang", "arguments": {} }));
    let answer = carol.open("POST", &session(&id), &call).await;
    fixture.running.become_(1).await;
    drop(answer);
    fixture.running.become_(0).await;
}

#[tokio::test]
async fn a_cancelled_notification_ends_the_operation() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let id = carol.initialize().await;
    let call = message(7, "tools/call", &json!({ "name": "test_hang", "arguments": {} }));
    let _answer = carol.open("POST", &session(&id), &call).await;
    fixture.running.become_(1).await;
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 },
    });
    carol.post(&session(&id), &cancel).await;
    fixture.running.become_(0).await;
}

#[tokio::test]
async fn what_would_go_on_for_ever_ends_when_the_node_shuts_down() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let id = carol.initialize().await;
    let call = json!({ "name": "test_endless", "arguments": {}, "_meta": { "progressToken": 1 } });
    let call = carol.open("POST", &session(&id), &message(1, "tools/call", &call)).await;
    let stream = carol.open("GET", &session(&id), &json!(null)).await;
    fixture.running.become_(1).await;
    let stop = fixture.node.dispatcher.shutdown(Duration::from_secs(60));
    let ((), answer, rest) = tokio::join!(
        async {
            assert_eq!(stop.await, 0, "nothing had to be closed");
        },
        read(call),
        read(stream),
    );
    assert_eq!(answer.result()["structuredContent"]["ended"], false);
    assert!(!rest.text.contains("jsonrpc"), "{}", rest.text);
    fixture.running.become_(0).await;
}
