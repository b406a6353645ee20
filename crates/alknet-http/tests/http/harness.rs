//! A node in memory: real handlers, real HTTP, connections without sockets.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alknet_core::{
    Access, Alpn, Audit, AuditEvent, AuditSink, AuthContext, Code, Connection, Dispatcher,
    Exporter, HandlerError, HandlerRegistry, Identity, KeyFingerprint, Limits, NodeIdentity,
    ProtocolHandler, SingleStream, Stream, TransportKind,
};
use alknet_http::{Builder, HttpAdapter, Live};
use alknet_testing::{
    identities::{Identities, identity},
    memory,
};
use aws_lc_rs::digest::{SHA256, digest};
use axum::{Extension, Router, routing::get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const HOST: &str = "node.example";
pub(crate) const TOKEN: &str = "alk_of-alice";
/// The session cookie of Alice's browser.
pub(crate) const SESSION: &str = "alk_session-of-alice";
/// The token of somebody who may use nothing that is there.
pub(crate) const POOR_TOKEN: &str = "alk_of-bob";

/// Sends back what it gets, on any number of streams.
pub(crate) struct Echo;

impl ProtocolHandler for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn alpns(&self) -> Vec<Alpn> {
        vec![alpn("alknet/echo")]
    }

    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        let mut streams = tokio::task::JoinSet::new();
        while let Ok(stream) = connection.accept_bi().await {
            streams.spawn(echo(stream));
        }
        streams.join_all().await;
        Ok(())
    }
}

async fn echo(stream: Stream) {
    let (mut send, mut recv) = stream.split();
    if tokio::io::copy(&mut recv, &mut send).await.is_ok() {
        let _ = send.shutdown().await;
    }
}

/// Ends every stream with code 77 as soon as a byte has come.
pub(crate) struct Abrupt;

impl ProtocolHandler for Abrupt {
    fn name(&self) -> &'static str {
        "abrupt"
    }

    fn alpns(&self) -> Vec<Alpn> {
        vec![alpn("alknet/abrupt")]
    }

    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        let mut stream = connection.accept_bi().await?;
        stream.read_u8().await?;
        stream.reset(Code::new(77));
        drop(stream);
        // Closing the connection here would overtake the reset.
        connection.closed().await;
        Ok(())
    }
}

/// Reads to the end, and then says how many bytes that were.
pub(crate) struct Sink;

impl ProtocolHandler for Sink {
    fn name(&self) -> &'static str {
        "sink"
    }

    fn alpns(&self) -> Vec<Alpn> {
        vec![alpn("alknet/sink")]
    }

    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        let mut stream = connection.accept_bi().await?;
        let count = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        stream.write_u64(count).await?;
        stream.shutdown().await?;
        drop(stream);
        connection.closed().await;
        Ok(())
    }
}

/// Who asks, as the routes see it.
async fn whoami(Extension(auth): Extension<AuthContext>) -> String {
    let identity = auth.identity.as_ref().map_or("nobody", |identity| identity.name.as_str());
    format!("{identity} by {}", auth.method.name())
}

async fn hidden() -> alknet_http::Conceal {
    alknet_http::Conceal
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Log {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Log {
    /// The reasons of all refusals so far, which are forgotten thereby.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        let refused = events.into_iter().filter(|event| event.event == AuditEvent::REFUSED);
        refused.map(|event| event.reason.unwrap_or_default()).collect()
    }

    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) struct Node {
    pub(crate) identities: Arc<Identities>,
    pub(crate) log: Log,
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) live: Live,
}

pub(crate) fn alpn(name: &str) -> Alpn {
    Alpn::new(name).unwrap()
}

pub(crate) fn key(seed: u8) -> NodeIdentity {
    NodeIdentity::from_seed(&[seed; 32]).unwrap()
}

pub(crate) fn alice() -> Identity {
    identity("alice", &["echo", "abrupt", "sink", "files"])
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let identities = Arc::new(
            Identities::new()
                .with_token(TOKEN, alice())
                .with_token(SESSION, alice())
                .with_token(POOR_TOKEN, identity("bob", &["files"]))
                .with_key(KeyFingerprint::Ed25519(key(1).id()), alice()),
        );
        let (log, identity) = (Log::default(), Arc::new(key(100)));
        let mut registry = HandlerRegistry::new();
        registry.register(Echo, Access::Scope).unwrap();
        registry.register(Abrupt, Access::Scope).unwrap();
        registry.register(Sink, Access::Scope).unwrap();
        let services = Dispatcher::new(registry, Limits::default(), Audit::new(log.clone()));
        let builder = HttpAdapter::builder(services.clone(), identities.clone(), identity.clone())
            .public(
                Router::new()
                    .route("/public", get(whoami))
                    .route("/alknet/signin/{secret}", get(hidden)),
            )
            .private(Router::new().route("/private", get(whoami)));
        let adapter = configure(builder).build().unwrap();
        let live = adapter.live();
        let dispatcher = services.extend(adapter, Access::Public).unwrap();
        Self { identities, log, identity, dispatcher, live }
    }

    /// A connection that negotiated `protocol`; the client's end.
    pub(crate) fn connect(&self, protocol: &str) -> Connection {
        let kind = if protocol == "h3" { TransportKind::Quic } else { TransportKind::Tls };
        let (client, server) =
            if protocol == "h3" { memory::pair_of_kind(kind) } else { tls_pair() };
        let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let auth = AuthContext::anonymous(alpn(protocol), kind, Some(peer));
        self.dispatcher.admit(auth).unwrap().start(server);
        client
    }

    /// The complete bytes of the answer to one HTTP/1.1 request on a connection of its own.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect("http/1.1").open_bi().await.unwrap();
        // The node may answer, and close, before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }
}

/// Two ends of a connection with one stream and a common exporter, as TLS over TCP has.
pub(crate) fn tls_pair() -> (Connection, Connection) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let session = NEXT.fetch_add(1, Ordering::Relaxed);
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (client, server) = (Stream::from_bistream(client), Stream::from_bistream(server));
    let client = SingleStream::dialled(TransportKind::Tls, client);
    let server = SingleStream::accepted(TransportKind::Tls, server);
    let exporter = || -> Exporter {
        Box::new(move |out, label, context| {
            for (round, chunk) in (0_u8..).zip(out.chunks_mut(32)) {
                let input = [&session.to_be_bytes()[..], &[round], label, &[0], context];
                chunk.copy_from_slice(&digest(&SHA256, &input.concat()).as_ref()[..chunk.len()]);
            }
            true
        })
    };
    let client = Connection::new(client.with_exporter(exporter()));
    (client, Connection::new(server.with_exporter(exporter())))
}

/// An HTTP/1.1 request that closes the connection, so that its answer has an end.
pub(crate) fn closing(start: &str, fields: &[&str]) -> String {
    let mut request = format!("{start} HTTP/1.1\r\nHost: {HOST}\r\n");
    for field in fields {
        request += field;
        request += "\r\n";
    }
    request + "Connection: close\r\n\r\n"
}

/// What a WebSocket needs to open, beside a credential.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// An answer with its time of day taken out.
pub(crate) fn timeless(answer: &str) -> String {
    let lines = answer.split("\r\n");
    let kept: Vec<&str> =
        lines.map(|line| if line.starts_with("Date: ") { "Date: now" } else { line }).collect();
    kept.join("\r\n")
}
