//! Queries, mutations and batches.

use std::sync::atomic::Ordering;

use http::Request;
use serde_json::{Value, json};

use crate::harness::{Node, TOKEN};

#[tokio::test]
async fn a_query_is_asked_by_post_and_by_get() {
    let node = Node::new();
    for answer in [
        node.post("/alknet/api/math/sum", json!({ "numbers": [1, 2], "extra": 3 })).await,
        node.get("/alknet/api/math/sum?numbers=1&extra=3&numbers=2").await,
    ] {
        assert_eq!((answer.status(), answer.text()), (200, "6"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let head = node.ask(TOKEN, Request::head("/alknet/api/math/sum?numbers=1"), "").await;
    assert_eq!((head.status(), head.text()), (200, ""));
}

#[tokio::test]
async fn no_body_is_no_input() {
    let node = Node::new();
    let answer = node.ask(TOKEN, Request::post("/alknet/api/admin/secret"), "").await;
    assert_eq!(answer.json(), json!("the secret"));
}

#[tokio::test]
async fn parameters_have_the_types_of_the_schema() {
    let node = Node::new();
    let path = "/alknet/api/math/mixed?text=12&whole=7&half=2.5&flag=true&mode=very-slow\
                &names=a%20b&names=1&deep=%7B%22depth%22:1,%22within%22:%7B%22depth%22:2%7D%7D";
    let expected = json!({
        "text": "12", "whole": 7, "half": 2.5, "flag": true, "mode": "very-slow",
        "names": ["a b", "1"], "deep": { "depth": 1, "within": { "depth": 2, "within": null } },
    });
    assert_eq!(node.get(path).await.json(), expected);
    let nothing = node.get("/alknet/api/math/mixed?text=null&whole=null&flag=null").await.json();
    assert_eq!(nothing["text"], "null");
    assert_eq!((&nothing["whole"], &nothing["flag"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_told() {
    let node = Node::new();
    for (query, told) in [
        ("text=a&whole=x", "/whole is of another type"),
        ("text=a&whole=1&whole=2", "/whole stands more than once"),
        ("text=a&flag=yes", "/flag is of another type"),
        ("text=a&deep=%7B", "/deep is of another type"),
        ("text=a&mode=sideways", "the input does not fit the schema at /mode"),
        ("text=a&whole=-1", "the input does not fit the schema at /whole"),
        ("whole=1", "the input does not fit the schema"),
        ("", "the input does not fit the schema"),
        ("text=%ff", "the parameters are not UTF-8"),
    ] {
        let answer = node.get(&format!("/alknet/api/math/mixed?{query}")).await;
        let problem = answer.json();
        assert_eq!((answer.status(), &problem["code"]), (400, &json!("INVALID_INPUT")), "{query}");
        assert!(problem["detail"].as_str().unwrap().contains(told), "{query}: {problem}");
    }
    let many = "text=a&".repeat(257);
    assert_eq!(node.get(&format!("/alknet/api/math/mixed?{many}")).await.status(), 400);
}

#[tokio::test]
async fn a_secret_has_no_place_in_a_url() {
    let node = Node::new();
    let answer = node.get("/alknet/api/admin/login?secret=hunter2").await;
    assert_eq!(answer.status(), 400);
    assert!(!answer.text().contains("hunter2"), "{answer:?}");
    assert_eq!(node.get("/alknet/api/admin/login").await.json(), json!(false));
    let answer = node.post("/alknet/api/admin/login", json!({ "secret": "hunter2" })).await;
    assert_eq!(answer.json(), json!(true));
}

#[tokio::test]
async fn failures_are_problem_details() {
    let node = Node::new();
    for (path, status, code, retryable) in [
        ("fail/forbidden", 403, "FORBIDDEN", false),
        ("fail/unavailable", 503, "UNAVAILABLE", true),
        ("fail/panic", 500, "INTERNAL", false),
        ("fail/undeclared", 500, "INTERNAL", false),
        ("nothing/here", 404, "NOT_FOUND", false),
        ("nothing", 404, "NOT_FOUND", false),
        ("math/sum/more", 404, "NOT_FOUND", false),
        ("math/sum", 400, "INVALID_INPUT", false),
    ] {
        let answer = node.get(&format!("/alknet/api/{path}")).await;
        let problem = answer.json();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(problem["status"], status);
        assert_eq!((&problem["code"], &problem["retryable"]), (&json!(code), &json!(retryable)));
        assert!(problem["type"].as_str().unwrap().starts_with("/alknet/api/#"), "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        let retry = (status == 503).then_some("1");
        assert_eq!(answer.header("retry-after"), retry, "{path}");
    }
    let declared = node.post("/alknet/api/math/sum", json!({ "numbers": [i64::MAX, 1] })).await;
    let problem = json!({
        "type": "/alknet/api/#OVERFLOW", "title": "The sum has no room", "status": 422,
        "detail": "the sum is too large", "code": "OVERFLOW", "retryable": false, "details": null,
    });
    assert_eq!((declared.status(), declared.json()), (422, problem));
    let details = node.get("/alknet/api/fail/unavailable").await.json();
    assert_eq!(details["details"], json!({ "a": 1 }));
}

#[tokio::test]
async fn bodies_that_are_none() {
    let node = Node::new();
    let post = |kind: Option<&str>| {
        let request = Request::post("/alknet/api/math/store");
        match kind {
            Some(kind) => request.header("content-type", kind),
            None => request,
        }
    };
    let json = Some("application/json");
    let utf8 = Some("Application/JSON; charset=utf-8");
    let long = format!("\"{}\"", "a".repeat(4 * 1024 * 1024));
    let deep = "[".repeat(100_000);
    for (kind, body, status) in [
        (json, "{", 400),
        (json, "1 2", 400),
        (json, deep.as_str(), 400),
        (json, "\u{feff}1", 400),
        (Some("text/plain"), "1", 415),
        (Some("application/x-www-form-urlencoded"), "a=1", 415),
        (None, "1", 415),
        (json, &long, 413),
        (utf8, "1", 200),
        (json, "", 200),
    ] {
        let answer = node.ask(TOKEN, post(kind), body).await;
        assert_eq!(answer.status(), status, "{kind:?} {answer:?}");
    }
    assert_eq!(node.done.mutations.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_mutation_is_not_read() {
    let node = Node::new();
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE"] {
        let request = Request::builder().method(method).uri("/alknet/api/math/store");
        let answer = node.ask(TOKEN, request, "").await;
        assert_eq!((answer.status(), answer.header("allow")), (405, Some("OPTIONS, POST")));
    }
    let query = node.ask(TOKEN, Request::put("/alknet/api/math/sum"), "").await;
    assert_eq!(query.header("allow"), Some("GET, HEAD, OPTIONS, POST"));
    let options = node.ask(TOKEN, Request::options("/alknet/api/math/sum"), "").await;
    assert_eq!((options.status(), options.header("allow")), (204, query.header("allow")));
    assert_eq!(node.done.mutations.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_says_how_long_it_waits() {
    let node = Node::new();
    let wait =
        |seconds: &str| Request::get("/alknet/api/wait/query").header("request-timeout", seconds);
    let begun = tokio::time::Instant::now();
    let answer = node.ask(TOKEN, wait("2.5"), "").await;
    assert_eq!((answer.status(), &answer.json()["code"]), (504, &json!("TIMEOUT")));
    assert_eq!(begun.elapsed().as_millis(), 2500);
    node.done.hanging(0).await;
    for wrong in ["0", "-1", "", "x", "1e3", "inf", "NaN", "86401", "1.5.5"] {
        assert_eq!(node.ask(TOKEN, wait(wrong), "").await.status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_batch_answers_in_order_and_fails_in_parts() {
    let node = Node::new();
    let batch = json!([
        { "id": "a", "operation": "math/sum", "input": { "numbers": [1, 2] } },
        { "operation": "admin/secret" },
        { "id": 3, "operation": "fail/forbidden" },
        { "id": null, "operation": "nothing/here" },
        { "id": "e", "operation": "count/up", "input": { "to": 1 } },
        { "id": "f", "operation": "math/store", "input": [1] },
    ]);
    let answer = node.post("/alknet/api/batch", batch).await;
    assert_eq!(answer.status(), 200);
    let answers = answer.json();
    let statuses: Vec<u64> =
        answers.as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 403, 404, 400, 200]);
    assert_eq!(answers[0], json!({ "id": "a", "status": 200, "output": 3 }));
    assert_eq!(answers[1], json!({ "status": 200, "output": "the secret" }));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["code"]), (&json!(3), &json!("FORBIDDEN")));
    assert_eq!(answers[5]["output"], json!([1]));
    assert_eq!(node.done.mutations.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_batch_is_bounded() {
    let node = Node::new();
    let calls = |count| Value::from(vec![json!({ "operation": "math/store" }); count]);
    assert_eq!(node.post("/alknet/api/batch", calls(65)).await.status(), 400);
    assert_eq!(node.done.mutations.load(Ordering::SeqCst), 0);
    assert_eq!(node.post("/alknet/api/batch", calls(64)).await.status(), 200);
    // Nothing runs where not all of them are calls.
    for wrong in
        [json!({}), json!([{ "operation": "math/store" }, { "id": 1 }]), json!([[1, "math/store"]])]
    {
        assert_eq!(node.post("/alknet/api/batch", wrong).await.status(), 400);
    }
    assert_eq!(node.done.mutations.load(Ordering::SeqCst), 64);
    let read = node.get("/alknet/api/batch").await;
    assert_eq!((read.status(), read.header("allow")), (405, Some("OPTIONS, POST")));
}

/// Eight run at a time, and all of them end with their client.
#[tokio::test]
async fn a_batch_runs_its_calls_next_to_each_other() {
    let node = Node::new();
    let calls = Value::from(vec![json!({ "operation": "wait/query" }); 10]);
    let asking = node.post("/alknet/api/batch", calls);
    tokio::select! {
        answer = asking => panic!("{answer:?}"),
        () = node.done.hanging(8) => {}
    }
    node.done.hanging(0).await;
}
