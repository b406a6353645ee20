//! Byte streams: what every protocol implementation consumes.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{BoxFuture, Code, connection::Permit};

/// A reliable, ordered stream of bytes in both directions.
///
/// Every type with the right shape is one: a [`Stream`], a TCP or Unix socket, an
/// in-memory pipe, a browser's WebTransport stream. `poll_shutdown` ends the sending
/// direction and leaves the receiving one open.
pub trait BiStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> BiStream for T {}

/// The sending half of a stream. `poll_shutdown` finishes it; a drop without it resets it
/// with [`Code::CANCELLED`] where the transport can.
pub trait SendHalf: AsyncWrite + Send + Unpin {
    /// Abandons what is not sent yet and tells the peer `code`.
    fn reset(&mut self, code: Code);

    /// See [`SendStream::stopped`].
    fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        Box::pin(std::future::pending())
    }
}

/// The receiving half of a stream.
pub trait RecvHalf: AsyncRead + Send + Unpin {
    /// Tells the peer to stop sending, with `code`; what has arrived is dropped.
    fn stop(&mut self, code: Code);

    /// The next bytes without a copy where the transport can, at most `max` of them;
    /// `None` at the end. Cancel safe: no bytes are lost when the caller stops polling.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        let mut space = vec![0; max.min(16 * 1024)];
        let mut buf = ReadBuf::new(&mut space);
        std::task::ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        let len = buf.filled().len();
        space.truncate(len);
        Poll::Ready(Ok((len > 0).then(|| space.into())))
    }
}

/// The peer ended a stream with a code instead of finishing it: the source of the
/// [`io::Error`] that reads and writes then return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer reset the stream: {0}")]
pub struct StreamReset(pub Code);

impl StreamReset {
    /// The code inside an error that a stream returned, if the peer sent one.
    pub fn code_of(error: &io::Error) -> Option<Code> {
        error.get_ref()?.downcast_ref::<Self>().map(|reset| reset.0)
    }
}

impl From<StreamReset> for io::Error {
    fn from(reset: StreamReset) -> Self {
        Self::new(io::ErrorKind::ConnectionReset, reset)
    }
}

/// One bidirectional stream of a [`Connection`](crate::Connection).
pub struct Stream {
    send: SendStream,
    recv: RecvStream,
}

impl Stream {
    /// Joins two halves.
    pub fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv }
    }

    /// A stream over any byte stream that has no codes of its own (TLS, a pipe): `reset`
    /// and `stop` then just end it.
    pub fn from_bistream(stream: impl BiStream + 'static) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            send: SendStream::new(Plain(Some(write)), None),
            recv: RecvStream::new(Plain(Some(read)), None),
        }
    }

    /// The same stream, counted until both its directions are dropped.
    pub(crate) fn counted(mut self, permit: Permit) -> Self {
        let permit = Arc::new(permit);
        self.send.permit = Some(permit.clone());
        self.recv.permit = Some(permit);
        self
    }

    /// The two directions, to be used independently.
    pub fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }

    /// Abandons both directions with `code`.
    pub fn reset(&mut self, code: Code) {
        self.send.reset(code);
        self.recv.stop(code);
    }

    /// See [`SendStream::stopped`].
    pub fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        self.send.stopped()
    }

    /// The transport's number of this stream, where it has one (QUIC).
    pub fn id(&self) -> Option<u64> {
        self.send.id
    }
}

/// The sending half of a [`Stream`], or a unidirectional stream.
pub struct SendStream {
    inner: Box<dyn SendHalf>,
    id: Option<u64>,
    permit: Option<Arc<Permit>>,
}

impl SendStream {
    /// Wraps a transport's half; `id` is the transport's number of the stream.
    pub fn new(half: impl SendHalf + 'static, id: Option<u64>) -> Self {
        Self { inner: Box::new(half), id, permit: None }
    }

    /// Abandons what is not sent yet and tells the peer `code`.
    pub fn reset(&mut self, code: Code) {
        self.inner.reset(code);
    }

    /// Waits until the peer stops the stream, with its code, or, with `None`, until all of
    /// a finished one has arrived or it is over otherwise. Waits for ever on a transport
    /// that cannot tell. The future is independent of the stream.
    pub fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        self.inner.stopped()
    }

    /// The transport's number of this stream, where it has one (QUIC).
    pub fn id(&self) -> Option<u64> {
        self.id
    }
}

/// The receiving half of a [`Stream`], or a unidirectional stream.
pub struct RecvStream {
    inner: Box<dyn RecvHalf>,
    id: Option<u64>,
    permit: Option<Arc<Permit>>,
}

impl RecvStream {
    /// Wraps a transport's half; `id` is the transport's number of the stream.
    pub fn new(half: impl RecvHalf + 'static, id: Option<u64>) -> Self {
        Self { inner: Box::new(half), id, permit: None }
    }

    /// Tells the peer to stop sending, with `code`.
    pub fn stop(&mut self, code: Code) {
        self.inner.stop(code);
    }

    /// The transport's number of this stream, where it has one (QUIC).
    pub fn id(&self) -> Option<u64> {
        self.id
    }

    /// The next bytes, at most `max`, `None` at the end. Cancel safe.
    pub async fn chunk(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, max)).await
    }

    /// See [`RecvHalf::poll_chunk`].
    pub fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        self.inner.poll_chunk(cx, max)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendStream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvStream").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A half of a stream without codes: resetting it drops it.
struct Plain<T>(Option<T>);

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl<T: AsyncWrite + Send + Unpin> SendHalf for Plain<T> {
    fn reset(&mut self, _code: Code) {
        self.0 = None;
    }
}

impl<T: AsyncRead + Send + Unpin> RecvHalf for Plain<T> {
    fn stop(&mut self, _code: Code) {
        self.0 = None;
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Plain<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_read(cx, buf),
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Plain<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_write(cx, buf),
            None => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_flush(cx),
            None => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(half) => Pin::new(half).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
