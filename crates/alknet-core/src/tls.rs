//! TLS: the node's identity for native clients, X.509 for browsers, one port for both.
//!
//! Which certificate a client gets, and whether it is asked for one, follows from the ALPNs
//! it offers: services alone mean a native client, which pins the node's identity and may
//! prove a key of its own; anything else is stock software, which gets the web certificate
//! and is never asked.

mod identity;
mod quic;
mod select;
mod verify;
mod web;

pub use identity::{IdentityError, InvalidSignature, NodeIdentity};
pub(crate) use quic::Lazy;
pub(crate) use select::Configs;
pub use select::TlsError;
pub use verify::{Pin, WrongIdentity};
pub(crate) use verify::{client_config, fingerprint};
pub use web::{SelfSigned, WebCertificate, WebCertificateError, WebCertificates};
