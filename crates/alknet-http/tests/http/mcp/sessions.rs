//! Sessions belong to the credential that began them.

use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::{
    client::{Client, message, read, session},
    fixture::{CAROL, CAROL_TOO, DORA, Fixture},
};

#[tokio::test]
async fn a_session_answers_until_it_is_deleted() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let id = carol.initialize().await;
    let ping = message(1, "ping", &json!({}));
    assert_eq!(carol.post(&session(&id), &ping).await.result(), json!({}));
    assert_eq!(fixture.mcp.sessions(), 1);
    let deleted = carol.open("DELETE", &session(&id), &json!(null)).await;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    assert_eq!(carol.post(&session(&id), &ping).await.status, StatusCode::NOT_FOUND);
    assert_eq!(fixture.mcp.sessions(), 0);
}

#[tokio::test]
async fn the_session_of_somebody_else_is_one_that_does_not_exist() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let id = carol.initialize().await;
    let ping = message(1, "ping", &json!({}));
    for token in [DORA, CAROL_TOO] {
        let other = Client::new(&fixture.node, token).await;
        for method in ["POST", "GET", "DELETE"] {
            let body = if method == "POST" { ping.clone() } else { json!(null) };
            let [theirs, unknown] = [id.as_str(), "nobody's"].map(session);
            let theirs = read(other.open(method, &theirs, &body).await).await;
            let unknown = read(other.open(method, &unknown, &body).await).await;
            assert_eq!(theirs.status, unknown.status, "{token} {method}");
            assert_eq!(theirs.text, unknown.text, "{token} {method}");
        }
    }
    assert_eq!(carol.post(&session(&id), &ping).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_revoked_credential_ends_its_sessions_streams_and_operations() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let too = Client::new(&fixture.node, CAROL_TOO).await;
    let (id, _kept) = (carol.initialize().await, too.initialize().await);
    let call = message(1, "tools/call", &json!({ "name": "test_hang", "arguments": {} }));
    let answers = [
        carol.open("POST", &session(&id), &call).await,
        carol.open("GET", &session(&id), &json!(null)).await,
    ];
    fixture.running.become_(1).await;
    let identities = &*fixture.node.identities;
    identities.revoke_token(CAROL);
    fixture.node.dispatcher.recheck(identities).await;
    for answer in answers {
        assert!(answer.into_body().collect().await.is_err(), "the stream is cut");
    }
    fixture.running.become_(0).await;
    while fixture.mcp.sessions() != 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_session_too_many_ends_the_one_that_was_not_used_for_longest() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    let dora = Client::new(&fixture.node, DORA).await;
    let others = dora.initialize().await;
    let mut ids = Vec::new();
    for _ in 0..32 {
        ids.push(carol.initialize().await);
    }
    let ping = message(1, "ping", &json!({}));
    assert_eq!(carol.post(&session(&ids[0]), &ping).await.status, StatusCode::OK);
    carol.initialize().await;
    assert_eq!(fixture.mcp.sessions(), 33);
    assert_eq!(carol.post(&session(&ids[0]), &ping).await.status, StatusCode::OK);
    assert_eq!(carol.post(&session(&ids[1]), &ping).await.status, StatusCode::NOT_FOUND);
    assert_eq!(dora.post(&session(&others), &ping).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_session_in_which_nothing_happens_ends() {
    let fixture = Fixture::new();
    let carol = Client::new(&fixture.node, CAROL).await;
    carol.initialize().await;
    tokio::time::sleep(std::time::Duration::from_secs(16 * 60)).await;
    assert_eq!(fixture.mcp.sessions(), 0);
}
