//! How much of everything a node takes on.

use std::time::Duration;

/// Bounds of a node, each with a default that suits a small server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Handshakes in progress, TCP and QUIC each. One more ends the oldest, so that a
    /// flood of half-open ones never locks out a client that finishes its own.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Sessions in progress over all transports, HTTP connections included.
    pub sessions: usize,
    /// Sessions in progress of one identity.
    pub sessions_per_identity: usize,
    /// Bidirectional streams that a peer may have open on one connection.
    pub streams: u32,
    /// How long a QUIC connection may be silent. Peers send keep-alives well within it.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 512,
            handshake_timeout: Duration::from_secs(10),
            sessions: 8192,
            sessions_per_identity: 1024,
            streams: 1000,
            idle_timeout: Duration::from_secs(60),
        }
    }
}
