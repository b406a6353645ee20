//! The accepting side: requests to the application, sessions to their handlers.

use std::{
    error::Error,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ::h3::{
    error::{Code as ErrorCode, ConnectionError, StreamError},
    ext::Protocol,
    server::{self, RequestResolver, RequestStream},
};
use alknet_core::{Closed, ClosedBy, Code, Connection};
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    MAX_FIELD_SECTION, MAX_SESSIONS,
    adapter::{Adapter, Bidi, HttpSend},
    body::RequestBody,
    codes,
    hub::{Hub, Stopped},
    message::{self, Malformed},
    session::{self, Session, State},
};

/// How long a peer may take to let the control streams open.
const OPENING: Duration = Duration::from_secs(10);
/// How long a request may take from its first byte to the end of its header.
const HEAD: Duration = Duration::from_secs(10);
/// Requests of one connection whose headers are read at the same time.
const HEADS: usize = 64;
/// How long a connection that had sessions stays when nothing is left on it. Browsers make
/// one for each session and keep it for their idle timeout.
const IDLE: Duration = Duration::from_secs(30);
/// How long an answer that is given may take to reach the peer.
const LINGER: Duration = Duration::from_secs(2);

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
    fn response(self) -> Response<Body> {
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
    let context = Arc::new(Context {
        app,
        hub: hub.clone(),
        quic: connection.clone(),
        heads: Semaphore::new(HEADS),
    });
    let _sessions = Sessions { hub: hub.clone(), quic: connection.clone() };
    let mut exchanges = JoinSet::new();
    let mut accepting = true;
    while accepting || !exchanges.is_empty() {
        tokio::select! {
            accepted = h3.accept() => match accepted {
                Ok(Some(request)) => drop(exchanges.spawn(exchange(request, context.clone()))),
                // The peer makes no more requests.
                Ok(None) => break,
                Err(error) => return ended(&connection, error),
            },
            Some(done) = exchanges.join_next() => report(done),
            () = shutdown.cancelled(), if accepting => {
                accepting = false;
                refusing.store(true, Ordering::Relaxed);
                // One beyond the last request: h3 names the last one that it takes, and a
                // peer reads the first one that is refused (RFC 9114, section 5.2).
                // A peer that reads nothing need not be told.
                if let Ok(Err(error)) = timeout(LINGER, h3.shutdown(1)).await {
                    return ended(&connection, error);
                }
            }
            () = sleep(IDLE), if exchanges.is_empty() && hub.had_sessions() => return Ok(()),
        }
    }
    while let Some(done) = exchanges.join_next().await {
        report(done);
    }
    // h3 closes the connection when it is dropped.
    Ok(())
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
        let closed = self.quic.closed().now_or_never().map(session::of_connection);
        let local =
            || Closed { by: ClosedBy::Local, code: Code::SHUTTING_DOWN, reason: String::new() };
        self.hub.end_all(&closed.unwrap_or_else(local));
    }
}

/// What every exchange on a connection has at hand.
struct Context<A> {
    app: Arc<A>,
    hub: Arc<Hub>,
    quic: Connection,
    /// Places for requests whose header is not whole.
    heads: Semaphore,
}

/// Why an exchange ended early. Of interest to nobody but the log.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("the request's header did not come in time")]
    Head,
    #[error("the stream ended")]
    Stream(#[from] StreamError),
    #[error("the peer wants no answer: {0}")]
    Stopped(Code),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the answer's body failed")]
    Body(#[source] axum::Error),
}

fn report(done: Result<Result<(), ExchangeError>, JoinError>) {
    match done {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let cause = error.source().map(ToString::to_string);
            tracing::debug!(error = %error, cause, "an HTTP/3 exchange ended early");
        }
        Err(error) if error.is_panic() => tracing::error!("an HTTP/3 exchange panicked"),
        Err(_) => {}
    }
}

async fn exchange<A: App>(
    request: RequestResolver<Adapter, Bytes>,
    context: Arc<Context<A>>,
) -> Result<(), ExchangeError> {
    let (mut request, mut stream) = {
        let _place = context.heads.acquire().await;
        let resolving = timeout(HEAD, request.resolve_request()).await;
        resolving.map_err(|_| ExchangeError::Head)??
    };
    let length = match message::check(request.headers_mut()) {
        Ok(length) => length,
        Err(malformed) => {
            stream.stop_sending(ErrorCode::H3_MESSAGE_ERROR);
            stream.stop_stream(ErrorCode::H3_MESSAGE_ERROR);
            return Err(malformed.into());
        }
    };
    if is_webtransport(&request) {
        return connect(request, stream, &context).await;
    }
    let stopped = context.hub.take_stopped(stream.id().into_inner());
    let answering = async {
        let head = request.method() == Method::HEAD;
        let (send, recv) = stream.split();
        let body = RequestBody::new(recv, length);
        let response = context.app.request(request.map(|()| Body::new(body))).await;
        respond(send, response, head).await
    };
    unless_stopped(stopped, answering).await
}

/// Gives the answer up when the peer does; else stays until the peer has it, so that the
/// connection does not close too early.
async fn unless_stopped(
    stopped: Option<Stopped>,
    answering: impl Future<Output = Result<(), ExchangeError>>,
) -> Result<(), ExchangeError> {
    let mut stopped = stopped.unwrap_or_else(|| Box::pin(std::future::pending()));
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        biased;
        done = &mut answering => done?,
        outcome = &mut stopped => return match outcome {
            Some(code) => Err(ExchangeError::Stopped(code)),
            None => answering.await,
        },
    }
    let _ = timeout(LINGER, stopped).await;
    Ok(())
}

fn is_webtransport(request: &Request<()>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol == Some(&Protocol::WEB_TRANSPORT)
}

async fn connect<A: App>(
    request: Request<()>,
    stream: RequestStream<Bidi, Bytes>,
    context: &Context<A>,
) -> Result<(), ExchangeError> {
    let id = stream.id().into_inner();
    let (mut send, recv) = stream.split();
    let (mut headers, start) = match context.app.connect(request).await {
        Connect::Accept { headers, start } if context.hub.sessions() < MAX_SESSIONS => {
            (headers, start)
        }
        refused => {
            let stopped = context.hub.take_stopped(id);
            return unless_stopped(stopped, respond(send, refused.response(), false)).await;
        }
    };
    headers.insert("sec-webtransport-http3-draft", HeaderValue::from_static("draft02"));
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    let state = Arc::new(State::default());
    let inbox = context.hub.activate(id, state.clone());
    let session = Session::new(id, context.quic.clone(), state.clone(), inbox);
    send.send_response(response).await?;
    start(Connection::new(session));
    session::drive(send, recv, (id, &state), &context.hub, &context.quic).await;
    Ok(())
}

async fn respond(
    mut send: RequestStream<HttpSend, Bytes>,
    response: Response<Body>,
    head: bool,
) -> Result<(), ExchangeError> {
    let (mut parts, body) = response.into_parts();
    message::complete(&mut parts.headers, &body);
    send.send_response(Response::from_parts(parts, ())).await?;
    if !head {
        send_body(&mut send, body).await?;
    }
    Ok(send.finish().await?)
}

async fn send_body(
    send: &mut RequestStream<HttpSend, Bytes>,
    mut body: Body,
) -> Result<(), ExchangeError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            send.stop_stream(ErrorCode::H3_INTERNAL_ERROR);
            ExchangeError::Body(error)
        })?;
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => send.send_data(data).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    send.send_trailers(trailers).await?;
                }
            }
        }
    }
    Ok(())
}
