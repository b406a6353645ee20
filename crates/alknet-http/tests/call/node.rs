//! A node with operations to be tried, and every way to it.

use std::{sync::Arc, time::Duration};

use alknet_call::{
    CallAdapter, CallError, CallLimits, CallOptions, Context, ErrorCode, Items, Nothing, Operation,
    OperationRegistry, Peers,
};
use alknet_core::{
    Access, Alpn, Audit, Connection, Dial, Dispatcher, Endpoint, EndpointConfig, HandlerRegistry,
    KeyFingerprint, Limits, NodeIdentity, Pin, Scopes, SelfSigned, WebCertificates,
};
use alknet_http::{HttpAdapter, tunnel};
use alknet_testing::identities::{Identities, identity};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How the node is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Via {
    Quic,
    Tls,
    WebTransport(&'static str),
    WebSocket,
}

impl Via {
    /// Whether either side can open further streams.
    pub(crate) fn has_streams(self) -> bool {
        matches!(self, Self::Quic | Self::WebTransport(_))
    }
}

pub(crate) struct Node {
    endpoint: Endpoint,
    id: alknet_core::NodeId,
    client: Arc<NodeIdentity>,
    identities: Arc<Identities>,
    /// How many calls of `test/forever` are in progress.
    pub(crate) running: watch::Sender<usize>,
}

struct Running(watch::Sender<usize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

fn operations(running: &watch::Sender<usize>) -> Vec<Operation> {
    let running = running.clone();
    let echo = Operation::query("test/echo", async |_: Context, value: Value| Ok(value));
    let fail = Operation::query("test/fail", async |_: Context, code: String| {
        let error = CallError::new(ErrorCode::from_wire(&code), "as asked");
        Err::<(), _>(error.with_details(json!({ "asked": true })))
    });
    let forever = Operation::mutation("test/forever", move |_: Context, Nothing {}| {
        running.send_modify(|running| *running += 1);
        let running = Running(running.clone());
        async move {
            let _running = running;
            std::future::pending::<Result<(), CallError>>().await
        }
    });
    let count = Operation::subscription(
        "test/count",
        async |context: Context, to: u64, items: Items<u64>| {
            let after = context.after().and_then(|event| event.parse::<u64>().ok());
            for n in after.map_or(0, |n| n + 1)..to {
                items.send_event(n.to_string(), n).await?;
            }
            Ok(())
        },
    );
    let ask = Operation::query("test/ask", async |context: Context, question: Value| {
        Ok(match context.call::<_, Value>("page/answer", &question).await {
            Ok(output) => json!({ "output": output }),
            Err(error) => json!({ "error": error }),
        })
    });
    let follow = Operation::query("test/follow", async |context: Context, Nothing {}| {
        let peer = context.peer().ok_or_else(CallError::not_found)?;
        let options = CallOptions::default().window(4).after("before");
        let mut items = peer.subscribe::<_, Value>("page/items", &json!("all"), options).await?;
        let mut got = Vec::new();
        while let Some(item) = items.next().await {
            got.push(item.unwrap_or_else(|error| json!({ "error": error.code })));
        }
        Ok(got)
    });
    let scopes: Scopes = ["call"].into_iter().collect();
    vec![
        echo.unwrap(),
        fail.unwrap().error("BROKEN", "when asked for"),
        forever.unwrap(),
        count.unwrap().resumable(),
        ask.unwrap().grants(scopes),
        follow.unwrap(),
    ]
}

impl Node {
    pub(crate) fn new() -> Self {
        let running = watch::Sender::new(0);
        let operations = OperationRegistry::new(Audit::to_log(), operations(&running)).unwrap();
        let mut registry = HandlerRegistry::new();
        let call = CallAdapter::new(operations, CallLimits::default(), Peers::new());
        registry.register(call, Access::Scope).unwrap();
        let services = Dispatcher::new(registry, Limits::default(), Audit::to_log());
        let node = Arc::new(NodeIdentity::from_seed(&[1; 32]).unwrap());
        let client = Arc::new(NodeIdentity::from_seed(&[2; 32]).unwrap());
        let key = KeyFingerprint::Ed25519(client.id());
        let identities = Arc::new(Identities::new().with_key(key, identity("ann", &["call"])));
        let http = HttpAdapter::builder(services.clone(), identities.clone(), node.clone());
        let dispatcher = services.extend(http.build().unwrap(), Access::Public).unwrap();
        let names = ["localhost".to_owned()];
        let pair = SelfSigned::generate(&names, time::OffsetDateTime::now_utc()).unwrap();
        let config = EndpointConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity: node.clone(),
            web: WebCertificates::new(pair.current().unwrap()),
            hide_services: false,
            fallback: None,
            resets: None,
        };
        let endpoint = Endpoint::bind(&config, dispatcher, identities.clone()).unwrap();
        Self { endpoint, id: node.id(), client, identities, running }
    }

    async fn dial(&self, alpn: &str, pin: Pin, quic: bool) -> Connection {
        let dial = Dial {
            server_name: "localhost".into(),
            alpn: Alpn::new(alpn).unwrap(),
            pin,
            key: Some(self.client.clone()),
            timeout: Duration::from_secs(10),
        };
        let address = self.endpoint.local_addr();
        let dialled = if quic { dial.quic(address).await } else { dial.tls(address).await };
        dialled.unwrap().connection
    }

    pub(crate) async fn connect(&self, via: Via) -> Connection {
        let pin = Pin::Expect(self.id);
        let call = Alpn::service("call").unwrap();
        let authority = self.endpoint.local_addr().to_string();
        let outer = match via {
            Via::Quic => return self.dial("alknet/call", pin, true).await,
            Via::Tls => return self.dial("alknet/call", pin, false).await,
            Via::WebTransport("/") => return self.root().await,
            Via::WebTransport(_) => self.dial("h3", Pin::Learn, true).await,
            Via::WebSocket => self.dial("http/1.1", Pin::Learn, false).await,
        };
        tunnel(outer, &authority, &call, &self.client, pin).await.unwrap().connection
    }

    /// A WebTransport session on the root, by a ticket.
    async fn root(&self) -> Connection {
        let outer = self.dial("h3", Pin::Learn, true).await;
        let call = Alpn::service("call").unwrap();
        let ticket = self.identities.ticket(&identity("ann", &["call"]), &call);
        let uri = format!("https://{}/?ticket={}", self.endpoint.local_addr(), ticket.expose());
        let request = http::Request::connect(uri).body(()).unwrap();
        alknet_http::h3::connect(outer, request).await.unwrap().1
    }

    /// Waits until so many calls of `test/forever` are in progress.
    pub(crate) async fn until_running(&self, wanted: usize) {
        let mut running = self.running.subscribe();
        let reached = running.wait_for(|&running| running == wanted);
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await.is_ok();
        assert!(reached, "{} calls run, and not {wanted}", *self.running.borrow());
    }
}
