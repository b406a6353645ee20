//! A client that says exactly what a test wants.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{HOST, Node};

/// The revisions of the protocol: one with sessions, and the current one.
pub(crate) const LEGACY: &str = "2025-11-25";
pub(crate) const CURRENT: &str = "2026-07-28";

/// One HTTP/2 connection of somebody with a token.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    token: &'static str,
    _driver: JoinSet<Result<(), hyper::Error>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The messages, of a stream of events as of a plain body.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let events = self.text.lines().filter_map(|line| line.strip_prefix("data:"));
        let messages: Vec<Value> =
            events.filter_map(|data| serde_json::from_str(data.trim()).ok()).collect();
        if messages.is_empty() { vec![serde_json::from_str(&self.text).unwrap()] } else { messages }
    }

    /// The last message: the response.
    pub(crate) fn response(&self) -> Value {
        self.messages().pop().unwrap()
    }

    /// The result that it holds.
    pub(crate) fn result(&self) -> Value {
        let response = self.response();
        assert!(response.get("error").is_none(), "{response}");
        response["result"].clone()
    }
}

impl Client {
    pub(crate) async fn new(node: &Node, token: &'static str) -> Self {
        let stream = node.connect("h2").open_bi().await.unwrap();
        let (sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        Self { sender, token, _driver: tasks }
    }

    /// A request with these fields beside the ones that all have.
    pub(crate) fn request(&self, method: &str, fields: &[(&str, &str)]) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{HOST}/alknet/mcp"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        fields.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    /// Sends a message; the answer is not read.
    pub(crate) async fn open(
        &self,
        method: &str,
        fields: &[(&str, &str)],
        body: &Value,
    ) -> Response<Incoming> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = self.request(method, fields).body(Full::new(body)).unwrap();
        self.sender.clone().send_request(request).await.unwrap()
    }

    pub(crate) async fn post(&self, fields: &[(&str, &str)], body: &Value) -> Answer {
        read(self.open("POST", fields, body).await).await
    }

    /// Calls a method in the current revision; `params` without what every request has.
    pub(crate) async fn current(&self, method: &str, params: Value) -> Answer {
        read(self.open_current(method, params).await).await
    }

    pub(crate) async fn open_current(&self, method: &str, mut params: Value) -> Response<Incoming> {
        let name = params["name"].as_str().unwrap_or_default().to_owned();
        let meta = &mut params["_meta"];
        meta["io.modelcontextprotocol/protocolVersion"] = json!(CURRENT);
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let mut fields = vec![("mcp-protocol-version", CURRENT), ("mcp-method", method)];
        if !name.is_empty() {
            fields.push(("mcp-name", &name));
        }
        self.open("POST", &fields, &message(1, method, &params)).await
    }

    /// Calls a tool in the current revision.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.current("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Begins a session of an older revision; its id.
    pub(crate) async fn initialize(&self) -> String {
        let params = json!({
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let answer = self.post(&[], &message(0, "initialize", &params)).await;
        assert_eq!(answer.result()["protocolVersion"], LEGACY);
        let id = answer.headers["mcp-session-id"].to_str().unwrap().to_owned();
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(self.post(&session(&id), &initialized).await.status, StatusCode::ACCEPTED);
        id
    }
}

/// The fields of a request in a session.
pub(crate) fn session(id: &str) -> [(&str, &str); 2] {
    [("mcp-protocol-version", LEGACY), ("mcp-session-id", id)]
}

pub(crate) fn message(id: u32, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}
