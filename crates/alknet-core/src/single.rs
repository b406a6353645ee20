//! Transports that carry exactly one stream.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    BoxFuture, Closed, ClosedBy, Code, ConnectionError, RecvHalf, RecvStream, SendHalf, SendStream,
    Stream, Transport, TransportKind,
};

/// Fills a buffer with keying material for a label and a context.
pub type Exporter = Box<dyn Fn(&mut [u8], &[u8], &[u8]) -> bool + Send + Sync>;

/// A [`Transport`] over one byte stream: TLS on TCP, a WebSocket, a pipe.
///
/// The accepting side gets the stream from `accept_bi`, the dialling side from `open_bi`,
/// once. The connection is over when both halves of the stream are dropped, when either
/// side closes it, or when the stream fails. A local close makes the halves fail and
/// resets the stream with the code.
pub struct SingleStream {
    kind: TransportKind,
    dialled: bool,
    stream: Mutex<Option<Stream>>,
    state: Arc<State>,
    exporter: Option<Exporter>,
    remote_addr: Option<SocketAddr>,
}

#[derive(Default)]
struct State {
    closed: OnceLock<Closed>,
    over: CancellationToken,
}

impl State {
    fn end(&self, by: ClosedBy, code: Code, reason: &str) {
        if self.closed.set(Closed { by, code, reason: reason.into() }).is_ok() {
            self.over.cancel();
        }
    }

    fn closed(&self) -> Closed {
        let lost = || Closed { by: ClosedBy::Lost, code: Code::NORMAL, reason: String::new() };
        self.closed.get().cloned().unwrap_or_else(lost)
    }
}

impl SingleStream {
    /// The side that was dialled: `accept_bi` yields the stream.
    pub fn accepted(kind: TransportKind, stream: Stream) -> Self {
        Self::new(kind, stream, false)
    }

    /// The side that dialled: `open_bi` yields the stream.
    pub fn dialled(kind: TransportKind, stream: Stream) -> Self {
        Self::new(kind, stream, true)
    }

    /// With a TLS exporter.
    #[must_use]
    pub fn with_exporter(self, exporter: Exporter) -> Self {
        Self { exporter: Some(exporter), ..self }
    }

    /// With the peer's address.
    #[must_use]
    pub fn with_remote_addr(self, addr: Option<SocketAddr>) -> Self {
        Self { remote_addr: addr, ..self }
    }

    fn new(kind: TransportKind, stream: Stream, dialled: bool) -> Self {
        let state = Arc::new(State::default());
        let (send, recv) = stream.split();
        let open = Arc::new(Open(state.clone()));
        let id = send.id();
        let send = SendStream::new(Half::new(send, &state, &open), id);
        let recv = RecvStream::new(Half::new(recv, &state, &open), id);
        let stream = Mutex::new(Some(Stream::new(send, recv)));
        Self { kind, dialled, stream, state, exporter: None, remote_addr: None }
    }

    fn take(&self) -> Option<Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn over(&self) -> Closed {
        self.state.over.cancelled().await;
        self.state.closed()
    }
}

impl Transport for SingleStream {
    fn kind(&self) -> TransportKind {
        self.kind
    }

    fn accept_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(async move {
            let stream = if self.dialled { None } else { self.take() };
            match stream {
                Some(stream) => Ok(stream),
                None => Err(ConnectionError::Closed(self.over().await)),
            }
        })
    }

    fn open_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(async move {
            let stream = if self.dialled { self.take() } else { None };
            stream.ok_or(ConnectionError::Unsupported(self.kind, "further streams"))
        })
    }

    fn close(&self, code: Code, reason: &str) {
        self.state.end(ClosedBy::Local, code, reason);
        drop(self.take());
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(self.over())
    }

    fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ConnectionError> {
        let none = ConnectionError::Unsupported(self.kind, "keying material of its own");
        let exporter = self.exporter.as_ref().ok_or_else(|| none.clone())?;
        if exporter(out, label, context) { Ok(()) } else { Err(none) }
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote_addr
    }
}

impl fmt::Debug for SingleStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleStream")
            .field("kind", &self.kind)
            .field("dialled", &self.dialled)
            .finish_non_exhaustive()
    }
}

/// Held by both halves: the connection is over when the last one drops it.
struct Open(Arc<State>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.end(ClosedBy::Peer, Code::NORMAL, "");
    }
}

/// What a half can be told when the connection is closed here.
trait Abort {
    fn abort(&mut self, code: Code);
}

impl Abort for SendStream {
    fn abort(&mut self, code: Code) {
        self.reset(code);
    }
}

impl Abort for RecvStream {
    fn abort(&mut self, code: Code) {
        self.stop(code);
    }
}

/// A half that fails once the connection is closed.
struct Half<T: Abort> {
    inner: T,
    state: Arc<State>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: Arc<Open>,
}

impl<T: Abort> Half<T> {
    fn new(inner: T, state: &Arc<State>, open: &Arc<Open>) -> Self {
        let over = Box::pin(state.over.clone().cancelled_owned());
        Self { inner, state: state.clone(), over, _open: open.clone() }
    }

    /// Fails when the connection is closed; else leaves the task to be woken by that.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.over.as_mut().poll(cx).map(|()| {
            io::Error::new(
                io::ErrorKind::ConnectionAborted,
                ConnectionError::Closed(self.state.closed()),
            )
        })
    }

    /// The code of a close that this half has to tell the transport.
    fn local_code(&self) -> Option<Code> {
        self.state
            .closed
            .get()
            .filter(|closed| closed.by == ClosedBy::Local)
            .map(|closed| closed.code)
    }
}

macro_rules! guarded {
    ($self:ident, $cx:ident, $poll:expr) => {{
        if $self.state.closed.get().is_some() {
            if let Poll::Ready(error) = $self.poll_open($cx) {
                return Poll::Ready(Err(error));
            }
        }
        match $poll {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => $self.poll_open($cx).map(Err),
        }
    }};
}

impl AsyncRead for Half<RecvStream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        guarded!(self, cx, Pin::new(&mut self.inner).poll_read(cx, buf))
    }
}

impl RecvHalf for Half<RecvStream> {
    fn stop(&mut self, code: Code) {
        self.inner.stop(code);
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        guarded!(self, cx, self.inner.poll_chunk(cx, max))
    }
}

impl AsyncWrite for Half<SendStream> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        guarded!(self, cx, Pin::new(&mut self.inner).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        guarded!(self, cx, Pin::new(&mut self.inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        guarded!(self, cx, Pin::new(&mut self.inner).poll_shutdown(cx))
    }
}

impl SendHalf for Half<SendStream> {
    fn reset(&mut self, code: Code) {
        self.inner.reset(code);
    }

    fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        let (stopped, over) = (self.inner.stopped(), self.state.over.clone());
        Box::pin(async move { over.run_until_cancelled_owned(stopped).await.flatten() })
    }
}

impl<T: Abort> Drop for Half<T> {
    fn drop(&mut self) {
        if let Some(code) = self.local_code() {
            self.inner.abort(code);
        }
    }
}
