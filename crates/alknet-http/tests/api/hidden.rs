//! What a caller may not have.

use std::sync::atomic::Ordering;

use alknet_call::{Access, Context, Nothing, Operation};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::harness::{APP, Answer, HOST, Node, POOR, SESSION, STRANGE, TOKEN};

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// Whatever is asked of it.
#[tokio::test]
async fn what_a_caller_may_not_use_answers_as_what_does_not_exist() {
    let node = Node::new();
    let bodies = [("application/json", "{}"), ("application/json", "{"), ("text/plain", "x")];
    for method in METHODS {
        for (kind, body) in bodies {
            for (field, value) in
                [("x-nothing", "1"), ("request-timeout", "never"), ("origin", APP)]
            {
                let ask = async |path: &str| {
                    let request = Request::builder().method(method).uri(path);
                    let request = request.header("content-type", kind).header(field, value);
                    node.ask(POOR, request, body).await.bytes()
                };
                // As long as each other, so that nothing in the answer can differ by that.
                let nothing = ask("/alknet/api/admin/nothin").await;
                assert_eq!(ask("/alknet/api/admin/secret").await, nothing, "{method} {body}");
                assert_eq!(ask("/alknet/api/admin/erase").await, nothing, "{method} {body}");
                assert_eq!(ask("/alknet/api/count/up?to=x").await, nothing, "{method} {body}");
            }
        }
    }
    assert!(node.get("/alknet/api/admin/secret").await.status() == 200);
}

/// The operations of a service are for whoever has a grant there, without one to call.
#[tokio::test]
async fn a_grant_within_a_service_opens_its_operations_alone() {
    let node = Node::new();
    let list = Operation::query("files/list", async |_: Context, Nothing {}| Ok("listed"));
    let list = list.unwrap().access(Access::Service("echo"));
    node.registry.mount("files", [list]).unwrap();
    let ask = async |path: &str| node.ask(STRANGE, Request::get(path), "").await;
    assert_eq!(ask("/alknet/api/files/list").await.status(), 200);
    let nothing = ask("/alknet/api/math/non").await.bytes();
    assert_eq!(ask("/alknet/api/math/sum").await.bytes(), nothing);
    let described = ask("/alknet/api/openapi.json").await.bytes();
    assert!(described.contains("files/list") && !described.contains("math/sum"));
    assert_eq!(node.ask(POOR, Request::get("/alknet/api/files/list"), "").await.status(), 404);
}

#[tokio::test]
async fn a_batch_hides_it_as_well() {
    let node = Node::new();
    let ask = async |operation: &str| {
        let batch = json!([{ "operation": operation, "input": 1 }]).to_string();
        let request = Request::post("/alknet/api/batch").header("content-type", "application/json");
        node.ask(POOR, request, &batch).await.bytes()
    };
    let nothing = ask("admin/nothing").await;
    for hidden in ["admin/secret", "admin/erase", "count/up"] {
        assert_eq!(ask(hidden).await, nothing, "{hidden}");
    }
}

#[tokio::test]
async fn the_audit_log_knows_the_difference() {
    let node = Node::new();
    node.ask(POOR, Request::get("/alknet/api/admin/secret"), "").await;
    let refused = (Some("admin/secret".to_owned()), Some("operation not granted".to_owned()));
    assert_eq!(node.log.refused(), [refused]);
    node.ask(POOR, Request::get("/alknet/api/admin/nothing"), "").await;
    assert_eq!(node.log.refused(), []);
}

/// Also a public operation, the description, and what does not exist.
#[tokio::test]
async fn whoever_may_call_nothing_sees_the_decoy() {
    let node = Node::new();
    let elsewhere = node.ask(STRANGE, Request::get("/elsewhere"), "").await.bytes();
    for path in
        ["", "/", "/openapi.json", "/page.css", "/batch", "/public/hello", "/math/sum", "/x"]
    {
        for method in METHODS {
            let request = |path: String| Request::builder().method(method).uri(path);
            let path = format!("/alknet/api{path}");
            let strange = node.ask(STRANGE, request(path.clone()), "").await;
            assert!(strange.is_decoy() || method == "TRACE", "{method} {path} {strange:?}");
            let unknown = node.ask("alk_wrong", request(path.clone()), "").await.bytes();
            let nowhere = node.ask("alk_wrong", request("/nowhere".into()), "").await.bytes();
            assert_eq!(unknown, nowhere, "{method} {path}");
            assert_eq!(strange.bytes(), nowhere, "{method} {path}");
            if method == "GET" {
                assert_eq!(strange.bytes(), elsewhere);
            }
        }
    }
}

/// A request of a signed-in browser.
async fn browse(node: &Node, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", HOST);
    request = request.header("cookie", format!("__Host-alknet={SESSION}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let body = if method == "POST" { "{}" } else { "" };
    node.send(request.body(Full::new(Bytes::from(body))).unwrap()).await.whole().await
}

#[tokio::test]
async fn a_foreign_page_makes_a_browser_run_nothing() {
    let node = Node::new();
    let origin = &format!("https://{HOST}");
    let (site, mode) = ("sec-fetch-site", "sec-fetch-mode");
    let json = ("content-type", "application/json");
    let cases: [&[(&str, &str)]; 9] = [
        // A page elsewhere, by a form, by a script or in an image.
        &[json, ("origin", "https://evil.example"), (site, "cross-site")],
        &[json, ("origin", "null"), (site, "cross-site")],
        &[json, (site, "cross-site"), (mode, "navigate")],
        &[json, (site, "cross-site"), (mode, "no-cors")],
        // One on the same host, at another port.
        &[json, ("origin", "https://node.example:8443"), (site, "same-site")],
        // A page whose origin may call with a token of its own.
        &[json, ("origin", APP), (site, "cross-site")],
        // A link in a letter.
        &[json, (site, "none"), (mode, "navigate")],
        // A browser that says nothing of where a page is from.
        &[json],
        &[json, ("origin", origin), (site, "cross-site")],
    ];
    for fields in cases {
        for (method, path) in [
            ("POST", "/alknet/api/math/store"),
            ("GET", "/alknet/api/admin/secret"),
            ("GET", "/alknet/api/count/up?to=1"),
            ("POST", "/alknet/api/count/up"),
            ("POST", "/alknet/api/batch"),
        ] {
            let answer = browse(&node, method, path, fields).await;
            assert!(answer.is_decoy(), "{method} {path} {fields:?} {answer:?}");
        }
    }
    assert_eq!(node.done.mutations.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_nodes_own_pages_call_with_the_cookie() {
    let node = Node::new();
    let origin = &format!("https://{HOST}");
    let same = ("sec-fetch-site", "same-origin");
    let json = ("content-type", "application/json");
    let store = "/alknet/api/math/store";
    let posted = browse(&node, "POST", store, &[json, ("origin", origin), same]).await;
    assert_eq!(posted.status(), 200);
    let secret = "/alknet/api/admin/secret";
    assert_eq!(browse(&node, "GET", secret, &[same]).await.status(), 200);
    assert_eq!(browse(&node, "GET", secret, &[("origin", origin)]).await.status(), 200);
    // The page itself can be opened from anywhere but a foreign page.
    let opened = [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")];
    assert_eq!(browse(&node, "GET", "/alknet/api/", &opened).await.status(), 200);
    let linked = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    assert!(browse(&node, "GET", "/alknet/api/", &linked).await.is_decoy());
}

#[tokio::test]
async fn pages_of_listed_origins_call_with_a_token() {
    let node = Node::new();
    let path = "/alknet/api/math/sum?numbers=1";
    let preflight = async |token: Option<&str>, origin: &str| {
        let mut request = Request::options(path).header("host", HOST).header("origin", origin);
        request = request.header("access-control-request-method", "POST");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        node.send(request.body(Full::default()).unwrap()).await.whole().await
    };
    for token in [None, Some(TOKEN), Some(STRANGE)] {
        let answer = preflight(token, APP).await;
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    }
    let foreign = preflight(None, "https://evil.example").await;
    assert!(foreign.is_decoy(), "{foreign:?}");
    let ask =
        async |origin: &str| node.ask(TOKEN, Request::get(path).header("origin", origin), "").await;
    let allowed = ask(APP).await;
    assert_eq!((allowed.status(), allowed.header("access-control-allow-origin")), (200, Some(APP)));
    assert_eq!(allowed.header("vary"), Some("origin"));
    assert_eq!(ask("https://evil.example").await.header("access-control-allow-origin"), None);
}
