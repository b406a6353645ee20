//! The transports that this crate brings itself.

pub(crate) mod quic;
pub(crate) mod tls;
