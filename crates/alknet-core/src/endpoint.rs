//! The sockets: one UDP and one TCP port, an accept loop for each.

mod gate;
mod quic;
mod socket;
mod tcp;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::server::ResolvesServerCert;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Alpn, AuthContext, AuthMethod, Code, Connection, Dispatcher, IdentityProvider, KeyFingerprint,
    NodeIdentity, TransportKind, WebCertificates,
    addresses::Verdict,
    audit::AuditEvent,
    tls::{Configs, Lazy, TlsError},
};

use gate::Gate;
pub use quic::ResetKey;
pub(crate) use quic::transport;
pub use socket::Listener;

/// How long closed QUIC connections get to tell their peers.
const DRAIN: Duration = Duration::from_secs(1);

/// What an [`Endpoint`] is made of.
#[derive(Debug)]
pub struct EndpointConfig {
    /// Where to listen: UDP and TCP. Port 0 takes a free one, the same for both; `[::]`
    /// takes IPv4 too.
    pub listen: SocketAddr,
    /// What native clients pin.
    pub identity: Arc<NodeIdentity>,
    /// What browsers see.
    pub web: WebCertificates,
    /// Cover: no service is offered in a handshake, so each is reached only inside the
    /// standard protocols.
    pub hide_services: bool,
    /// The protocol of a TLS client that offers none, as old HTTP clients do.
    pub fallback: Option<Alpn>,
    /// What tells QUIC clients of a node that was killed that it is gone; `None`: they find
    /// out by themselves, after [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    pub resets: Option<ResetKey>,
}

/// The endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// TLS could not be configured.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

/// A listening node: accepts QUIC and TLS connections, authenticates what they prove, and
/// hands them to the [`Dispatcher`] of their ALPN.
///
/// Dropping it stops accepting; [`shutdown`](Self::shutdown) ends sessions in order.
pub struct Endpoint {
    shared: Arc<Shared>,
    quic: quinn::Endpoint,
    local_addr: SocketAddr,
    tasks: TaskTracker,
}

/// What the accept loops share.
struct Shared {
    dispatcher: Dispatcher,
    identities: Arc<dyn IdentityProvider>,
    configs: Configs,
    fallback: Option<Alpn>,
    /// Whoever is turned away before a handshake sees that this is no plain web server:
    /// under cover only their credentials are ignored.
    hidden: bool,
    gate: Gate,
    stop: CancellationToken,
}

impl Endpoint {
    /// Binds both sockets and starts accepting. Must be called within a tokio runtime.
    pub fn bind(
        config: &EndpointConfig,
        dispatcher: Dispatcher,
        identities: Arc<dyn IdentityProvider>,
    ) -> Result<Self, BindError> {
        Self::start(Listener::bind(config.listen)?, config, dispatcher, identities)
    }

    /// As [`bind`](Self::bind), on sockets that are bound already: for whoever has to know
    /// the port before the handlers are made.
    pub fn start(
        listener: Listener,
        config: &EndpointConfig,
        dispatcher: Dispatcher,
        identities: Arc<dyn IdentityProvider>,
    ) -> Result<Self, BindError> {
        let local_addr = listener.addr;
        let web: Arc<dyn ResolvesServerCert> = Arc::new(config.web.clone());
        let offered =
            dispatcher.alpns().filter(|alpn| !(config.hide_services && alpn.is_service()));
        let configs = Configs::new(&config.identity, web, offered)?;
        let lazy = Lazy::new(configs.clone()).map_err(TlsError::Quic)?;
        let server = quic::server_config(lazy, dispatcher.limits());
        let listen_error = |source| BindError::Listen { addr: local_addr, source };
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quic::endpoint_config(config.resets.as_ref());
        let quic = quinn::Endpoint::new(endpoint, Some(server), listener.udp, runtime)
            .map_err(listen_error)?;
        let tcp = tokio::net::TcpListener::from_std(listener.tcp).map_err(listen_error)?;

        let gate = Gate::new(dispatcher.limits().handshakes);
        let stop = CancellationToken::new();
        let (fallback, hidden) = (config.fallback.clone(), config.hide_services);
        let shared =
            Arc::new(Shared { dispatcher, identities, configs, fallback, hidden, gate, stop });
        let tasks = TaskTracker::new();
        tasks.spawn(tcp::accept_loop(shared.clone(), tcp, tasks.clone()));
        tasks.spawn(quic::accept_loop(shared.clone(), quic.clone(), tasks.clone()));
        Ok(Self { shared, quic, local_addr, tasks })
    }

    /// The address both sockets are bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends the endpoint: accepts nothing more, then [`Dispatcher::shutdown`], then closes
    /// both sockets. Returns how many sessions had to be closed at the deadline.
    pub async fn shutdown(self, deadline: Duration) -> usize {
        self.shared.stop.cancel();
        self.quic.set_server_config(None);
        self.tasks.close();
        self.tasks.wait().await;
        let closed = self.shared.dispatcher.shutdown(deadline).await;
        let code = quinn::VarInt::from_u64(Code::SHUTTING_DOWN.value()).unwrap_or_default();
        self.quic.close(code, b"");
        if tokio::time::timeout(DRAIN, self.quic.wait_idle()).await.is_err() {
            tracing::debug!("some peers did not acknowledge the end of their connections");
        }
        closed
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Shared {
    /// Decides about somebody who wants to begin a handshake.
    fn newcomer(&self, address: IpAddr, proven: bool, kind: TransportKind) -> Verdict {
        let verdict = self.dispatcher.addresses().handshake(address, proven, !self.hidden);
        let label = match verdict {
            Verdict::Welcome => "welcome",
            Verdict::Prove => "prove-address",
            Verdict::TooMany => "too-many",
            Verdict::Banned => "banned",
        };
        metrics::counter!("alknet_handshakes_total", "transport" => kind.name(), "verdict" => label).increment(1);
        if matches!(verdict, Verdict::TooMany | Verdict::Banned) {
            tracing::debug!(%address, transport = %kind, ?verdict, "a newcomer was refused");
        }
        verdict
    }

    /// Looks up a proven client key and hands the connection over, or closes it.
    async fn dispatch(
        &self,
        connection: Connection,
        remote: SocketAddr,
        alpn: Alpn,
        key: Option<KeyFingerprint>,
    ) {
        // The address that the handshake went to: what a QUIC connection shows later may
        // be forged until the new path is validated.
        let mut auth = AuthContext::anonymous(alpn, connection.kind(), Some(remote));
        if let Some(key) = key {
            self.identify(&mut auth, key).await;
        }
        match self.dispatcher.admit(auth) {
            Ok(admission) => drop(admission.start(connection)),
            Err(refusal) => connection.close(refusal.code(), ""),
        }
    }

    async fn identify(&self, auth: &mut AuthContext, key: KeyFingerprint) {
        auth.client_key = Some(key);
        match self.identities.by_key(&key).await {
            Ok(Some(identity)) => {
                auth.identity = Some(Arc::new(identity));
                auth.method = AuthMethod::TlsKey;
                self.dispatcher.audit().record(AuditEvent::about(AuditEvent::AUTHENTICATED, auth));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, cause = ?std::error::Error::source(&error), "looking up a key");
            }
        }
    }
}
