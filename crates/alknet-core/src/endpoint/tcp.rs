//! TLS on TCP.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

use super::Shared;
use crate::{
    Alpn, Connection, TransportKind,
    addresses::Verdict,
    tls::fingerprint,
    transport::{quic::canonical, tls},
};

/// How long to wait when the system has no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(200);

pub(super) async fn accept_loop(shared: Arc<Shared>, listener: TcpListener, tasks: TaskTracker) {
    while let Some(accepted) = shared.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, remote)) => {
                let remote = canonical(remote);
                // Who completed TCP's handshake has the address; a refusal is its end.
                if shared.newcomer(remote.ip(), true, TransportKind::Tls) == Verdict::Welcome {
                    drop(tasks.spawn(connection(shared.clone(), stream, remote)));
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "accepting TCP connections");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Whether an accept failed for the connection that was accepted, not for the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted
    )
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, remote: SocketAddr) {
    let pass = shared.gate.enter();
    let limited = tokio::time::timeout(
        shared.dispatcher.limits().handshake_timeout,
        handshake(&shared, stream),
    );
    let stopped = shared.stop.run_until_cancelled(pass.hold(limited)).await;
    let stream = match stopped.flatten() {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return tracing::debug!(%remote, %error, "TLS handshake failed"),
        Some(Err(_)) => return tracing::debug!(%remote, "TLS handshake timed out"),
        None => return tracing::debug!(%remote, "TLS handshake dropped"),
    };
    let session = stream.get_ref().1;
    let alpn = session
        .alpn_protocol()
        .and_then(|name| Alpn::from_wire(name).ok())
        .or_else(|| shared.fallback.clone());
    let Some(alpn) = alpn else { return tracing::debug!(%remote, "no ALPN negotiated") };
    let key = session.peer_certificates().and_then(|chain| fingerprint(chain.first()?).ok());
    let connection = Connection::new(tls::accepted(stream, remote));
    shared.dispatch(connection, remote, alpn, key).await;
}

async fn handshake(shared: &Shared, stream: TcpStream) -> io::Result<TlsStream<tls::Tcp>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), tls::tcp(stream)?).await?;
    let config = shared.configs.choose(&start.client_hello()).clone();
    start.into_stream(config).await
}
