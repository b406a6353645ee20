//! The streams of a session: the QUIC stream itself, with its codes translated and its
//! life bound to the session's.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use alknet_core::{
    BoxFuture, Code, ConnectionError, RecvHalf, RecvStream, SendHalf, SendStream, Stream,
    StreamReset,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{codes, session::State};

/// Binds a bidirectional stream to a session.
pub(super) fn bind(stream: Stream, session: &Arc<State>) -> Stream {
    let (send, recv) = stream.split();
    Stream::new(bind_send(send, session), bind_recv(recv, session))
}

/// Binds a stream's sending half to a session.
pub(super) fn bind_send(send: SendStream, session: &Arc<State>) -> SendStream {
    let id = send.id();
    SendStream::new(Half::new(send, session), id)
}

/// Binds a stream's receiving half to a session.
pub(super) fn bind_recv(recv: RecvStream, session: &Arc<State>) -> RecvStream {
    let id = recv.id();
    RecvStream::new(Half::new(recv, session), id)
}

/// What a half is abandoned by: a reset of a sending one, a stop of a receiving one.
trait Abandon: Unpin {
    fn abandon(&mut self, wire: Code);
}

impl Abandon for SendStream {
    fn abandon(&mut self, wire: Code) {
        self.reset(wire);
    }
}

impl Abandon for RecvStream {
    fn abandon(&mut self, wire: Code) {
        self.stop(wire);
    }
}

/// One direction. It fails when the session is over, and a drop before its end abandons
/// it.
struct Half<T: Abandon> {
    inner: T,
    session: Arc<State>,
    /// Made when the half first waits for its peer: most halves of short streams never do.
    over: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

impl<T: Abandon> Half<T> {
    fn new(inner: T, session: &Arc<State>) -> Self {
        Self { inner, session: session.clone(), over: None, ended: false }
    }

    fn guarded<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut T, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if !self.session.is_over() {
            if let Poll::Ready(result) = poll(&mut self.inner, cx) {
                return Poll::Ready(result.map_err(translate));
            }
            let over = self.over.get_or_insert_with(|| Box::pin(self.session.over_owned()));
            ready!(over.as_mut().poll(cx));
        }
        self.abandon(codes::SESSION_GONE);
        let closed = ConnectionError::Closed(self.session.closed());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, closed)))
    }

    fn abandon(&mut self, wire: Code) {
        if !self.ended {
            self.ended = true;
            self.inner.abandon(wire);
        }
    }
}

impl<T: Abandon> Drop for Half<T> {
    fn drop(&mut self) {
        let gone = self.session.is_over();
        self.abandon(if gone { codes::SESSION_GONE } else { codes::to_wire(Code::CANCELLED) });
    }
}

/// The peer's reset in the session's own codes.
fn translate(error: io::Error) -> io::Error {
    StreamReset::code_of(&error).map_or(error, |wire| StreamReset(app_code(wire)).into())
}

/// A code that stands for none of the session's is what a peer sends that gave up a stream
/// without saying why.
fn app_code(wire: Code) -> Code {
    codes::from_wire(wire).unwrap_or(Code::CANCELLED)
}

impl SendHalf for Half<SendStream> {
    fn reset(&mut self, code: Code) {
        self.abandon(codes::to_wire(code));
    }

    fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        let stopped = self.inner.stopped();
        Box::pin(async move { stopped.await.map(app_code) })
    }
}

impl AsyncWrite for Half<SendStream> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.guarded(cx, |inner, cx| Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.guarded(cx, |inner, cx| Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.guarded(cx, |inner, cx| Pin::new(inner).poll_shutdown(cx)))?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf for Half<RecvStream> {
    fn stop(&mut self, code: Code) {
        self.abandon(codes::to_wire(code));
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        let chunk = ready!(self.guarded(cx, |inner, cx| inner.poll_chunk(cx, max)))?;
        self.ended |= chunk.is_none();
        Poll::Ready(Ok(chunk))
    }
}

impl AsyncRead for Half<RecvStream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        ready!(self.guarded(cx, |inner, cx| Pin::new(inner).poll_read(cx, buf)))?;
        self.ended |= room && buf.filled().len() == before;
        Poll::Ready(Ok(()))
    }
}
