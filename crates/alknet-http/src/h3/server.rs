//! The accepting side: requests to the application, sessions to their handlers.

use std::{
    error::Error,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ::h3::{error::ConnectionError, server};
use alknet_core::{Closed, ClosedBy, Code, Connection};
use axum::body::Body;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_FIELD_SECTION, MAX_SESSIONS,
    adapter::Adapter,
    codes,
    drive::of_connection,
    exchange::{self, Context},
    hub::Hub,
};

/// How long a peer may take to let the control streams open.
const OPENING: Duration = Duration::from_secs(10);
/// How long a connection that had sessions stays when nothing is left on it. Browsers make
/// one for each session and keep it for their idle timeout.
const IDLE: Duration = Duration::from_secs(30);
/// How long another connection may wait for its next request, as with nginx. The transport
/// keeps connections alive for the sake of sessions, so it never ends one.
const QUIET: Duration = Duration::from_secs(75);
/// How long a peer may take to let the notice of a shutdown out.
const NOTICE: Duration = Duration::from_secs(2);

/// What answers the requests of a connection.
pub trait App: Send + Sync + 'static {
    /// An ordinary request, or a CONNECT for anything but WebTransport.
    fn request(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;

    /// An extended CONNECT for WebTransport.
    fn connect(&self, request: Request<()>) -> impl Future<Output = Connect> + Send;
}

/// Runs an accepted session; called once, when the caller has been told.
pub type Start = Box<dyn FnOnce(Connection) + Send>;

/// The answer to a CONNECT for WebTransport.
pub enum Connect {
    /// The session is accepted.
    Accept {
        /// Headers of the answer, such as `wt-protocol`.
        headers: HeaderMap,
        /// Is given the session.
        start: Start,
    },
    /// The request is answered as any other.
    Refuse(Response<Body>),
}

impl Connect {
    /// The answer if the session does not come about.
    pub(super) fn response(self) -> Response<Body> {
        match self {
            Self::Refuse(response) => response,
            // Only a caller who may have sessions, and has many, comes to this.
            Self::Accept { .. } => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                response
            }
        }
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accept { headers, .. } => {
                f.debug_struct("Accept").field("headers", headers).finish_non_exhaustive()
            }
            Self::Refuse(response) => f.debug_tuple("Refuse").field(&response.status()).finish(),
        }
    }
}

/// Why a connection was not served to an orderly end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The peer did not let HTTP/3 begin.
    #[error("HTTP/3 did not begin in time")]
    Opening,
    /// The peer broke HTTP/3.
    #[error("the peer broke HTTP/3")]
    Protocol(#[source] Box<dyn Error + Send + Sync>),
    /// The peer closed the connection with an error.
    #[error("the connection was {0}")]
    Closed(Closed),
}

/// Serves one HTTP/3 connection: ordinary requests and any number of WebTransport sessions
/// beside each other.
///
/// Ends when the connection does. Cancelled through `shutdown`, it takes no more requests,
/// tells the peer so and ends when those in progress have, sessions included. Everything
/// it started ends with it when it is dropped.
pub async fn serve(
    connection: Connection,
    app: Arc<impl App>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let hub = Hub::server();
    let adapter = Adapter::new(connection.clone(), hub.clone());
    let refusing = adapter.refusing();
    let opening = timeout(OPENING, settings().build(adapter)).await;
    let opening = opening.map_err(|_| ServeError::Opening)?;
    let mut h3 = opening.map_err(|error| outcome(&connection, error))?;
    let context = Arc::new(Context::new(app, hub.clone(), connection.clone()));
    let _sessions = Sessions { hub: hub.clone(), quic: connection.clone() };
    let mut exchanges = JoinSet::new();
    let mut accepting = true;
    while accepting || !exchanges.is_empty() {
        tokio::select! {
            accepted = h3.accept() => match accepted {
                Ok(Some(request)) => drop(exchanges.spawn(exchange::run(request, context.clone()))),
                // The peer makes no more requests.
                Ok(None) => break,
                Err(error) => return ended(&connection, error),
            },
            Some(done) = exchanges.join_next() => report(&done),
            () = shutdown.cancelled(), if accepting => {
                accepting = false;
                refusing.store(true, Ordering::Relaxed);
                // One beyond the last request: h3 names the last one that it takes, and a
                // peer reads the first one that is refused (RFC 9114, section 5.2).
                // A peer that reads nothing need not be told.
                if let Ok(Err(error)) = timeout(NOTICE, h3.shutdown(1)).await {
                    return ended(&connection, error);
                }
            }
            () = sleep(patience(&hub)), if exchanges.is_empty() => return Ok(()),
        }
    }
    while let Some(done) = exchanges.join_next().await {
        report(&done);
    }
    // h3 closes the connection when it is dropped.
    Ok(())
}

fn report(done: &Result<(), JoinError>) {
    if done.as_ref().is_err_and(JoinError::is_panic) {
        tracing::error!("an HTTP/3 exchange panicked");
    }
}

fn patience(hub: &Hub) -> Duration {
    if hub.had_sessions() { IDLE } else { QUIET }
}

fn settings() -> server::Builder {
    let mut builder = server::builder();
    builder
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(MAX_SESSIONS as u64)
        .max_field_section_size(MAX_FIELD_SECTION)
        .send_grease(false);
    builder
}

fn ended(connection: &Connection, error: ConnectionError) -> Result<(), ServeError> {
    let by_h3 = matches!(error, ConnectionError::Local { .. });
    match connection.closed().now_or_never() {
        Some(Closed { by: ClosedBy::Lost, .. }) => Ok(()),
        Some(Closed { by: ClosedBy::Local, .. }) if !by_h3 => Ok(()),
        Some(Closed { by: ClosedBy::Peer, code, .. }) if orderly(code) => Ok(()),
        _ if error.is_h3_no_error() || matches!(error, ConnectionError::Timeout { .. }) => Ok(()),
        _ => Err(outcome(connection, error)),
    }
}

/// Whether a peer that closes with this code found nothing wrong.
fn orderly(code: Code) -> bool {
    code == codes::NO_ERROR || code == Code::NORMAL || codes::from_wire(code).is_some()
}

fn outcome(connection: &Connection, error: ConnectionError) -> ServeError {
    match connection.closed().now_or_never() {
        Some(closed) if closed.by != ClosedBy::Local => ServeError::Closed(closed),
        _ => ServeError::Protocol(error.into()),
    }
}

/// The sessions of a connection: over when `serve` is, however it ends.
struct Sessions {
    hub: Arc<Hub>,
    quic: Connection,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        let closed = self.quic.closed().now_or_never().map(of_connection);
        let local =
            || Closed { by: ClosedBy::Local, code: Code::SHUTTING_DOWN, reason: String::new() };
        self.hub.end_all(&closed.unwrap_or_else(local));
    }
}
