//! The same over real QUIC, where data is under way for a while.

use std::{sync::Arc, time::Duration};

use alknet_core::{
    Access, Alpn, Audit, AuthContext, ClosedBy, Code, Connection, Dial, Dispatcher, Endpoint,
    EndpointConfig, HandlerError, HandlerRegistry, Limits, NodeIdentity, Pin, ProtocolHandler,
    SelfSigned, StreamReset, WebCertificates,
};
use alknet_http::h3::{Client, connect, serve};
use alknet_testing::identities::Identities;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::rig::*;

/// Serves every connection as the rig does.
struct Http3 {
    app: Arc<TestApp>,
    shutdown: CancellationToken,
}

impl ProtocolHandler for Http3 {
    fn name(&self) -> &'static str {
        "http3"
    }

    fn alpns(&self) -> Vec<Alpn> {
        vec![Alpn::new("h3").unwrap()]
    }

    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        Ok(serve(connection, self.app.clone(), self.shutdown.clone()).await?)
    }

    async fn shutdown(&self) {
        self.shutdown.cancel();
    }
}

struct Node {
    endpoint: Endpoint,
    sessions: mpsc::UnboundedReceiver<Connection>,
}

impl Node {
    fn start() -> Self {
        let (app, sessions) = TestApp::new();
        let mut registry = HandlerRegistry::new();
        let handler = Http3 { app: Arc::new(app), shutdown: CancellationToken::new() };
        registry.register(handler, Access::Public).unwrap();
        let certificate =
            SelfSigned::generate(&["localhost".into()], time::OffsetDateTime::now_utc()).unwrap();
        let config = EndpointConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity: Arc::new(NodeIdentity::from_seed(&[7; 32]).unwrap()),
            web: WebCertificates::new(certificate.current().unwrap()),
            hide_services: false,
            fallback: None,
            resets: None,
        };
        let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
        let endpoint = Endpoint::bind(&config, dispatcher, Arc::new(Identities::new())).unwrap();
        Self { endpoint, sessions }
    }

    async fn dial(&self) -> Connection {
        let dial = Dial {
            server_name: "localhost".into(),
            alpn: Alpn::new("h3").unwrap(),
            pin: Pin::Learn,
            key: None,
            timeout: Duration::from_secs(10),
        };
        dial.quic(self.endpoint.local_addr()).await.unwrap().connection
    }

    async fn session(&mut self) -> (Connection, Connection) {
        let (_, near) = connect(self.dial().await, to("/alknet/test")).await.unwrap();
        (near, self.sessions.recv().await.unwrap())
    }
}

#[tokio::test]
async fn long_bodies_and_streams_arrive_whole() {
    let mut node = Node::start();
    let client = Client::new(node.dial().await).await.unwrap();
    let (_, near) = client.connect(to("/alknet/test")).await.unwrap();
    let far = node.sessions.recv().await.unwrap();
    let request = async {
        let response = client.request(ask("/echo", vec![3; 4_000_000])).await.unwrap();
        assert_eq!(response.body(), &vec![3; 4_000_000]);
    };
    let up = async {
        let mut stream = near.open_bi().await.unwrap();
        stream.write_all(&[5; 4_000_000]).await.unwrap();
        // Finished, and dropped at once with most of it under way.
        stream.shutdown().await.unwrap();
    };
    let down = async {
        let mut all = Vec::new();
        far.accept_bi().await.unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [5; 4_000_000]);
    };
    soon(async { tokio::join!(request, up, down) }).await;
}

#[tokio::test]
async fn codes_and_reasons_go_both_ways() {
    let mut node = Node::start();
    let (near, far) = node.session().await;
    for (from, at) in [(&near, &far), (&far, &near)] {
        let mut a = from.open_bi().await.unwrap();
        let mut b = soon(at.accept_bi()).await.unwrap();
        a.reset(Code::new(4711));
        let error = soon(b.read_u8()).await.unwrap_err();
        assert_eq!(StreamReset::code_of(&error), Some(Code::new(4711)));
        assert_eq!(soon(b.stopped()).await, Some(Code::new(4711)));
    }
    near.close(Code::new(77), "from the client");
    let closed = soon(far.closed()).await;
    assert_eq!((closed.by, closed.code.value()), (ClosedBy::Peer, 77));
    assert_eq!(closed.reason, "from the client");
    let (near, far) = node.session().await;
    far.close(Code::new(78), "from the node");
    let closed = soon(near.closed()).await;
    assert_eq!((closed.by, closed.code.value()), (ClosedBy::Peer, 78));
    assert_eq!(closed.reason, "from the node");
}

#[tokio::test]
async fn a_close_reaches_the_node_from_a_process_that_ends() {
    let mut node = Node::start();
    let (near, far) = node.session().await;
    near.close(Code::REVOKED, "bye");
    soon(near.drained()).await;
    drop(near);
    let closed = soon(far.closed()).await;
    assert_eq!(
        (closed.by, closed.code, &closed.reason[..]),
        (ClosedBy::Peer, Code::REVOKED, "bye")
    );
}

#[tokio::test]
async fn a_node_that_shuts_down_lets_sessions_end() {
    let mut node = Node::start();
    let (near, far) = node.session().await;
    let mut stream = near.open_bi().await.unwrap();
    let closing = async {
        let mut accepted = far.accept_bi().await.unwrap();
        accepted.write_all(&[1; 100_000]).await.unwrap();
        accepted.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        near.close(Code::NORMAL, "");
        all.len()
    };
    let shutdown = node.endpoint.shutdown(Duration::from_secs(15));
    let (closed_by_force, received) = soon(async { tokio::join!(shutdown, closing) }).await;
    assert_eq!((closed_by_force, received), (0, 100_000));
}

#[tokio::test]
async fn a_lost_client_ends_its_session() {
    let mut node = Node::start();
    let (near, far) = node.session().await;
    drop(near);
    let closed = soon(far.closed()).await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Peer, Code::NORMAL));
}
