//! The asking side: sessions and requests to a node.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::h3::{
    client::{self, RequestStream, SendRequest},
    error::StreamError,
    ext::Protocol,
};
use alknet_core::{Closed, ClosedBy, Code, Connection};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    MAX_FIELD_SECTION,
    adapter::{Adapter, Bidi, HttpRecv, Opener},
    codes,
    drive::drive,
    hub::Hub,
    session::{self, Session, State},
    settings::Peer,
};

/// How long the node may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest body that [`Client::request`] collects, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Why there is no session, or no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The node answered with another status than success.
    #[error("the node answered {}", .0.status())]
    Refused(Response<()>),
    /// The server speaks HTTP/3 and no WebTransport.
    #[error("the server does not speak WebTransport")]
    Unsupported,
    /// There was no answer in time.
    #[error("the node did not answer in time")]
    TimedOut,
    /// The answer's body is longer than is collected.
    #[error("the answer is too long")]
    TooLong,
    /// The connection ended, or the node broke HTTP/3.
    #[error("the HTTP/3 connection failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl From<StreamError> for ConnectError {
    fn from(error: StreamError) -> Self {
        Self::Failed(error.into())
    }
}

/// Asks for one WebTransport session on a connection of its own. The request's URI names
/// the authority and the path; its headers go with it.
///
/// Returns the answer's head and the session, whose end is also the connection's.
pub async fn connect(
    connection: Connection,
    request: Request<()>,
) -> Result<(Response<()>, Connection), ConnectError> {
    let client = Client::new(connection).await?;
    let (response, session) = client.open(request, true).await?;
    Ok((response, Connection::new(session.owning(client))))
}

/// An HTTP/3 connection to a node, for any number of sessions and requests. Dropped, it
/// closes the connection, and its sessions with it.
pub struct Client {
    quic: Connection,
    hub: Arc<Hub>,
    settings: watch::Receiver<Option<Peer>>,
    requests: Mutex<SendRequest<Opener, Bytes>>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("quic", &self.quic).finish_non_exhaustive()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let local = Closed { by: ClosedBy::Local, code: Code::NORMAL, reason: String::new() };
        self.hub.end_all(&local);
        self.quic.close(codes::NO_ERROR, "");
    }
}

impl Client {
    /// Begins HTTP/3 on a connection.
    pub async fn new(connection: Connection) -> Result<Self, ConnectError> {
        let hub = Hub::client();
        let adapter = Adapter::new(connection.clone(), hub.clone());
        let settings = adapter.peer_settings();
        let mut builder = client::builder();
        builder.max_field_section_size(MAX_FIELD_SECTION).enable_datagram(true).send_grease(false);
        let building = timeout(ANSWER, builder.build(adapter)).await;
        let (mut driver, requests) = building
            .map_err(|_| ConnectError::TimedOut)?
            .map_err(|error| ConnectError::Failed(error.into()))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let end = driver.wait_idle().await;
            tracing::debug!(%end, "an HTTP/3 connection ended");
        });
        Ok(Self {
            quic: connection,
            hub,
            settings,
            requests: Mutex::new(requests),
            tasks: Mutex::new(tasks),
        })
    }

    /// Asks for a session beside others; see [`connect`].
    pub async fn connect(
        &self,
        request: Request<()>,
    ) -> Result<(Response<()>, Connection), ConnectError> {
        let (response, session) = self.open(request, false).await?;
        Ok((response, Connection::new(session)))
    }

    /// Makes an ordinary request and collects its answer, up to 16 MiB. Trailers, if there
    /// are any, are a [`HeaderMap`](http::HeaderMap) among the answer's extensions.
    pub async fn request(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ConnectError> {
        timeout(ANSWER, self.exchange(request)).await.map_err(|_| ConnectError::TimedOut)?
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ConnectError> {
        let (parts, body) = request.into_parts();
        let mut requests = lock(&self.requests).clone();
        let stream = requests.send_request(Request::from_parts(parts, ())).await?;
        let (mut send, mut recv) = stream.split();
        let sending = async {
            if !body.is_empty() {
                send.send_data(body).await?;
            }
            send.finish().await
        };
        // A server may answer without reading all of the request, and stop it.
        let (answer, _sent) = tokio::join!(collect(&mut recv), sending);
        answer
    }

    async fn open(
        &self,
        request: Request<()>,
        last: bool,
    ) -> Result<(Response<()>, Session), ConnectError> {
        let asking = timeout(ANSWER, self.ask(request)).await;
        let (response, stream) = asking.map_err(|_| ConnectError::TimedOut)??;
        let id = stream.id().into_inner();
        let state = Arc::new(State::default());
        let inbox = self.hub.activate(id, state.clone());
        let session = Session::new(id, self.quic.clone(), state.clone(), inbox);
        let (send, recv) = stream.split();
        let (hub, quic) = (self.hub.clone(), self.quic.clone());
        self.spawn(async move {
            drive(send, recv, (id, &state), &hub, &quic).await;
            if last {
                session::close_connection(&quic, &state.closed());
            }
        });
        Ok((response, session))
    }

    /// Makes the extended CONNECT (RFC 9220) and waits for its answer.
    async fn ask(
        &self,
        mut request: Request<()>,
    ) -> Result<(Response<()>, RequestStream<Bidi, Bytes>), ConnectError> {
        let mut settings = self.settings.clone();
        match settings.wait_for(Option::is_some).await.map(|settings| *settings) {
            Ok(Some(Peer { webtransport: true })) => {}
            Ok(_) => return Err(ConnectError::Unsupported),
            Err(_) => {
                let closed = self.quic.closed().await;
                let error = alknet_core::ConnectionError::Closed(closed);
                return Err(ConnectError::Failed(error.into()));
            }
        }
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::WEB_TRANSPORT);
        let headers = request.headers_mut();
        headers.insert("sec-webtransport-http3-draft02", HeaderValue::from_static("1"));
        let mut requests = lock(&self.requests).clone();
        let mut stream = requests.send_request(request).await?;
        let response = stream.recv_response().await?;
        if response.status().is_success() {
            Ok((response, stream))
        } else {
            Err(ConnectError::Refused(response))
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

/// Reads an answer, with its trailers among the extensions.
async fn collect(
    stream: &mut RequestStream<HttpRecv, Bytes>,
) -> Result<Response<Bytes>, ConnectError> {
    let mut response = stream.recv_response().await?;
    let mut body = BytesMut::new();
    while let Some(data) = stream.recv_data().await? {
        if body.len() + data.remaining() > MAX_BODY {
            return Err(ConnectError::TooLong);
        }
        body.put(data);
    }
    if let Some(trailers) = stream.recv_trailers().await? {
        response.extensions_mut().insert(trailers);
    }
    Ok(response.map(|()| body.freeze()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
