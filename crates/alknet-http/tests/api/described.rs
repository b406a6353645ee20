//! What a caller is told of the operations.

use std::collections::BTreeSet;

use alknet_call::{Handler, Kind, Operation, Schema, Spec};
use http::Request;
use serde_json::{Value, json};

use crate::harness::{Node, POOR, TOKEN};

/// Every `$ref` in a document, wherever it stands.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn assert_whole(document: &Value) {
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect(&reference).replace("%20", " ");
        assert!(document.pointer(&pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn a_caller_is_told_of_what_it_may_use() {
    let node = Node::new();
    let all = node.get("/alknet/api/openapi.json").await.json();
    assert_whole(&all);
    assert_eq!(all["openapi"], "3.1.0");
    let paths = |document: &Value| -> BTreeSet<String> {
        document["paths"].as_object().unwrap().keys().cloned().collect()
    };
    assert!(paths(&all).contains("/alknet/api/admin/secret"));
    for path in ["/alknet/api/openapi.json", "/alknet/api/"] {
        let some = node.ask(POOR, Request::get(path), "").await;
        assert!(!some.text().contains("admin") && !some.text().contains("wait/"), "{path}");
        assert!(some.text().contains("math/sum"), "{path}");
    }
    let some = node.ask(POOR, Request::get("/alknet/api/openapi.json"), "").await.json();
    assert_whole(&some);
    let expected = ["batch", "math/mixed", "math/store", "math/sum", "public/hello"]
        .into_iter()
        .chain(["services/list", "services/register", "services/schema"]);
    assert_eq!(paths(&some), expected.map(|name| format!("/alknet/api/{name}")).collect());
}

#[tokio::test]
async fn an_operation_is_described_as_it_is_called() {
    let node = Node::new();
    let document = node.get("/alknet/api/openapi.json").await.json();
    let sum = &document["paths"]["/alknet/api/math/sum"];
    assert_eq!(sum["get"]["parameters"][1]["name"], "extra");
    let numbers = &sum["get"]["parameters"][2];
    assert_eq!((&numbers["name"], &numbers["required"]), (&json!("numbers"), &json!(true)));
    assert_eq!(numbers["schema"]["type"], "array");
    let statuses: Vec<&String> = sum["post"]["responses"].as_object().unwrap().keys().collect();
    let expected = ["200", "400", "403", "404", "408", "413", "415", "422", "500", "503", "504"];
    assert_eq!(statuses, expected);
    assert!(sum.to_string().contains("OVERFLOW"));
    let deep = document["paths"]["/alknet/api/math/mixed"]["get"]["parameters"].as_array().unwrap();
    let deep = deep.iter().find(|parameter| parameter["name"] == "deep").unwrap();
    assert!(deep["content"]["application/json"].is_object(), "{deep}");
    assert!(document["paths"]["/alknet/api/math/store"]["get"].is_null());
    let login = document["paths"]["/alknet/api/admin/login"]["get"]["parameters"].to_string();
    assert!(!login.contains("secret"), "{login}");
    let items = &document["paths"]["/alknet/api/count/up"]["get"]["responses"]["200"]["content"];
    assert!(items["text/event-stream"].is_object());
}

struct Nowhere;

impl Handler for Nowhere {
    fn run(
        &self,
        _: alknet_call::Context,
        _: Value,
        _: alknet_call::Items,
    ) -> alknet_core::BoxFuture<'_, Result<alknet_call::Output, alknet_call::CallError>> {
        Box::pin(async { Err(alknet_call::CallError::timeout()) })
    }
}

/// Schemas of others have references of every kind.
#[tokio::test]
async fn no_schema_leaves_a_reference_dangling() {
    let node = Node::new();
    let schemas = [
        json!({ "type": "object", "properties": { "a": { "$ref": "#/definitions/A%20b" } },
            "definitions": { "A b": { "$ref": "#" } } }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/A~1b" } },
            "$defs": { "A/b": { "type": ["string", "null"] } } }),
        json!({ "$ref": "#/$defs/All", "$defs": { "All": { "type": "object", "properties": {
            "self": { "$ref": "#/$defs/All" }, "$ref": { "type": "string" } } } } }),
        json!({ "$id": "https://a.example/", "type": "object", "properties": { "a": { "$ref": "#" } } }),
        json!(true),
    ];
    let operations = schemas.into_iter().enumerate().map(|(n, schema)| {
        let schema = Schema::new(schema).unwrap();
        let name = format!("far/{n}");
        let spec = Spec::new(&name, Kind::Query, schema.clone(), schema).unwrap();
        Operation::raw(spec, Nowhere).describe("<b>not</b> \"markup\"").error("A <b>", "\"")
    });
    node.registry.mount("far", operations).unwrap();
    assert_whole(&node.get("/alknet/api/openapi.json").await.json());
    assert_eq!(node.get("/alknet/api/far/4?any=1").await.status(), 504);
    let page = node.get("/alknet/api/").await;
    assert!(!page.text().contains("<b>"), "{}", page.text());
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let node = Node::new();
    let page = node.ask(TOKEN, Request::get("/alknet/api/"), "").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
    assert!(!page.text().contains("://") || page.text().contains("json-schema.org"));
    for path in ["page.css", "page.js"] {
        assert!(page.text().contains(path));
        assert_eq!(node.get(&format!("/alknet/api/{path}")).await.status(), 200);
    }
    let bare = node.get("/alknet/api").await;
    assert_eq!((bare.status(), bare.header("location")), (308, Some("/alknet/api/")));
    for path in ["", "/", "/page.js", "/openapi.json"] {
        let request = Request::post(format!("/alknet/api{path}"));
        assert_eq!(node.ask(TOKEN, request, "").await.status(), 405, "{path}");
    }
}
