//! The client of `alknet/forward`: one connection that is made anew when it is gone.

use std::{
    error::Error,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alknet_core::{
    BoxFuture, Closed, ClosedBy, Code, Connection, ConnectionError, RecvStream, SendStream, Stream,
    StreamReset, TransportKind,
};
use futures_util::FutureExt as _;
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Mutex, Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    DatagramReceiver, DatagramSender, ErrorCode, HeaderError, Id, Opened, Place, Refused, Request,
    backoff::Backoff,
    wire::{self, Answer, Told},
};

/// How long somebody waits for a stream, redials included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the node may take to answer a request; it gives up on its own side before.
const ANSWER: Duration = Duration::from_secs(20);
/// How many connections may end without an answer before that counts as one.
const MAX_CUT: usize = 3;
/// How long the word of a connection's end may take to go out.
const ENDING: Duration = Duration::from_secs(2);

/// Makes connections to a node on the ALPN `alknet/forward`.
pub trait Dial: Send + Sync + 'static {
    /// Makes one. Cancel safe.
    fn dial(&self) -> BoxFuture<'_, Result<Connection, DialError>>;
}

/// No connection came about.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the node")]
pub struct DialError {
    #[source]
    source: Box<dyn Error + Send + Sync>,
    is_final: bool,
}

impl DialError {
    /// A failure after which another try may do.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: source.into(), is_final: false }
    }

    /// A failure that no further try mends: the node has proven another identity.
    pub fn is_final(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: source.into(), is_final: true }
    }
}

/// What was asked for did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The node's answer.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The node could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The node has ended the connection, for good.
    #[error("the connection is {0}")]
    TurnedAway(Closed),
    /// The node reset the stream before it answered.
    #[error("the node reset the stream: {0}")]
    Reset(Code),
    /// The connection was gone before an answer came.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The answer is none.
    #[error("the node does not speak this protocol")]
    Protocol(#[source] HeaderError),
    /// No answer came in time.
    #[error("the node did not answer in time")]
    TimedOut,
}

impl OpenError {
    /// What went wrong, in the terms of the protocol.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(refused) => refused.code,
            Self::Reset(Code::LIMIT) => ErrorCode::Limit,
            Self::TurnedAway(_) => ErrorCode::NotAllowed,
            Self::TimedOut => ErrorCode::TimedOut,
            Self::Dial(_) | Self::Lost(_) => ErrorCode::NetworkUnreachable,
            Self::Reset(_) | Self::Protocol(_) => ErrorCode::Failed,
        }
    }

    /// Whether no further try mends it, whatever is asked for.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::TurnedAway(_) | Self::Dial(DialError { is_final: true, .. }))
    }
}

/// A stream whose request was granted.
#[derive(Debug)]
pub struct OpenStream {
    /// What was asked for.
    pub stream: Stream,
    /// What the node says of it.
    pub opened: Opened,
    /// Keeps a connection with a single stream.
    connection: Connection,
}

/// Asks for something on a connection to `alknet/forward`.
pub async fn open(connection: &Connection, request: &Request) -> Result<OpenStream, OpenError> {
    let mut stream = match connection.open_bi().await {
        Ok(stream) => stream,
        Err(ConnectionError::Closed(closed)) if is_final(&closed) => {
            return Err(OpenError::TurnedAway(closed));
        }
        Err(error) => return Err(OpenError::Lost(io::Error::other(error))),
    };
    let asked = async {
        wire::write(&mut stream, request).await?;
        wire::read::<Answer>(&mut stream).await
    };
    match timeout(ANSWER, asked).await.map_err(|_| OpenError::TimedOut)? {
        Ok(Answer::Ok(opened)) => Ok(OpenStream { stream, opened, connection: connection.clone() }),
        Ok(Answer::Error(refused)) => Err(refused.into()),
        Err(HeaderError::Io(error)) => Err(cut(connection, error).await),
        Err(error) => Err(OpenError::Protocol(error)),
    }
}

/// Why a stream ended before its answer.
async fn cut(connection: &Connection, error: io::Error) -> OpenError {
    if let Some(code) = StreamReset::code_of(&error) {
        return OpenError::Reset(code);
    }
    // A stream may notice a moment before its connection does.
    match timeout(ENDING, connection.closed()).await {
        Ok(closed) if is_final(&closed) => OpenError::TurnedAway(closed),
        _ => OpenError::Lost(error),
    }
}

/// Whether the node wants no further connection from this client.
fn is_final(closed: &Closed) -> bool {
    closed.by == ClosedBy::Peer && [Code::REFUSED, Code::REVOKED].contains(&closed.code)
}

fn is_shared(kind: TransportKind) -> bool {
    !matches!(kind, TransportKind::Tls | TransportKind::WebSocket)
}

/// Whether the node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is, as far as is known.
    Up,
    /// It is not, and this is why.
    Down(String),
}

/// Opens streams at a node. Cheap to clone.
///
/// Where the transport has many streams they share one connection, which [`keep`](Self::keep)
/// makes anew when it is gone; else each has a connection of its own. A stream that was open
/// when its connection went is broken off.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    dial: Box<dyn Dial>,
    /// The connection that streams share, the how many-th it is.
    standing: Mutex<(u64, Option<Connection>)>,
    /// Told when there is one.
    stands: Notify,
    /// Whether the last connection has one stream: nobody waits for another's dial then.
    single: AtomicBool,
    state: watch::Sender<State>,
}

impl Client {
    /// A client that goes on from a first connection.
    pub fn new(dial: impl Dial, first: Connection) -> Self {
        let single = !is_shared(first.kind());
        let inner = Inner {
            dial: Box::new(dial),
            standing: Mutex::new((0, (!single).then_some(first))),
            stands: Notify::new(),
            single: AtomicBool::new(single),
            state: watch::Sender::new(State::Up),
        };
        Self(Arc::new(inner))
    }

    /// Follows whether the node is reached.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Asks for something. While the node is not reached it waits and tries again, half a
    /// minute at the most. Cancel safe: a stream that was opened is reset.
    pub async fn open(&self, request: &Request) -> Result<OpenStream, OpenError> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        let mut cuts = 0;
        loop {
            let error = match timeout_at(deadline, self.try_open(request)).await {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(error)) => error,
                Err(_) => return Err(OpenError::TimedOut),
            };
            cuts += usize::from(matches!(error, OpenError::Lost(_)));
            let again = matches!(error, OpenError::Dial(_) | OpenError::Lost(_));
            if !again || error.is_final() || cuts >= MAX_CUT {
                return Err(error);
            }
            let wait = backoff.next();
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    /// Opens an association of datagrams.
    pub async fn udp(&self) -> Result<(DatagramSender, DatagramReceiver), OpenError> {
        let OpenStream { stream, connection, .. } = self.open(&Request::Udp {}).await?;
        let (send, recv) = stream.split();
        let (sender, receiver) = (Some(connection.clone()), Some(connection));
        Ok((DatagramSender::new(send, sender), DatagramReceiver::new(recv, receiver)))
    }

    /// Has the node listen, as long as the result lives.
    pub async fn listen(&self, place: Place) -> Result<Incoming, OpenError> {
        let OpenStream { stream, opened, connection } = self.open(&Request::Listen(place)).await?;
        let (send, recv) = stream.split();
        Ok(Incoming { opened, send, recv, _connection: connection })
    }

    /// Takes a connection that has come in.
    pub async fn accept(&self, id: Id) -> Result<OpenStream, OpenError> {
        self.open(&Request::Accept { id }).await
    }

    /// Keeps the connection that streams share: when it is gone it is made anew, however
    /// long that takes. Returns when no further try can mend it. Cancel safe.
    pub async fn keep(&self) -> OpenError {
        loop {
            let stands = self.0.stands.notified();
            let standing = self.0.standing.lock().await.1.clone();
            let Some(connection) = standing else {
                stands.await;
                continue;
            };
            let closed = connection.closed().await;
            if is_final(&closed) {
                return OpenError::TurnedAway(closed);
            }
            self.lost(closed.to_string());
            let mut backoff = Backoff::default();
            while let Err(error) = self.connection().await {
                if error.is_final {
                    return error.into();
                }
                sleep(backoff.next()).await;
            }
        }
    }

    /// Ends the shared connection, and waits a moment until the node has been told.
    pub async fn close(&self) {
        let standing = self.0.standing.lock().await.1.take();
        if let Some(connection) = standing {
            connection.close(Code::NORMAL, "");
            // A node that is gone hears nothing.
            let _ = timeout(ENDING, connection.drained()).await;
        }
    }

    async fn try_open(&self, request: &Request) -> Result<OpenStream, OpenError> {
        let (number, connection) = self.connection().await?;
        let opened = open(&connection, request).await;
        if let Err(OpenError::TimedOut) = &opened {
            // The node gives up before: who does not answer is not there any more, and
            // nobody else has to find that out.
            let mut standing = self.0.standing.lock().await;
            if standing.0 == number {
                standing.1 = None;
            }
        }
        opened
    }

    /// The shared connection, or one of a single stream.
    async fn connection(&self) -> Result<(u64, Connection), DialError> {
        if self.0.single.load(Ordering::Relaxed) {
            return Ok((0, self.dial().await?));
        }
        let mut standing = self.0.standing.lock().await;
        let (number, stands) = &mut *standing;
        if let Some(connection) = stands
            && connection.closed().now_or_never().is_none()
        {
            return Ok((*number, connection.clone()));
        }
        let connection = self.dial().await?;
        *number += 1;
        *stands = is_shared(connection.kind()).then(|| connection.clone());
        self.0.stands.notify_one();
        Ok((*number, connection))
    }

    async fn dial(&self) -> Result<Connection, DialError> {
        let dialled = self.0.dial.dial().await;
        match &dialled {
            Ok(connection) => {
                self.0.single.store(!is_shared(connection.kind()), Ordering::Relaxed);
                self.0
                    .state
                    .send_if_modified(|state| std::mem::replace(state, State::Up) != State::Up);
            }
            Err(error) => self.lost(error.source.to_string()),
        }
        dialled
    }

    fn lost(&self, why: String) {
        self.0.state.send_if_modified(|state| {
            let was_up = *state == State::Up;
            if was_up {
                *state = State::Down(why);
            }
            was_up
        });
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("state", &*self.0.state.borrow()).finish_non_exhaustive()
    }
}

/// Connections that come in at the node. It stops to listen when this is dropped.
#[derive(Debug)]
pub struct Incoming {
    /// Where the node listens.
    pub opened: Opened,
    send: SendStream,
    recv: RecvStream,
    _connection: Connection,
}

impl Incoming {
    /// Waits for the next: its id, for [`Client::accept`], and where it comes from. An error
    /// or the end of the stream means that the node listens no more. Not cancel safe.
    pub async fn next(&mut self) -> Result<(Id, String), HeaderError> {
        let Told::Incoming { id, peer } = wire::read(&mut self.recv).await?;
        Ok((id, peer))
    }

    /// Has the node stop, and waits until it has: the address is free again then.
    pub async fn end(mut self) -> io::Result<()> {
        self.send.shutdown().await?;
        while self.recv.chunk(1024).await?.is_some() {}
        Ok(())
    }
}
