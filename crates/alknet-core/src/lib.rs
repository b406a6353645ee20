//! One endpoint, many protocols: the ALPN negotiated in the TLS or QUIC handshake picks the
//! handler before any application byte is read.

mod alpn;
mod auth;
mod code;
mod connection;
mod stream;

pub use alpn::{Alpn, InvalidAlpn, SERVICE_PREFIX};
pub use auth::{
    AuthContext, AuthMethod, Identity, IdentityProvider, InvalidNodeId, KeyFingerprint, NodeId,
    ProviderError, Scopes, Secret, TicketRefusal,
};
pub use code::Code;
pub use connection::{
    BoxFuture, Closed, ClosedBy, Connection, ConnectionError, Transport, TransportKind,
};
pub use stream::{BiStream, RecvHalf, RecvStream, SendHalf, SendStream, Stream, StreamReset};

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
mod registry;
#[cfg(feature = "endpoint")]
mod single;
#[cfg(feature = "endpoint")]
mod tls;
#[cfg(feature = "endpoint")]
mod transport;

#[cfg(feature = "endpoint")]
pub use self::{
    audit::{Audit, AuditEvent, AuditSink},
    dial::{Dial, DialError, Dialled},
    dispatch::{Admission, Dispatcher, Refusal, Session},
    endpoint::{BindError, Endpoint, EndpointConfig, Listener},
    handler::{Access, HandlerError, ProtocolHandler},
    limits::Limits,
    registry::{DuplicateAlpn, HandlerRegistry},
    single::{Exporter, SingleStream},
    tls::{
        IdentityError, InvalidSignature, NodeIdentity, Pin, SelfSigned, TlsError, WebCertificate,
        WebCertificateError, WebCertificates, WrongIdentity,
    },
};
