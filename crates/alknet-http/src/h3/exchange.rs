//! One request and its answer, or the session it becomes.

use std::{error::Error as _, sync::Arc, time::Duration};

use ::h3::{
    error::{Code as ErrorCode, StreamError},
    ext::Protocol,
    server::{RequestResolver, RequestStream},
};
use alknet_core::{Code, Connection};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt as _;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    MAX_SESSIONS,
    adapter::{Adapter, Bidi, HttpSend},
    body::RequestBody,
    drive::drive,
    hub::{Hub, Stopped},
    message::{self, Malformed},
    server::{App, Connect},
    session::{Session, State},
};

/// How long a request may take from its first byte to the end of its header.
const HEAD: Duration = Duration::from_secs(10);
/// Requests of one connection whose headers are read at the same time.
const HEADS: usize = 64;
/// The most that is sent of an answer at once, in bytes, and how long it may take: what
/// nginx calls `send_timeout`.
const PIECE: usize = 64 * 1024;
const STALL: Duration = Duration::from_secs(60);
/// How long an answer that is given may take to reach the peer.
const ARRIVAL: Duration = Duration::from_secs(2);

/// What every exchange on a connection has at hand.
pub(super) struct Context<A> {
    app: Arc<A>,
    hub: Arc<Hub>,
    quic: Connection,
    /// Places for requests whose header is not whole.
    heads: Semaphore,
}

impl<A> Context<A> {
    pub(super) fn new(app: Arc<A>, hub: Arc<Hub>, quic: Connection) -> Self {
        Self { app, hub, quic, heads: Semaphore::new(HEADS) }
    }
}

/// Why an exchange ended early.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("the request's header did not come in time")]
    Head,
    #[error("the stream ended")]
    Stream(#[from] StreamError),
    #[error("the peer takes nothing more of the answer")]
    Stalled,
    #[error("the peer wants no answer: {0}")]
    Stopped(Code),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the answer's body failed")]
    Body(#[source] axum::Error),
}

/// Runs an exchange to its end. Why one ended early is of interest to nobody but the log.
pub(super) async fn run<A: App>(
    request: RequestResolver<Adapter, Bytes>,
    context: Arc<Context<A>>,
) {
    if let Err(error) = exchange(request, &context).await {
        let cause = error.source().map(ToString::to_string);
        tracing::debug!(%error, cause, "an HTTP/3 exchange ended early");
    }
}

async fn exchange<A: App>(
    request: RequestResolver<Adapter, Bytes>,
    context: &Context<A>,
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
        return connect(request, stream, context).await;
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
    let _ = timeout(ARRIVAL, stopped).await;
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
    drive(send, recv, (id, &state), &context.hub, &context.quic).await;
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
            Ok(data) => send_data(send, data).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    send.send_trailers(trailers).await?;
                }
            }
        }
    }
    Ok(())
}

async fn send_data(
    send: &mut RequestStream<HttpSend, Bytes>,
    mut data: Bytes,
) -> Result<(), ExchangeError> {
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(PIECE));
        let sending = timeout(STALL, send.send_data(piece)).await;
        sending.map_err(|_| ExchangeError::Stalled)??;
    }
    Ok(())
}
