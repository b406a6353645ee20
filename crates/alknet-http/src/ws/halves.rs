//! The two halves that the protocol uses.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use alknet_core::{BoxFuture, Code, RecvHalf, SendHalf};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;

/// The half that the protocol writes to.
pub(super) struct Sender(pub(super) Arc<Link>);

impl AsyncWrite for Sender {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.finish();
        self.0.poll_flush(cx)
    }
}

impl SendHalf for Sender {
    /// There is one stream, so abandoning it closes the WebSocket.
    fn reset(&mut self, code: Code) {
        self.0.reset(code);
    }

    fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        let link = self.0.clone();
        Box::pin(async move { link.over().await })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.sender_gone();
    }
}

/// The half that the protocol reads from.
pub(super) struct Receiver(pub(super) Arc<Link>);

impl AsyncRead for Receiver {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(chunk) = ready!(self.0.poll_chunk(cx, buf.remaining()))? {
            buf.put_slice(&chunk);
        }
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf for Receiver {
    fn stop(&mut self, _code: Code) {
        self.0.stop();
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        self.0.poll_chunk(cx, max)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.receiver_gone();
    }
}
