//! Live sessions, and calls to their peers.

use alknet_call::{Driver, Operation, Peer};
use alknet_core::Connection;
use alknet_testing::memory;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Word {
    word: String,
}

/// A client that serves `page/greet` and `page/fail`, on a session of its own.
struct Page {
    session: u64,
    connection: Connection,
    _tasks: JoinSet<()>,
}

impl Page {
    async fn open(rig: &Rig, scopes: &str) -> Self {
        let (near, far) = memory::pair();
        let admission = rig.dispatcher.admit(with(scopes)).unwrap();
        let session = admission.auth().session.id().unwrap();
        drop(admission.start(far));
        let greet = Operation::query("page/greet", async |_, input: Word| {
            Ok(Word { word: format!("hello {}", input.word) })
        });
        let fail = Operation::mutation("page/fail", async |_, _: Word| {
            Err::<Word, _>(CallError::forbidden("not today"))
        });
        let registry =
            OperationRegistry::new(Audit::to_log(), [greet.unwrap(), fail.unwrap()]).unwrap();
        let all = ["page/greet", "page/fail"];
        let (peer, driver): (Peer, Driver) = Peer::new(
            near.clone(),
            registry,
            with("*"),
            CallLimits::default(),
            CancellationToken::new(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        let served = all.map(|name| json!({ "name": name, "type": "query" }));
        let register = json!({ "operations": served });
        peer.call::<_, Value>("services/register", &register).await.unwrap();
        Self { session, connection: near, _tasks: tasks }
    }
}

fn operator() -> AuthContext {
    with("call,git")
}

#[tokio::test]
async fn the_peer_of_a_session_is_called() {
    let rig = Rig::new().await;
    let page = Page::open(&rig, "call:services/register").await;
    let list = rig.call(&operator(), "node/sessions", Value::Null).await.unwrap();
    let listed = &list["sessions"][0];
    assert_eq!(
        (&listed["session"], &listed["alpn"]),
        (&json!(page.session), &json!("alknet/call"))
    );
    assert_eq!(listed["identity"]["name"], "somebody");
    assert_eq!(listed["operations"][1]["name"], "page/greet");
    let call = |operation: &str, session: u64| json!({ "session": session, "operation": operation, "input": { "word": "you" } });
    let word = rig.call(&operator(), "node/call-session", call("page/greet", page.session)).await;
    assert_eq!(word.unwrap(), json!({ "word": "hello you" }));
    for (operation, session, code) in [
        ("page/fail", page.session, "PEER_FAILED"),
        ("page/other", page.session, "NOT_SERVED"),
        ("services/list", page.session, "NOT_SERVED"),
        ("page/greet", 999, "NO_SUCH_SESSION"),
    ] {
        let outcome = rig.call(&operator(), "node/call-session", call(operation, session)).await;
        assert_eq!(outcome.unwrap_err().code.as_str(), code, "{operation} of {session}");
    }
    assert_eq!(rig.recorded("session-called").subject, Some(format!("session {}", page.session)));
}

#[tokio::test]
async fn a_session_is_ended() {
    let rig = Rig::new().await;
    let page = Page::open(&rig, "call:services/register").await;
    let which = json!({ "session": page.session });
    rig.call(&operator(), "node/end-session", which.clone()).await.unwrap();
    assert_eq!(page.connection.closed().await.code, alknet_core::Code::CANCELLED);
    while rig.dispatcher.session_count() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.recorded("session-end").reason.as_deref(), Some("ended by an operator"));
    let gone = rig.call(&operator(), "node/end-session", which).await.unwrap_err();
    assert_eq!(gone.code.as_str(), "NO_SUCH_SESSION");
}

#[tokio::test]
async fn a_session_of_somebody_who_may_do_more_is_left_alone() {
    let rig = Rig::new().await;
    let page = Page::open(&rig, "call,ssh").await;
    let call = json!({ "session": page.session, "operation": "page/greet", "input": {} });
    for (operation, input) in
        [("node/call-session", call), ("node/end-session", json!({ "session": page.session }))]
    {
        let error = rig.call(&operator(), operation, input).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden, "{operation}");
    }
    assert_eq!(rig.dispatcher.session_count(), 1);
}
