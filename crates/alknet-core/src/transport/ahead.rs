//! Reading ahead of TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// The least that is asked of the system at once, and the most: what suffices for a quiet
/// connection, and several records of a busy one.
const LEAST: usize = 4 * 1024;
const MOST: usize = 64 * 1024;

/// Takes from a socket as much as there is. rustls asks for 4 KiB at a time, a quarter of a
/// record. The buffer grows while the socket fills it, and shrinks when little arrives.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    pub(super) stream: S,
    buffer: BytesMut,
    ask: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new(), ask: LEAST }
    }

    /// Follows what the last read got.
    fn adapt(&mut self, len: usize) {
        if len >= self.ask {
            self.ask = (self.ask * 4).min(MOST);
        } else if len < LEAST && self.ask > LEAST {
            self.ask = LEAST;
            self.buffer = BytesMut::from(&*self.buffer);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.buffer.is_empty() {
            this.buffer.clear();
            this.buffer.reserve(this.ask);
            let len = ready!(poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.buffer))?;
            this.adapt(len);
        }
        let len = this.buffer.len().min(buf.remaining());
        buf.put_slice(this.buffer.get(..len).unwrap_or_default());
        this.buffer.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What rustls asks for.
    const ASKED: usize = 4096;

    #[tokio::test]
    async fn a_busy_socket_is_asked_for_more_and_a_quiet_one_for_less() {
        let (near, mut far) = duplex(1 << 20);
        let mut ahead = ReadAhead::new(near);
        let bytes = Vec::from_iter((0..500_000_usize).map(|at| at.to_le_bytes()[0]));
        far.write_all(&bytes).await.unwrap();
        let mut received = Vec::new();
        let mut most = 0;
        while received.len() < bytes.len() {
            let mut piece = [0; ASKED];
            let len = ahead.read(&mut piece).await.unwrap();
            received.extend_from_slice(&piece[..len]);
            most = most.max(ahead.ask);
        }
        assert!(received == bytes);
        assert_eq!(most, MOST);

        far.write_all(b"a key press").await.unwrap();
        ahead.read_exact(&mut [0; 11]).await.unwrap();
        assert_eq!(ahead.ask, LEAST);
        assert!(ahead.buffer.capacity() <= LEAST);
    }

    #[tokio::test]
    async fn the_end_of_the_socket_comes_after_what_was_read_ahead() {
        let (near, mut far) = duplex(1 << 20);
        far.write_all(&[1; 3000]).await.unwrap();
        drop(far);
        let mut ahead = ReadAhead::new(near);
        let mut received = Vec::new();
        assert_eq!(ahead.read(&mut [0; 1]).await.unwrap(), 1);
        assert_eq!(ahead.read_to_end(&mut received).await.unwrap(), 2999);
    }
}
