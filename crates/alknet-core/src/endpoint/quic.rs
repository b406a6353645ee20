//! QUIC.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quinn::{
    IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt, congestion::BbrConfig,
    crypto::rustls::HandshakeData,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use tokio_util::task::TaskTracker;

use super::Shared;
use crate::{
    Alpn, Connection, Limits, TransportKind,
    addresses::Verdict,
    tls::{Lazy, fingerprint},
    transport::quic::{Quic, canonical},
};

/// Received and not yet read: of one stream and of one connection, in bytes.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Sent and not yet acknowledged, per connection, in bytes.
const SEND_WINDOW: u64 = 8 << 20;
/// What may be under way before the first acknowledgement, in bytes (RFC 9002, section 7.2).
const INITIAL_WINDOW: u64 = 14_720;
/// Datagrams waiting in either direction, in bytes.
const DATAGRAM_BUFFER: usize = 256 * 1024;
/// Unidirectional streams that a peer may have open.
const UNI_STREAMS: u32 = 256;
/// Well under the idle timeouts of both ends (browsers: 30 s), and of NATs for UDP.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// With this many connections that are no sessions, a client has to prove its address first.
const RETRY_ABOVE: usize = 64;

/// The transport parameters of both sides of a connection.
///
/// Congestion control is BBR: over radio links packets get lost that no queue has dropped, and
/// what takes each loss for congestion, as Cubic does, comes to a hundredth of such a path.
pub(crate) fn transport(idle_timeout: Duration, streams: u32) -> TransportConfig {
    let mut congestion = BbrConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(congestion))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(idle_timeout).ok());
    transport
}

/// The secret behind stateless resets (RFC 9000, section 10.3): a node that has it from its
/// predecessor can tell that one's clients that their connections are no more.
#[derive(Clone)]
pub struct ResetKey {
    tokens: Arc<hmac::Key>,
    /// Tells connection ids of ours from noise; no secret depends on it.
    connection_ids: u64,
}

impl ResetKey {
    /// From 32 secret bytes that stay the same when the node starts anew.
    pub fn new(seed: &[u8; 32]) -> Self {
        let seed = hmac::Key::new(hmac::HMAC_SHA256, seed);
        let tokens = hmac::sign(&seed, b"alknet v1 quic stateless resets");
        let ids = hmac::sign(&seed, b"alknet v1 quic connection ids");
        let ids = ids.as_ref().first_chunk().copied().unwrap_or_default();
        Self {
            tokens: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, tokens.as_ref())),
            connection_ids: u64::from_be_bytes(ids),
        }
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey(…)")
    }
}

pub(super) fn endpoint_config(resets: Option<&ResetKey>) -> quinn::EndpointConfig {
    let Some(resets) = resets else { return quinn::EndpointConfig::default() };
    let mut config = quinn::EndpointConfig::new(resets.tokens.clone());
    let key = resets.connection_ids;
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    config
}

pub(super) fn server_config(tls: Lazy, limits: &Limits) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport(limits.idle_timeout, limits.streams)));
    config.max_incoming(limits.handshakes);
    config.incoming_buffer_size_total(16 << 20);
    config
}

pub(super) async fn accept_loop(
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    tasks: TaskTracker,
) {
    while let Some(Some(incoming)) = shared.stop.run_until_cancelled(endpoint.accept()).await {
        // Beside those in a handshake, connections that were closed at once cost memory
        // until they have drained.
        let (address, proven) =
            (incoming.remote_address().ip(), incoming.remote_address_validated());
        let idle = endpoint.open_connections().saturating_sub(shared.dispatcher.quic_sessions());
        if idle >= shared.dispatcher.limits().handshakes {
            // A client that means it sends its first packet again.
            incoming.ignore();
            continue;
        }
        if incoming.may_retry() && idle >= RETRY_ABOVE {
            // Fails only for a client that may not retry.
            let _ = incoming.retry();
            continue;
        }
        match shared.newcomer(address, proven, TransportKind::Quic) {
            Verdict::Welcome => drop(tasks.spawn(connection(shared.clone(), incoming))),
            Verdict::Prove if incoming.may_retry() => drop(incoming.retry()),
            Verdict::Prove | Verdict::TooMany | Verdict::Banned => incoming.refuse(),
        }
    }
}

async fn connection(shared: Arc<Shared>, incoming: Incoming) {
    let remote = canonical(incoming.remote_address());
    let pass = shared.gate.enter();
    let limited = tokio::time::timeout(shared.dispatcher.limits().handshake_timeout, async {
        incoming.await
    });
    let stopped = shared.stop.run_until_cancelled(pass.hold(limited)).await;
    let connection = match stopped.flatten() {
        Some(Ok(Ok(connection))) => connection,
        Some(Ok(Err(error))) => return tracing::debug!(%remote, %error, "QUIC handshake failed"),
        Some(Err(_)) => return tracing::debug!(%remote, "QUIC handshake timed out"),
        None => return tracing::debug!(%remote, "QUIC handshake dropped"),
    };
    let Some(alpn) = alpn(&connection) else {
        return tracing::debug!(%remote, "no ALPN negotiated");
    };
    let certificates = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let key = certificates.and_then(|chain| fingerprint(chain.first()?).ok());
    let connection = Connection::new(Quic::accepted(connection));
    shared.dispatch(connection, remote, alpn, key).await;
}

fn alpn(connection: &quinn::Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Alpn::from_wire(&data.protocol?).ok()
}
