//! One endpoint, many protocols: the ALPN negotiated in the TLS or QUIC handshake picks the
//! handler before any application byte is read.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use alknet_core::*;
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! struct Greet;
//!
//! impl ProtocolHandler for Greet {
//!     fn name(&self) -> &'static str { "greet" }
//!     fn alpns(&self) -> Vec<Alpn> { Vec::from_iter(Alpn::service("greet")) }
//!     async fn handle(&self, connection: Connection, _: AuthContext) -> Result<(), HandlerError> {
//!         let mut stream = connection.accept_bi().await?;
//!         tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await?;
//!         connection.closed().await;
//!         Ok(())
//!     }
//! }
//!
//! let mut registry = HandlerRegistry::new();
//! registry.register(Greet, Access::Public)?;
//! let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
//!
//! let identity = Arc::new(NodeIdentity::from_seed(&[7; 32])?);
//! let web = SelfSigned::generate(&["localhost".into()], time::OffsetDateTime::now_utc())?;
//! let config = EndpointConfig {
//!     listen: "[::]:0".parse()?,
//!     identity,
//!     web: WebCertificates::new(web.current()?),
//!     hide_services: false,
//!     fallback: None,
//!     resets: None,
//! };
//! let endpoint = Endpoint::bind(&config, dispatcher, Arc::new(NoIdentities))?;
//! println!("listening on {}", endpoint.local_addr());
//! # endpoint.shutdown(Duration::ZERO).await;
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//!
//! A source of connections (QUIC, TLS on TCP, and whatever a handler brings in from within
//! its own protocol) makes a [`Connection`] and an [`AuthContext`] and asks the
//! [`Dispatcher`] to [`admit`](Dispatcher::admit) it. The dispatcher looks the [`Alpn`] up in
//! its [`HandlerRegistry`], checks the declared [`Access`] and the [`Limits`], and on
//! [`start`](Admission::start) runs the [`ProtocolHandler`] in a task of its own. The handler
//! takes streams from the connection; it cannot tell what carries them, other than by
//! [`AuthContext::transport`].
//!
//! # Invariants
//!
//! - Nothing but the dispatcher calls a handler, and it calls none without an admission.
//! - A handler without a declared access does not register. Inside another protocol an
//!   identity with the service's scope is always needed.
//! - A panic in a handler ends its own connection and nothing else.
//! - A client key counts only after the handshake has proven its possession; the check is
//!   never replaced, only what follows from it is left to the [`IdentityProvider`].
//! - A connection never shows the type of the library that carries it.
//! - No protocol is named in this crate but by what is passed to it.
//!
//! # Security limits
//!
//! ALPNs stand in the clear in a ClientHello: whoever watches the network sees which service
//! is asked for, unless [`EndpointConfig::hide_services`] is set and services are reached
//! inside another protocol. Identity certificates never expire; an identity is revoked by
//! the peers that pin it.
//!
//! Without the default feature `endpoint` the crate builds for wasm32 and holds the contract
//! alone: streams, names, codes, identities.

mod alpn;
mod auth;
mod code;
mod connection;
mod scope;
mod stream;

pub use alpn::{Alpn, InvalidAlpn, SERVICE_PREFIX};
pub use auth::{
    AuthContext, AuthMethod, Credential, Identity, IdentityProvider, InvalidCredential,
    InvalidFingerprint, InvalidNodeId, KeyFingerprint, NoIdentities, NodeId, ProviderError, Secret,
    TicketRefusal,
};
pub use code::Code;
pub use connection::{
    BoxFuture, Closed, ClosedBy, Connection, ConnectionError, Transport, TransportKind,
};
pub use scope::{Action, InvalidScope, Scope, Scopes};
pub use stream::{BiStream, RecvHalf, RecvStream, SendHalf, SendStream, Stream, StreamReset};

#[cfg(feature = "endpoint")]
mod addresses;
#[cfg(feature = "endpoint")]
mod audit;
#[cfg(feature = "endpoint")]
mod dial;
#[cfg(feature = "endpoint")]
mod dispatch;
#[cfg(feature = "endpoint")]
mod endpoint;
#[cfg(feature = "endpoint")]
mod handler;
#[cfg(feature = "endpoint")]
mod limits;
#[cfg(feature = "endpoint")]
mod refusals;
#[cfg(feature = "endpoint")]
mod registry;
#[cfg(feature = "endpoint")]
mod session;
#[cfg(feature = "endpoint")]
mod single;
#[cfg(feature = "endpoint")]
mod tls;
#[cfg(feature = "endpoint")]
mod transport;

#[cfg(feature = "endpoint")]
pub use self::{
    audit::{Audit, AuditChange, AuditEvent, AuditSink},
    dial::{Dial, DialError, Dialled},
    dispatch::{Admission, Dispatcher, Refusal},
    endpoint::{BindError, Endpoint, EndpointConfig, Listener, ResetKey},
    handler::{Access, HandlerError, ProtocolHandler},
    limits::Limits,
    refusals::Refusals,
    registry::{DuplicateAlpn, HandlerRegistry},
    session::{Login, Session, SessionHandle},
    single::{Exporter, SingleStream},
    tls::{
        IdentityError, InvalidSignature, NodeIdentity, Pin, SelfSigned, TlsError, WebCertificate,
        WebCertificateError, WebCertificates, WrongIdentity,
    },
};
