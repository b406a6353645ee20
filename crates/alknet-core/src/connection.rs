//! Connections of every transport behind one type.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use crate::{Code, RecvStream, SendStream, Stream};

/// A boxed future, for the few traits that must be `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// A QUIC connection with this ALPN.
    Quic,
    /// TLS over TCP with this ALPN: one stream.
    Tls,
    /// A WebTransport session inside HTTP/3.
    WebTransport,
    /// A WebSocket inside HTTPS: one stream.
    WebSocket,
    /// An in-process pipe (tests, embedding).
    Memory,
}

impl TransportKind {
    /// Whether the connection came in through HTTPS, where an identity is always needed.
    pub fn is_tunnelled(self) -> bool {
        matches!(self, Self::WebTransport | Self::WebSocket)
    }

    /// The name in logs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Who ended it.
    pub by: ClosedBy,
    /// With which code; [`Code::NORMAL`] where the transport has none.
    pub code: Code,
    /// The words that came with it: a peer's text, not to be trusted.
    pub reason: String,
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedBy {
    /// This side called [`Connection::close`].
    Local,
    /// The peer closed it.
    Peer,
    /// It was lost: timed out, reset, or broken by the transport.
    Lost,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            ClosedBy::Local => "closed here",
            ClosedBy::Peer => "closed by the peer",
            ClosedBy::Lost => "lost",
        };
        write!(f, "{by}: {}", self.code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason.escape_debug()) }
    }
}

/// Why a stream or datagram could not be had from a connection.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The connection is over. A transport with a single stream says so after that one
    /// stream was taken.
    #[error("the connection is {0}")]
    Closed(Closed),
    /// The transport has no such thing: a second stream on TLS, a datagram on a WebSocket.
    #[error("{0} has no {1}")]
    Unsupported(TransportKind, &'static str),
    /// The datagram is larger than the path carries.
    #[error("the datagram is too large")]
    TooLarge,
}

/// What a source of connections implements. Protocol code never sees it.
///
/// Every future is cancel safe: dropping it loses no stream and no datagram.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// What this is.
    fn kind(&self) -> TransportKind;

    /// Waits for a stream that the peer opened.
    fn accept_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>>;

    /// Opens a stream; waits while the peer allows no more.
    fn open_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>>;

    /// Waits for a unidirectional stream that the peer opened.
    fn accept_uni(&self) -> BoxFuture<'_, Result<RecvStream, ConnectionError>> {
        let kind = self.kind();
        Box::pin(async move { Err(ConnectionError::Unsupported(kind, "unidirectional streams")) })
    }

    /// Opens a unidirectional stream; waits while the peer allows no more.
    fn open_uni(&self) -> BoxFuture<'_, Result<SendStream, ConnectionError>> {
        let kind = self.kind();
        Box::pin(async move { Err(ConnectionError::Unsupported(kind, "unidirectional streams")) })
    }

    /// Waits for a datagram.
    fn read_datagram(&self) -> BoxFuture<'_, Result<Bytes, ConnectionError>> {
        let kind = self.kind();
        Box::pin(async move { Err(ConnectionError::Unsupported(kind, "datagrams")) })
    }

    /// Queues a datagram; an old one may be dropped for it.
    fn send_datagram(&self, _datagram: Bytes) -> Result<(), ConnectionError> {
        Err(ConnectionError::Unsupported(self.kind(), "datagrams"))
    }

    /// The largest datagram the path carries now, in bytes; `None` where there are none.
    fn max_datagram_size(&self) -> Option<usize> {
        None
    }

    /// Ends the connection at once. Later calls do nothing.
    fn close(&self, code: Code, reason: &str);

    /// Waits until the connection is over, for whatever cause.
    fn closed(&self) -> BoxFuture<'_, Closed>;

    /// Waits until a close has gone out: for a dialling process about to end. Bounded by
    /// the transport.
    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Fills `out` with keying material bound to the TLS session (RFC 8446, section 7.5).
    fn export_keying_material(
        &self,
        _out: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ConnectionError> {
        Err(ConnectionError::Unsupported(self.kind(), "keying material of its own"))
    }

    /// The peer's address as seen now, where there is one.
    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }
}

/// A connection with one negotiated ALPN, whatever carries it. Cheap to clone; the
/// connection lives while a clone does.
///
/// QUIC and WebTransport give any number of streams. TLS and a WebSocket yield one stream
/// once; then [`accept_bi`](Self::accept_bi) waits for the connection to end and reports
/// [`ConnectionError::Closed`], and [`open_bi`](Self::open_bi) on the accepting side is
/// [`ConnectionError::Unsupported`] at once.
#[derive(Debug, Clone)]
pub struct Connection {
    transport: Arc<dyn Transport>,
    /// Counts the streams that the peer opens.
    meter: Option<Meter>,
}

/// Counts what is in use, up to a bound.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    used: Arc<AtomicUsize>,
    room: usize,
}

/// One of what a [`Meter`] counts; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

#[cfg_attr(
    not(feature = "endpoint"),
    expect(dead_code, reason = "a node counts, a browser does not")
)]
impl Meter {
    pub(crate) fn new(room: usize) -> Self {
        Self { used: Arc::default(), room }
    }
}

impl Meter {
    fn take(&self) -> Option<Permit> {
        let more = |used: usize| (used < self.room).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Permit(self.used.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Wraps a source's connection.
    pub fn new(transport: impl Transport) -> Self {
        Self { transport: Arc::new(transport), meter: None }
    }

    /// The same connection; the streams that the peer opens count, and those beyond the
    /// bound are reset with [`Code::LIMIT`].
    #[cfg(feature = "endpoint")]
    pub(crate) fn metered(self, meter: Meter) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// What carries it.
    pub fn kind(&self) -> TransportKind {
        self.transport.kind()
    }

    /// Waits for a stream that the peer opened. Cancel safe.
    pub async fn accept_bi(&self) -> Result<Stream, ConnectionError> {
        loop {
            let mut stream = self.transport.accept_bi().await?;
            match &self.meter {
                None => return Ok(stream),
                Some(meter) => match meter.take() {
                    Some(permit) => return Ok(stream.counted(permit)),
                    None => stream.reset(Code::LIMIT),
                },
            }
        }
    }

    /// Opens a stream; waits while the peer allows no more. Cancel safe.
    pub async fn open_bi(&self) -> Result<Stream, ConnectionError> {
        self.transport.open_bi().await
    }

    /// Waits for a unidirectional stream that the peer opened. Cancel safe.
    pub async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        self.transport.accept_uni().await
    }

    /// Opens a unidirectional stream. Cancel safe.
    pub async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        self.transport.open_uni().await
    }

    /// Waits for a datagram. Cancel safe.
    pub async fn read_datagram(&self) -> Result<Bytes, ConnectionError> {
        self.transport.read_datagram().await
    }

    /// Queues a datagram; it may be lost.
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), ConnectionError> {
        self.transport.send_datagram(datagram)
    }

    /// The largest datagram the path carries now, in bytes; `None` where there are none.
    pub fn max_datagram_size(&self) -> Option<usize> {
        self.transport.max_datagram_size()
    }

    /// Ends the connection at once: unsent data is dropped, all streams fail.
    pub fn close(&self, code: Code, reason: &str) {
        self.transport.close(code, reason);
    }

    /// Waits until the connection is over. Cancel safe.
    pub async fn closed(&self) -> Closed {
        self.transport.closed().await
    }

    /// Waits until a close has gone out, for a process that is about to end.
    pub async fn drained(&self) {
        self.transport.drained().await;
    }

    /// Fills `out` with keying material bound to this TLS session (RFC 8446, section 7.5).
    pub fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ConnectionError> {
        self.transport.export_keying_material(out, label, context)
    }

    /// The peer's address as seen now, where there is one.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.transport.remote_addr()
    }
}
