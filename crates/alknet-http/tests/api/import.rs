//! An API elsewhere as operations of the node.

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use alknet_core::Secret;
use alknet_http::api::import::{Document, Import, ImportError, LoadError, Source};
use axum::{Router, body::Bytes, extract::State, response::IntoResponse as _};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::harness::{Node, POOR};

/// What reached the API.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

type Seen = Arc<Mutex<Vec<Asked>>>;

/// An HTTP server on this machine. Ends with its owner.
struct Server {
    address: SocketAddr,
    seen: Seen,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
        let router = Router::new().fallback(answer).with_state(seen.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, _tasks: tasks }
    }

    fn url(&self, path: &str) -> Uri {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// The one request since the last time.
    fn asked(&self) -> Asked {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

async fn answer(
    State(seen): State<Seen>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let path = uri.path().to_owned();
    seen.lock().unwrap().push(Asked { method, uri, headers, body });
    let json = [(header::CONTENT_TYPE, "application/json")];
    match path.as_str() {
        "/openapi.json" => (json, document().to_string()).into_response(),
        "/v1/status/302" => {
            (StatusCode::FOUND, [(header::LOCATION, "/v1/elsewhere")]).into_response()
        }
        "/v1/status/204" => StatusCode::NO_CONTENT.into_response(),
        "/v1/status/200" => "plain <text>".into_response(),
        "/v1/status/201" => (json, "{\"broken\"").into_response(),
        "/v1/status/202" => (json, vec![b'1'; 5 * 1024 * 1024]).into_response(),
        "/v1/status/203" => std::future::pending().await,
        path if path.starts_with("/v1/status/") => {
            let status: u16 = path.rsplit('/').next().unwrap().parse().unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            (status, json, json!({ "why": "because" }).to_string()).into_response()
        }
        _ => (json, json!({ "id": 7, "name": null }).to_string()).into_response(),
    }
}

fn document() -> Value {
    let parameter = |name: &str, place: &str, schema: Value| json!({ "name": name, "in": place, "required": place == "path", "schema": schema });
    let text = json!({ "type": "string" });
    let ok = json!({ "200": { "description": "", "content": {
        "application/json": { "schema": { "$ref": "#/components/schemas/Pet" } } } } });
    json!({
        "openapi": "3.0.3",
        "info": { "title": "Pets", "version": "1" },
        "servers": [{ "url": "https://evil.example/" }],
        "paths": {
            "/pets/{petId}": {
                "parameters": [{ "$ref": "#/components/parameters/petId" }],
                "get": {
                    "operationId": "getPet", "summary": "One pet.", "responses": ok,
                    "servers": [{ "url": "https://evil.example/" }],
                    "parameters": [
                        parameter("tags", "query", json!({ "type": "array", "items": text })),
                        parameter("petId", "query", text.clone()),
                        parameter("X-Trace", "header", text.clone()),
                        parameter("Host", "header", text.clone()),
                        { "name": "where", "in": "query", "style": "deepObject",
                          "schema": { "type": "object" } },
                        { "name": "ids", "in": "query", "explode": false,
                          "schema": { "type": "array", "items": { "type": "integer" } } },
                        { "name": "filter", "in": "query",
                          "content": { "application/json": { "schema": { "type": "object" } } } },
                    ],
                },
                "put": {
                    "operationId": "replacePet", "responses": ok,
                    "requestBody": { "$ref": "#/components/requestBodies/Pet" },
                },
            },
            "/status/{code}": { "get": {
                "operationId": "status", "responses": {},
                "parameters": [parameter("code", "path", json!({ "type": "integer" }))],
            } },
            "/upload": { "post": {
                "operationId": "upload", "responses": {},
                "requestBody": { "required": true, "content": { "image/png": {} } },
            } },
            "/outside": { "get": { "operationId": "outside", "responses": { "200": {
                "description": "", "content": { "application/json": {
                    "schema": { "$ref": "file:///etc/passwd" } } } } } } },
            "/twice": { "get": { "operationId": "get-pet", "responses": {} } },
            "/plain": { "delete": { "responses": { "204": { "description": "" } } } },
        },
        "components": {
            "parameters": { "petId": parameter("petId", "path", text) },
            "requestBodies": { "Pet": { "required": true, "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/Pet" } } } } },
            "schemas": { "Pet": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": { "type": "integer", "minimum": 0, "exclusiveMinimum": true },
                    "name": { "type": "string", "nullable": true, "pattern": "^(?!x)" },
                    "parent": { "$ref": "#/components/schemas/Pet" },
                },
            } },
        },
    })
}

/// A node with the API in its namespace `pets`.
async fn imported(server: &Server) -> Node {
    let node = Node::new();
    let document = Document::Url(server.url("/openapi.json"));
    let mut source = Source::new("pets", document, server.url("/v1/"));
    source.token = Some(Secret::new("token-of-the-node"));
    let import = Import::new(source, node.registry.clone()).unwrap();
    assert_eq!(import.load().await.unwrap(), 4);
    assert_eq!(server.asked().uri, "/openapi.json");
    node
}

#[tokio::test]
async fn what_the_document_has_can_be_called() {
    let server = Server::start().await;
    let node = imported(&server).await;
    let input = json!({
        "petId": "a/b..?c", "tags": ["x y", "&"], "query_petId": "q", "X-Trace": "t",
        "where": { "age": 3 }, "ids": [1, 2], "filter": { "a": "b" },
    });
    let answer = node.post("/alknet/api/pets/get-pet", input).await;
    assert_eq!((answer.status(), answer.json()), (200, json!({ "id": 7, "name": null })));
    let asked = server.asked();
    let query = "tags=x%20y&tags=%26&petId=q&where%5Bage%5D=3&ids=1,2\
                 &filter=%7B%22a%22%3A%22b%22%7D";
    assert_eq!(asked.uri.to_string(), format!("/v1/pets/a%2Fb..%3Fc?{query}"));
    assert_eq!((asked.method, &asked.headers["x-trace"]), (Method::GET, &"t".parse().unwrap()));
    assert_eq!(asked.headers["authorization"], "Bearer token-of-the-node");
    assert_eq!(asked.headers["host"], server.address.to_string());

    let pet = json!({ "id": 1, "name": "Rex", "parent": { "id": 2 } });
    let replace = json!({ "petId": "1", "body": pet });
    assert_eq!(node.post("/alknet/api/pets/replace-pet", replace).await.status(), 200);
    let asked = server.asked();
    assert_eq!((asked.method, asked.uri.path()), (Method::PUT, "/v1/pets/1"));
    assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap(), pet);
    assert_eq!(node.post("/alknet/api/pets/delete-plain", json!({})).await.status(), 200);
}

/// The input is checked here, and says nothing of where a request goes.
#[tokio::test]
async fn a_caller_cannot_leave_the_operation() {
    let server = Server::start().await;
    let node = imported(&server).await;
    for input in [
        json!({ "petId": ".." }),
        // A server in front may decode before it looks.
        json!({ "petId": "a/../b" }),
        json!({ "petId": "..\\admin" }),
        json!({ "petId": "." }),
        json!({ "petId": "" }),
        json!({ "petId": "1", "X-Trace": "a\r\nb: c" }),
        json!({ "petId": "1", "Host": "evil.example" }),
        json!({ "petId": "1", "tags": "x" }),
        json!({ "petId": "x".repeat(10_000) }),
        json!({}),
    ] {
        let answer = node.post("/alknet/api/pets/get-pet", input.clone()).await;
        assert_eq!(answer.status(), 400, "{input} {answer:?}");
    }
    for body in [json!({ "id": 0 }), json!({ "id": 1, "parent": {} }), json!(1)] {
        let input = json!({ "petId": "1", "body": body });
        assert_eq!(node.post("/alknet/api/pets/replace-pet", input).await.status(), 400, "{body}");
    }
    assert!(server.seen.lock().unwrap().is_empty());
    let request = http::Request::get("/alknet/api/pets/get-pet?petId=1");
    assert_eq!(node.ask(POOR, request, "").await.status(), 404);
}

#[tokio::test]
async fn failures_of_the_api_are_failures_of_the_call() {
    let server = Server::start().await;
    let node = imported(&server).await;
    for (status, code, answered) in [
        (400, "INVALID_INPUT", 400),
        (401, "UNAVAILABLE", 503),
        (403, "FORBIDDEN", 403),
        (404, "NO_SUCH_RESOURCE", 422),
        (409, "CONFLICT", 422),
        (418, "REFUSED", 422),
        (429, "UNAVAILABLE", 503),
        (500, "UNAVAILABLE", 503),
        (504, "TIMEOUT", 504),
        (302, "UNAVAILABLE", 503),
        (201, "UNAVAILABLE", 503),
        (202, "UNAVAILABLE", 503),
    ] {
        let answer = node.get(&format!("/alknet/api/pets/status?code={status}")).await;
        let problem = answer.json();
        assert_eq!((answer.status(), &problem["code"]), (answered, &json!(code)), "{status}");
        if status >= 400 {
            assert_eq!(problem["details"]["answer"], json!({ "why": "because" }), "{status}");
        }
        // A redirect is not followed, so that the token stays where it belongs.
        assert_eq!(server.asked().uri.path(), format!("/v1/status/{status}"));
    }
    let text = node.get("/alknet/api/pets/status?code=200").await;
    assert_eq!(text.json(), json!("plain <text>"));
    assert_eq!(node.get("/alknet/api/pets/status?code=204").await.json(), Value::Null);
    let request = http::Request::get("/alknet/api/pets/status?code=203");
    let slow = request.header("request-timeout", "0.05");
    let slow = node.ask(crate::harness::TOKEN, slow, "").await;
    assert_eq!(slow.status(), 504);
}

#[tokio::test]
async fn the_token_goes_to_the_api_alone() {
    let (api, elsewhere) = (Server::start().await, Server::start().await);
    let node = Node::new();
    let document = Document::Url(elsewhere.url("/openapi.json"));
    let mut source = Source::new("pets", document, api.url("/v1"));
    source.token = Some(Secret::new("token-of-the-node"));
    Import::new(source, node.registry.clone()).unwrap().load().await.unwrap();
    assert_eq!(elsewhere.asked().headers.get("authorization"), None);
    assert_eq!(node.get("/alknet/api/pets/get-pet?petId=1").await.status(), 200);
    assert_eq!(api.asked().headers["authorization"], "Bearer token-of-the-node");
}

#[tokio::test]
async fn an_api_that_is_away_is_unavailable() {
    let server = Server::start().await;
    let node = imported(&server).await;
    drop(server);
    tokio::time::timeout(Duration::from_secs(20), async {
        let answer = node.get("/alknet/api/pets/get-pet?petId=1").await;
        assert_eq!(answer.json()["code"], "UNAVAILABLE");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_no_document_is_refused() {
    let node = Node::new();
    let load = async |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let document = Document::File(file.path().into());
        let source = Source::new("pets", document, "https://api.example".parse().unwrap());
        Import::new(source, node.registry.clone()).unwrap().load().await
    };
    for text in ["", "{}", "[]", "{\"swagger\": \"2.0\"}", "{\"openapi\": 3}", "\u{0}"] {
        assert!(matches!(load(text).await, Err(LoadError::Invalid(_))), "{text}");
    }
    let odd = json!({ "openapi": "3.1.0", "paths": {
        "no/slash": { "get": {} }, "/a/{b}": { "get": {} }, "/c": 7, "/d": { "get": 7 },
        "/e": { "get": { "parameters": [{ "in": "cookie", "required": true }] } },
        "/f": { "get": { "parameters": [{ "$ref": "#/f" }] } },
        "/g{": { "get": {} },
        "/h": { "get": { "responses": { "200": { "content": { "application/json": {
            "schema": { "$dynamicRef": "#x" } } } } } } },
        "/i": { "get": { "responses": { "200": { "content": { "application/json": {
            "schema": { "type": 7 } } } } } } },
    } });
    assert_eq!(load(&odd.to_string()).await.unwrap(), 0);
    let many: serde_json::Map<String, Value> =
        (0..600).map(|n| (format!("/{n}"), json!({ "get": {} }))).collect();
    let many = json!({ "openapi": "3.1.0", "paths": many });
    assert!(load(&many.to_string()).await.is_err());
}

#[test]
fn only_what_can_be_asked_safely_is_imported() {
    let node = Node::new();
    let import = |namespace: &str, url: &str| {
        let document = Document::File("/nowhere".into());
        let source = Source::new(namespace, document, url.parse().unwrap());
        Import::new(source, node.registry.clone()).map(drop)
    };
    assert!(matches!(import("A", "https://a.example"), Err(ImportError::Namespace(_))));
    for url in ["http://a.example", "ftp://a.example", "https://u:p@a.example", "/a"] {
        assert!(matches!(import("a", url), Err(ImportError::Outbound(_))), "{url}");
    }
    assert!(matches!(import("a", "https://a.example/?b"), Err(ImportError::Query(_))));
    assert!(import("a", "http://[::1]:8080/api").is_ok());
}
