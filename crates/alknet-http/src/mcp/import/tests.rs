use std::{
    future,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use alknet_call::{CallError, Context, ErrorCode, InvalidOperation, Nothing, Operation, Request};
use alknet_core::{
    Access, Alpn, Audit, AuthContext, Dispatcher, Endpoint, EndpointConfig, HandlerRegistry,
    Limits, NodeIdentity, TransportKind, WebCertificate, WebCertificates,
};
use alknet_testing::identities::{Identities, identity};
use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::{
    HttpAdapter,
    mcp::{Mcp, Server as Described},
};

const TOKEN: &str = "alk_of-the-importer";

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Text {
    text: String,
}

/// A node elsewhere, over TLS, whose operations are to be imported.
struct Far {
    endpoint: Endpoint,
    running: watch::Sender<usize>,
    authority: Vec<u8>,
}

struct OneRunning(watch::Sender<usize>);

impl Drop for OneRunning {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn operations(running: &watch::Sender<usize>) -> Result<Vec<Operation>, InvalidOperation> {
    let running = running.clone();
    Ok(vec![
        Operation::query("test/echo", async |_: Context, text: Text| Ok(text))?.describe("Echo."),
        Operation::mutation("test/fail", async |_: Context, Nothing {}| {
            Err::<Text, _>(CallError::declared("TOO_LATE", "the train has left"))
        })?
        .error("TOO_LATE", ""),
        Operation::query("test/hang", move |_: Context, Nothing {}| {
            running.send_modify(|count| *count += 1);
            let running = OneRunning(running.clone());
            async move {
                let _running = running;
                future::pending::<Result<Text, CallError>>().await
            }
        })?
        .deadline(None),
    ])
}

impl Far {
    fn start(listen: SocketAddr, certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Self {
        let running = watch::Sender::new(0);
        let registry =
            OperationRegistry::new(Audit::to_log(), operations(&running).unwrap()).unwrap();
        let mcp = Mcp::new(registry, Described::new("far", "1"));
        let node = Arc::new(NodeIdentity::from_seed(&[1; 32]).unwrap());
        let identities =
            Arc::new(Identities::new().with_token(TOKEN, identity("importer", &["call"])));
        let services = Dispatcher::new(HandlerRegistry::new(), Limits::default(), Audit::to_log());
        let http = HttpAdapter::builder(services.clone(), identities.clone(), node.clone())
            .private(mcp.routes());
        let dispatcher = services.extend(http.build().unwrap(), Access::Public).unwrap();
        let (chain, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        let web = WebCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let config = EndpointConfig {
            listen,
            identity: node,
            web: WebCertificates::new(web),
            hide_services: false,
            fallback: None,
            resets: None,
        };
        let endpoint = Endpoint::bind(&config, dispatcher, identities).unwrap();
        Self { endpoint, running, authority: certificate.cert.der().to_vec() }
    }

    fn new() -> Self {
        Self::start("127.0.0.1:0".parse().unwrap(), &certificate())
    }

    fn source(&self) -> Source {
        let port = self.endpoint.local_addr().port();
        let url = format!("https://localhost:{port}/alknet/mcp").parse().unwrap();
        let authorities = vec![self.authority.clone()];
        Source { token: Some(Secret::new(TOKEN)), authorities, ..Source::new("far", url) }
    }
}

fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn near() -> OperationRegistry {
    OperationRegistry::new(Audit::to_log(), []).unwrap()
}

fn somebody(scopes: &[&str]) -> AuthContext {
    let alpn = Alpn::service("call").unwrap();
    let auth = AuthContext::anonymous(alpn, TransportKind::Tls, None);
    AuthContext { identity: Some(Arc::new(identity("ann", scopes))), ..auth }
}

async fn call(registry: &OperationRegistry, name: &str, input: Value) -> Result<Value, CallError> {
    let request = Request::new(name, somebody(&["call"])).input(input);
    let output = registry.start(request)?.output().await?;
    Ok(serde_json::from_str(output.get()).unwrap())
}

async fn imported(far: &Far) -> (OperationRegistry, Import, Running) {
    let registry = near();
    let import = Import::new(far.source(), registry.clone()).unwrap();
    let client = import.connect().await.unwrap();
    import.list(&client).await.unwrap();
    (registry, import, client)
}

#[tokio::test]
async fn tools_become_operations() {
    let far = Far::new();
    let (registry, _import, _client) = imported(&far).await;
    let all = registry.visible(&somebody(&["call:far/*"]));
    let echo = all.iter().find(|operation| operation.spec().name.as_str() == "far/test_echo");
    let spec = echo.unwrap().spec();
    assert_eq!((spec.kind, spec.description.as_str()), (alknet_call::Kind::Query, "Echo."));
    assert_eq!(spec.input.json()["required"], json!(["text"]));
    let output = call(&registry, "far/test_echo", json!({ "text": "hi" })).await.unwrap();
    assert_eq!(output, json!({ "text": "hi" }));
    let error = call(&registry, "far/test_echo", json!({ "text": 1 })).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidInput, "checked here, before anything is sent");
    assert!(
        registry
            .visible(&somebody(&["ssh"]))
            .iter()
            .all(|operation| { operation.spec().name.namespace() != "far" })
    );
}

#[tokio::test]
async fn a_failure_over_there_is_told_here() {
    let far = Far::new();
    let (registry, _import, _client) = imported(&far).await;
    let error = call(&registry, "far/test_fail", json!({})).await.unwrap_err();
    assert_eq!(error.code.as_str(), "TOOL_FAILED");
    assert_eq!(error.message, "the train has left (TOO_LATE)");
    assert_eq!(error.details["code"], "TOO_LATE");
}

#[tokio::test]
async fn a_call_that_is_aborted_here_is_cancelled_there() {
    let far = Far::new();
    let (registry, _import, _client) = imported(&far).await;
    let mut running = far.running.subscribe();
    tokio::select! {
        _ = call(&registry, "far/test_hang", json!({})) => unreachable!("it hangs"),
        _ = running.wait_for(|count| *count == 1) => (),
    }
    running.wait_for(|count| *count == 0).await.unwrap();
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let certificate = certificate();
    let far = Far::start("127.0.0.1:0".parse().unwrap(), &certificate);
    let (address, source) = (far.endpoint.local_addr(), far.source());
    let registry = near();
    let import = Import::new(source, registry.clone()).unwrap();
    let (mut peer, changed) = (import.server.peer.subscribe(), import.server.changed.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(import.run());
    peer.wait_for(Option::is_some).await.unwrap();
    call(&registry, "far/test_echo", json!({ "text": "hi" })).await.unwrap();

    far.endpoint.shutdown(Duration::ZERO).await;
    changed.notify_one();
    peer.wait_for(Option::is_none).await.unwrap();
    let error = call(&registry, "far/test_echo", json!({ "text": "hi" })).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);

    let _far = Far::start(address, &certificate);
    peer.wait_for(Option::is_some).await.unwrap();
    call(&registry, "far/test_echo", json!({ "text": "hi" })).await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_gets_no_token() {
    let far = Far::new();
    let stranger = Source { authorities: Vec::new(), ..far.source() };
    let import = Import::new(stranger, near()).unwrap();
    assert!(matches!(import.connect().await, Err(Away::Connect(_))));
    // The name is that of another machine.
    let url = far.source().url.to_string().replace("localhost", "127.0.0.1").parse().unwrap();
    let import = Import::new(Source { url, ..far.source() }, near()).unwrap();
    assert!(matches!(import.connect().await, Err(Away::Connect(_))));
}

#[test]
fn a_source_that_makes_no_sense_is_refused() {
    let new = |namespace: &str, url: &str| {
        Import::new(Source::new(namespace, url.parse().unwrap()), near()).map(drop)
    };
    assert!(new("far", "https://a.example/mcp").is_ok());
    assert!(matches!(new("Far/", "https://a.example/"), Err(ImportError::Namespace(_))));
    let plain = new("far", "http://a.example/");
    assert!(matches!(plain, Err(ImportError::Outbound(OutboundError::Plain(_)))));
}

/// A server that says whatever `answer` makes of a request, and refuses it for `null`.
async fn hostile(
    answer: impl Fn(&str, &Value) -> Value + Clone + Send + Sync + 'static,
) -> (Source, JoinSet<()>) {
    let respond = async move |Json(message): Json<Value>| {
        let result = answer(message["method"].as_str().unwrap_or_default(), &message);
        if message["id"].is_null() {
            return StatusCode::ACCEPTED.into_response();
        }
        if result.is_null() {
            return StatusCode::BAD_REQUEST.into_response();
        }
        Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        axum::serve(listener, Router::new().route("/", post(respond))).await.unwrap();
    });
    (Source::new("far", url), tasks)
}

fn discovered() -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": { "tools": {} },
        "ttlMs": 0,
        "cacheScope": "private",
    })
}

fn named(name: &str, more: &Value) -> Value {
    let mut tool = json!({ "name": name, "inputSchema": { "type": "object" } });
    for (member, value) in more.as_object().unwrap() {
        tool[member] = value.clone();
    }
    tool
}

#[tokio::test]
async fn what_a_server_says_is_bounded() {
    static PAGES_ASKED: AtomicUsize = AtomicUsize::new(0);
    let (source, _serving) = hostile(|method, _| match method {
        "server/discover" => discovered(),
        _ => {
            let page = PAGES_ASKED.fetch_add(1, Ordering::SeqCst);
            let mut tools = vec![named(&format!("only {page}"), &json!({}))];
            if page == 0 {
                let long = "long ".repeat(10_000);
                tools.push(named("talks", &json!({ "description": long })));
                tools.push(named("TALKS", &json!({})));
                let schema =
                    json!({ "inputSchema": { "type": "object", "title": "x".repeat(70_000) } });
                tools.push(named("long_schema", &schema));
                let schema = json!({ "inputSchema": { "$ref": "https://localhost:1/schema" } });
                tools.push(named("fetches", &schema));
                tools.push(named(&"n".repeat(1000), &json!({})));
            }
            json!({ "resultType": "complete", "tools": tools, "nextCursor": "more" })
        }
    })
    .await;
    let registry = near();
    let import = Import::new(source, registry.clone()).unwrap();
    let client = import.connect().await.unwrap();
    import.list(&client).await.unwrap();
    assert_eq!(PAGES_ASKED.load(Ordering::SeqCst), PAGES);
    let all = registry.visible(&somebody(&["call:far/*"]));
    let spec =
        |name: &str| all.iter().find(|it| it.spec().name.as_str() == name).map(|it| it.spec());
    assert!(spec("far/talks").unwrap().description.len() <= 4096);
    assert!(spec("far/only_1").is_some());
    assert!(spec("far/long_schema").is_none());
    assert!(spec("far/fetches").is_none());
    assert!(spec(&format!("far/{}", "n".repeat(64))).is_some());
}

#[tokio::test]
async fn a_server_of_an_older_revision_is_imported_too() {
    let (source, _serving) = hostile(|method, message| match method {
        "initialize" => json!({
            "protocolVersion": "2025-06-18",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "old", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [named("Old.Tool", &json!({}))] }),
        "tools/call" => json!({ "content": [{
            "type": "text", "text": message["params"]["name"],
        }] }),
        _ => Value::Null,
    })
    .await;
    let registry = near();
    let import = Import::new(source, registry.clone()).unwrap();
    let client = import.connect().await.unwrap();
    import.list(&client).await.unwrap();
    let output = call(&registry, "far/old_tool", json!({})).await.unwrap();
    assert_eq!(output["content"][0]["text"], "Old.Tool");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_a_failure() {
    let (source, _serving) = hostile(|method, _| match method {
        "server/discover" => discovered(),
        "tools/list" => json!({ "resultType": "complete", "tools": [named("big", &json!({}))] }),
        _ => json!({ "resultType": "complete", "content": [
            { "type": "text", "text": "x".repeat(6 * 1024 * 1024) },
        ] }),
    })
    .await;
    let registry = near();
    let import = Import::new(source, registry.clone()).unwrap();
    let client = import.connect().await.unwrap();
    import.list(&client).await.unwrap();
    let error = call(&registry, "far/big", json!({})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
}
