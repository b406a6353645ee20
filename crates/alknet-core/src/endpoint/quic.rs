//! QUIC.

use std::{sync::Arc, time::Duration};

use quinn::{
    IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt, crypto::rustls::HandshakeData,
};
use rustls::pki_types::CertificateDer;
use tokio_util::task::TaskTracker;

use super::Shared;
use crate::{
    Alpn, Connection, Limits, TransportKind,
    tls::{Lazy, peer_id},
    transport::quic::{Quic, canonical},
};

/// Received and not yet read: of one stream and of one connection, in bytes.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Sent and not yet acknowledged, per connection, in bytes.
const SEND_WINDOW: u64 = 8 << 20;
/// Datagrams waiting in either direction, in bytes.
const DATAGRAM_BUFFER: usize = 256 * 1024;
/// Unidirectional streams that a peer may have open.
const UNI_STREAMS: u32 = 256;
/// Well under the idle timeouts of both ends (browsers: 30 s), and of NATs for UDP.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// With this many connections that are no sessions, a client has to prove its address first.
const RETRY_ABOVE: usize = 64;

/// The transport parameters of both sides of a connection.
pub(crate) fn transport(idle_timeout: Duration, streams: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
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
        let idle = endpoint.open_connections().saturating_sub(shared.dispatcher.session_count());
        if idle >= shared.dispatcher.limits().handshakes {
            // A client that means it sends its first packet again.
            incoming.ignore();
        } else if incoming.may_retry() && idle >= RETRY_ABOVE {
            // Fails only for a client that may not retry.
            let _ = incoming.retry();
        } else {
            tasks.spawn(connection(shared.clone(), incoming));
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
    let key = certificates.and_then(|chain| peer_id(chain.first()?).ok());
    let connection = Connection::new(Quic::accepted(connection));
    shared.dispatch(connection, alpn, TransportKind::Quic, key).await;
}

fn alpn(connection: &quinn::Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Alpn::from_wire(&data.protocol?).ok()
}
