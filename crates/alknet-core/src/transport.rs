//! The transports that this crate brings itself.

mod ahead;
pub(crate) mod quic;
pub(crate) mod tls;
