//! A stream that knows whether its peer was heard of.
//!
//! A peer in the middle of a frame can send no pong (RFC 6455, section 5.4), so bytes are what
//! counts as a sign of life, not frames.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use alknet_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct Heard {
    stream: Stream,
    heard: bool,
}

impl Heard {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, heard: false }
    }

    /// Whether anything came since this was last asked.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard |= buf.filled().len() > before;
        poll
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
