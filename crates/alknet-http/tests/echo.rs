//! The toy handler of alknet-core, untouched, reached in every way over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../alknet-core/examples/echo/handler.rs"]
mod echo;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use alknet_core::{
    Access, Alpn, Audit, Connection, Dial, Dispatcher, Endpoint, EndpointConfig, HandlerRegistry,
    KeyFingerprint, Limits, NodeId, NodeIdentity, Pin, SelfSigned, TransportKind, WebCertificates,
};
use alknet_http::{HttpAdapter, ProofError, Tunnel, TunnelError, tunnel};
use alknet_testing::identities::{Identities, identity};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Node {
    endpoint: Endpoint,
    id: NodeId,
    client: Arc<NodeIdentity>,
}

/// A node with one service: the two lines that name it are all it takes.
fn node() -> Node {
    let mut registry = HandlerRegistry::new();
    registry.register(echo::Echo, Access::Scope).unwrap();
    let services = Dispatcher::new(registry, Limits::default(), Audit::to_log());

    let node = Arc::new(NodeIdentity::from_seed(&[1; 32]).unwrap());
    let client = Arc::new(NodeIdentity::from_seed(&[2; 32]).unwrap());
    let key = KeyFingerprint::Ed25519(client.id());
    let identities = Arc::new(Identities::new().with_key(key, identity("ann", &["echo"])));
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
    let endpoint = Endpoint::bind(&config, dispatcher, identities).unwrap();
    Node { endpoint, id: node.id(), client }
}

impl Node {
    fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    async fn dial(&self, alpn: &str, pin: Pin) -> Connection {
        let quic = alpn == "h3";
        self.dial_via(alpn, pin, quic).await
    }

    async fn dial_via(&self, alpn: &str, pin: Pin, quic: bool) -> Connection {
        let dial = Dial {
            server_name: "localhost".into(),
            alpn: Alpn::new(alpn).unwrap(),
            pin,
            key: Some(self.client.clone()),
            timeout: Duration::from_secs(10),
        };
        let dialled = if quic { dial.quic(self.addr()).await } else { dial.tls(self.addr()).await };
        dialled.unwrap().connection
    }

    async fn tunnel(
        &self,
        outer: &str,
        key: &NodeIdentity,
        pin: Pin,
    ) -> Result<Tunnel, TunnelError> {
        let connection = self.dial(outer, Pin::Learn).await;
        let authority = self.addr().to_string();
        tunnel(connection, &authority, &Alpn::service("echo").unwrap(), key, pin).await
    }
}

async fn say_hello(connection: &Connection) {
    let mut stream = connection.open_bi().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello");
}

#[tokio::test]
async fn natively_and_inside_https() {
    let node = node();
    for quic in [true, false] {
        say_hello(&node.dial_via("alknet/echo", Pin::Expect(node.id), quic).await).await;
    }
    for (outer, kind) in
        [("h3", TransportKind::WebTransport), ("http/1.1", TransportKind::WebSocket)]
    {
        let tunnel = node.tunnel(outer, &node.client, Pin::Expect(node.id)).await.unwrap();
        assert_eq!((tunnel.connection.kind(), tunnel.node), (kind, node.id));
        say_hello(&tunnel.connection).await;
    }
}

#[tokio::test]
async fn many_streams_of_one_session_run_at_once() {
    let node = node();
    let tunnel = node.tunnel("h3", &node.client, Pin::Expect(node.id)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..50u8 {
        let connection = tunnel.connection.clone();
        tasks.spawn(async move {
            let (mut send, mut recv) = connection.open_bi().await.unwrap().split();
            let data = vec![i; 200_000];
            let copy = data.clone();
            let write = async move {
                send.write_all(&copy).await.unwrap();
                send.shutdown().await.unwrap();
            };
            let mut back = Vec::new();
            let (_, read) = tokio::join!(write, recv.read_to_end(&mut back));
            read.unwrap();
            assert!(back == data);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_node_and_an_unknown_key_are_told() {
    let node = node();
    let stranger = NodeIdentity::from_seed(&[9; 32]).unwrap();
    for outer in ["h3", "http/1.1"] {
        match node.tunnel(outer, &node.client, Pin::Expect(stranger.id())).await {
            Err(TunnelError::Proof(ProofError::OtherNode(wrong))) => {
                assert_eq!(wrong.actual, node.id);
            }
            other => panic!("{other:?}"),
        }
        let refused = node.tunnel(outer, &stranger, Pin::Expect(node.id)).await;
        assert!(matches!(refused, Err(TunnelError::Refused(_))), "{refused:?}");
    }
}
