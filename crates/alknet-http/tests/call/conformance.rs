//! What docs/call.md says, in its order.

use alknet_core::Code;
use serde_json::{Value, json};

use crate::{
    node::{Node, Via},
    wire::Frames,
};

/// Requests and responses, and what may be left out or added.
pub(crate) async fn calls(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    frames.request("1", "test/echo", json!({ "a": [1, "ü"] })).await;
    frames.expect("call.responded", "1", json!({ "output": { "a": [1, "ü"] } })).await;
    let bare = json!({ "operationId": "test/echo" });
    frames.say("call.requested", "2", bare).await;
    frames.expect("call.responded", "2", json!({ "output": null })).await;
    // An id may be used again, and members come in any order and number.
    let more = br#"{"payload":{"more":1,"input":true,"operationId":"test/echo","newer":3},"x":[],"id":"1","type":"call.requested"}"#;
    let length = u32::try_from(more.len()).unwrap().to_be_bytes();
    frames.send_bytes(&length[..2]).await;
    frames.send_bytes(&[&length[2..], &more[..7]].concat()).await;
    frames.send_bytes(&more[7..]).await;
    frames.expect("call.responded", "1", json!({ "output": true })).await;
}

/// Every code, from the node to its caller.
pub(crate) async fn codes(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    for code in
        ["NOT_FOUND", "FORBIDDEN", "INVALID_INPUT", "TIMEOUT", "UNAVAILABLE", "INTERNAL", "BROKEN"]
    {
        frames.request(code, "test/fail", json!(code)).await;
        let error = frames.expect_error(code, code).await;
        assert_eq!(error["details"], json!({ "asked": true }));
        assert_eq!(error["retryable"], matches!(code, "TIMEOUT" | "UNAVAILABLE"), "{code}");
    }
    frames.request("1", "test/fail", json!("UNDECLARED")).await;
    frames.expect_error("1", "INTERNAL").await;
    for name in ["test/nothing", "nothing", "", "services/nothing"] {
        frames.request("2", name, Value::Null).await;
        frames.expect_error("2", "NOT_FOUND").await;
    }
    frames.request("3", "test/fail", json!({ "no": "string" })).await;
    frames.expect_error("3", "INVALID_INPUT").await;
    let hasty = json!({ "operationId": "test/forever", "timeout_ms": 1 });
    frames.say("call.requested", "4", hasty).await;
    frames.expect_error("4", "TIMEOUT").await;
    for payload in [
        json!(null),
        json!([]),
        json!({ "operationId": 1 }),
        json!({ "operationId": "test/echo", "timeout_ms": -1 }),
    ] {
        frames.say("call.requested", "5", payload).await;
        frames.expect_error("5", "INVALID_INPUT").await;
    }
    node.until_running(0).await;
}

/// Items, events, windows, and the end.
pub(crate) async fn subscriptions(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    let item = |n: u64| json!({ "output": n, "event": n.to_string() });
    frames.request("1", "test/count", json!(3)).await;
    for n in 0..3 {
        frames.expect("call.responded", "1", item(n)).await;
    }
    frames.expect("call.completed", "1", json!({})).await;
    let request = json!({ "operationId": "test/count", "input": 9, "after": "3", "window": 2 });
    frames.say("call.requested", "2", request).await;
    frames.expect("call.responded", "2", item(4)).await;
    frames.expect("call.responded", "2", item(5)).await;
    frames.expect_quiet().await;
    frames.say("call.window", "2", json!({ "items": 1 })).await;
    frames.expect("call.responded", "2", item(6)).await;
    frames.expect_quiet().await;
    frames.say("call.window", "2", json!({ "items": 1000 })).await;
    frames.expect("call.responded", "2", item(7)).await;
    frames.expect("call.responded", "2", item(8)).await;
    frames.expect("call.completed", "2", json!({})).await;
    let query = json!({ "operationId": "test/echo", "window": 1 });
    frames.say("call.requested", "2", query).await;
    frames.expect_error("2", "INVALID_INPUT").await;
    // Windows of what is over, of nothing, and without sense change nothing.
    for (id, payload) in
        [("2", json!({ "items": 1 })), ("9", json!({ "items": 1 })), ("9", json!([]))]
    {
        frames.say("call.window", id, payload).await;
    }
    frames.request("3", "test/count", json!(0)).await;
    frames.expect("call.completed", "3", json!({})).await;
}

/// Aborts of what runs, of what is over, and of what never was.
pub(crate) async fn aborts(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    frames.request("1", "test/forever", Value::Null).await;
    node.until_running(1).await;
    frames.say("call.aborted", "1", json!({ "reason": "enough" })).await;
    frames.expect("call.aborted", "1", json!({})).await;
    assert_eq!(*node.running.borrow(), 0, "the answer comes once nothing runs");
    for id in ["1", "never", "~1", ""] {
        frames.say("call.aborted", id, json!({})).await;
    }
    let request = json!({ "operationId": "test/count", "input": 1_000_000, "window": 1 });
    frames.say("call.requested", "2", request).await;
    frames.expect("call.responded", "2", json!({ "output": 0, "event": "0" })).await;
    frames.say("call.aborted", "2", json!(null)).await;
    frames.expect("call.aborted", "2", json!({})).await;
    frames.expect_quiet().await;
}

/// Ids in use, of the other side, and none at all.
pub(crate) async fn ids(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    let longest = "é".repeat(32);
    for id in ["0", "any text: \"\\\u{1}", &longest] {
        frames.request(id, "test/echo", json!(id)).await;
        frames.expect("call.responded", id, json!({ "output": id })).await;
    }
    frames.request("1", "test/forever", Value::Null).await;
    node.until_running(1).await;
    frames.request("1", "test/echo", json!(1)).await;
    frames.expect_error("1", "INVALID_INPUT").await;
    for id in ["~1", "~", ""] {
        frames.request(id, "test/echo", json!(1)).await;
        frames.expect_error(id, "INVALID_INPUT").await;
    }
    assert_eq!(*node.running.borrow(), 1, "the first call goes on");
    frames.say("call.aborted", "1", json!({})).await;
    frames.expect("call.aborted", "1", json!({})).await;
}

/// What a later version may send, and answers to nothing.
pub(crate) async fn unknown(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    for kind in ["call.sung", "", "stream.opened"] {
        frames.say(kind, "1", json!({ "any": "thing" })).await;
    }
    frames.send(&json!({ "type": "call.sung", "id": "1" })).await;
    frames.say("call.completed", "7", json!({})).await;
    frames.say("call.error", "7", json!({ "code": "NEWER", "more": 1 })).await;
    frames.expect_quiet().await;
    frames.say("call.responded", "~7", json!({ "output": 1 })).await;
    frames.expect("call.aborted", "~7", json!({})).await;
}

/// What is no frame ends its stream, with a word.
pub(crate) async fn broken_frames(node: &Node, via: Via) {
    let framed = |json: &[u8]| [&u32::try_from(json.len()).unwrap().to_be_bytes(), json].concat();
    let long = format!(r#"{{"type":"call.requested","id":"{}"}}"#, "a".repeat(65));
    let broken: [Vec<u8>; 8] = [
        framed(b""),
        framed(b"[]"),
        framed(b"{\"type\":\"call.requested\",\"id\":\"1\""),
        framed(b"{\"type\":\"call.requested\",\"id\":1}"),
        framed(b"{\"type\":\"call.requested\",\"id\":\"\xff\"}"),
        framed(long.as_bytes()),
        (4 * 1024 * 1024 + 1_u32).to_be_bytes().to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
    ];
    for bytes in broken {
        let connection = node.connect(via).await;
        let mut frames = Frames::open(&connection).await;
        frames.send_bytes(&bytes).await;
        let error = frames.expect_error("", "INVALID_INPUT").await;
        assert_eq!(error["retryable"], false);
        frames.expect_end().await;
        if via.has_streams() {
            // The connection goes on.
            Frames::open(&connection).await.expect_quiet().await;
        }
    }
}

/// The end of the requests is not the end of the answers.
pub(crate) async fn half_close(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    let slow = json!({ "operationId": "test/forever", "timeout_ms": 50 });
    frames.say("call.requested", "1", slow).await;
    frames.finish().await;
    frames.expect_error("1", "TIMEOUT").await;
    frames.expect_end().await;
}

/// Says that this side serves an operation.
async fn serve(frames: &mut Frames, name: &str, kind: &str) {
    let served = json!({ "operations": [{ "name": name, "type": kind }] });
    frames.request("serve", "services/register", served).await;
    frames.expect("call.responded", "serve", json!({ "output": { "operations": [name] } })).await;
}

/// The node calls, and gets every kind of answer.
pub(crate) async fn the_other_way(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    serve(&mut frames, "page/answer", "query").await;
    frames.request("1", "test/ask", json!("why")).await;
    // On a transport with one stream the call comes on it; else the node opens one.
    let mut theirs = match via.has_streams() {
        true => Some(Frames::accept(&connection).await),
        false => None,
    };
    let mut first = true;
    let failed = |code: &str| json!({ "error": { "code": code, "message": "no", "retryable": true, "details": [1] } });
    let error = |code: &str| ("call.error", failed(code)["error"].clone(), failed(code));
    let aborted = json!({ "error": { "code": "UNAVAILABLE", "message": "the call was aborted by its callee", "retryable": true, "details": null } });
    let answers = [
        ("call.responded", json!({ "output": "because" }), json!({ "output": "because" })),
        ("call.responded", json!({}), json!({ "output": null })),
        error("NOT_FOUND"),
        error("FORBIDDEN"),
        error("INVALID_INPUT"),
        error("TIMEOUT"),
        error("UNAVAILABLE"),
        error("INTERNAL"),
        ("call.aborted", json!({}), aborted),
    ];
    for (kind, payload, outcome) in answers {
        if !std::mem::take(&mut first) {
            frames.request("1", "test/ask", json!("why")).await;
        }
        let calls = theirs.as_mut().unwrap_or(&mut frames);
        let request = calls.next().await;
        let id = request["id"].as_str().unwrap().to_owned();
        assert_eq!(request["type"], "call.requested");
        assert_eq!(id.starts_with('~'), !via.has_streams(), "{id}");
        assert_eq!(request["payload"]["operationId"], "page/answer");
        assert_eq!(request["payload"]["input"], "why");
        assert!(request["payload"]["timeout_ms"].as_u64().unwrap() <= 60_000);
        calls.say("call.sung", &id, json!({})).await;
        calls.say(kind, &id, payload).await;
        frames.expect("call.responded", "1", json!({ "output": outcome })).await;
    }
    // A code that the caller's own operation has not declared is INTERNAL there.
    frames.request("1", "test/ask", json!("why")).await;
    let calls = theirs.as_mut().unwrap_or(&mut frames);
    let id = calls.next().await["id"].as_str().unwrap().to_owned();
    calls.say("call.error", &id, json!({ "code": "NEWER" })).await;
    let answer = frames.next().await;
    assert_eq!(answer["payload"]["output"]["error"]["code"], "INTERNAL", "{answer}");
    // An abort of the outer call is one of the inner.
    frames.request("2", "test/ask", json!("why")).await;
    let calls = theirs.as_mut().unwrap_or(&mut frames);
    let id = calls.next().await["id"].as_str().unwrap().to_owned();
    frames.say("call.aborted", "2", json!({})).await;
    let mut ends = vec![(frames.next().await)];
    match theirs.as_mut() {
        Some(theirs) => ends.push(theirs.next().await),
        None => ends.push(frames.next().await),
    }
    for end in [("2", &ends), (&*id, &ends)] {
        assert!(end.1.iter().any(|frame| frame["type"] == "call.aborted" && frame["id"] == end.0));
    }
}

/// The node subscribes.
pub(crate) async fn the_other_way_in_items(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    for (kind, payload, last) in [
        ("call.completed", json!({}), None),
        ("call.error", json!({ "code": "NEWER" }), Some(json!({ "error": "NEWER" }))),
        ("call.aborted", json!({}), Some(json!({ "error": "UNAVAILABLE" }))),
    ] {
        frames.request("1", "test/follow", Value::Null).await;
        // A subscription of the node has a stream of its own, where there are several.
        let mut theirs = match via.has_streams() {
            true => Some(Frames::accept(&connection).await),
            false => None,
        };
        let calls = theirs.as_mut().unwrap_or(&mut frames);
        let request = calls.next().await;
        let id = request["id"].as_str().unwrap().to_owned();
        assert_eq!(
            request["payload"],
            json!({ "operationId": "page/items", "input": "all", "window": 4, "after": "before" })
        );
        let mut window = 4;
        for n in 0..40 {
            while window == 0 {
                let more = calls.next().await;
                assert_eq!((&more["type"], &more["id"]), (&json!("call.window"), &json!(id)));
                window += more["payload"]["items"].as_u64().unwrap();
            }
            window -= 1;
            calls.say("call.responded", &id, json!({ "output": n, "event": "e" })).await;
        }
        calls.say(kind, &id, payload).await;
        let got: Vec<Value> = (0..40).map(|n| json!(n)).chain(last).collect();
        // Windows may still be on their way.
        let answer = loop {
            let frame = frames.next().await;
            if frame["type"] != "call.window" {
                break frame;
            }
        };
        assert_eq!(answer["payload"], json!({ "output": got }));
    }
}

/// A connection that goes takes its calls with it.
pub(crate) async fn a_lost_connection(node: &Node, via: Via) {
    let connection = node.connect(via).await;
    let mut frames = Frames::open(&connection).await;
    for id in ["1", "2", "3"] {
        frames.request(id, "test/forever", Value::Null).await;
    }
    node.until_running(3).await;
    connection.close(Code::NORMAL, "");
    drop(frames);
    node.until_running(0).await;
}
