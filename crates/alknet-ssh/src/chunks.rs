//! Reading a stream by chunks.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use alknet_core::RecvStream;
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

/// The most that is taken from the transport at once.
const CHUNK: usize = 64 * 1024;

/// Serves the many small reads of the SSH packet parser from the chunks in which the
/// transport has the bytes, without a copy in between.
pub(crate) struct Chunks {
    stream: RecvStream,
    chunk: Bytes,
}

impl Chunks {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, chunk: Bytes::new() }
    }
}

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            match ready!(self.stream.poll_chunk(cx, CHUNK))? {
                Some(chunk) => self.chunk = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk.split_to(len));
        Poll::Ready(Ok(()))
    }
}
