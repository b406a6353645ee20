//! How much of everything a node takes on.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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
    /// Sessions in progress of one address (IPv6: one network of 64 bits) that have no
    /// identity, HTTP connections included.
    pub sessions_per_address: usize,
    /// Logins in progress of one identity: sessions with it, and logins inside sessions.
    pub sessions_per_identity: usize,
    /// Bidirectional streams that one identity may have open, over all its connections.
    pub streams_per_identity: usize,
    /// Handshakes that one address (IPv6: one network of 64 bits) may begin in a minute.
    pub handshakes_per_address: u32,
    /// Failures to authenticate of one address within ten minutes before it is turned away.
    pub failures_per_address: u32,
    /// How long such an address is turned away.
    pub ban: Duration,
    /// Addresses that are not counted. The loopback ones by default: behind a proxy on the
    /// same machine everybody comes from there.
    pub exempt: Vec<IpNet>,
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
            sessions_per_address: 512,
            sessions_per_identity: 1024,
            streams_per_identity: 4096,
            handshakes_per_address: 600,
            failures_per_address: 20,
            ban: Duration::from_secs(600),
            exempt: loopback(),
            streams: 1000,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

fn loopback() -> Vec<IpNet> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
    vec![v4.into(), v6.into()]
}
