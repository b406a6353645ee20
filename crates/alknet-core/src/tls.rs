//! TLS: the node's identity for native clients, X.509 for browsers, one port for both.

mod identity;

pub use identity::{IdentityError, InvalidSignature, NodeIdentity};
