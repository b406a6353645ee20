//! The stream under HTTP/2.
//!
//! An answer to a request whose body nobody reads ends with `RST_STREAM` (RFC 9113, section
//! 8.1). h2 puts it into one write with the answer, and a client that learns of both at once
//! may take the request for failed: curl 7.88 does. nginx sends it in a write, and so a TLS
//! record, of its own, and so does this.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use alknet_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long the head of a frame is (RFC 9113, section 4.1).
const HEAD: usize = 9;
/// The type of `RST_STREAM`.
const RESET: u8 = 3;

/// A stream while a server speaks HTTP/2 on it, which sends nothing but frames.
pub(crate) struct Frames {
    stream: Stream,
    /// How many bytes are to be sent before the next frame begins.
    ahead: usize,
}

impl Frames {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, ahead: 0 }
    }

    /// How much of `data` goes out at once: all before the first reset that does not come
    /// first.
    fn piece(&self, data: &[u8]) -> usize {
        let mut at = self.ahead;
        while let Some((kind, end)) = frame(data, at) {
            if kind == RESET && at > 0 {
                return at;
            }
            at = end;
        }
        data.len()
    }

    /// Goes on by the first `count` bytes of `data`.
    fn sent(&mut self, data: &[u8], count: usize) {
        let mut at = self.ahead;
        while at < count {
            // h2 never leaves a head in two buffers. Should it, nothing is held apart again.
            at = frame(data, at).map_or(usize::MAX, |(_, end)| end);
        }
        self.ahead = at - count;
    }
}

/// The type of the frame whose head begins there, and where the frame ends.
fn frame(data: &[u8], at: usize) -> Option<(u8, usize)> {
    let payload = at.checked_add(HEAD)?;
    let [high, middle, low, kind, ..] = *data.get(at..payload)? else { return None };
    let length = u32::from_be_bytes([0, high, middle, low]);
    Some((kind, payload.saturating_add(usize::try_from(length).ok()?)))
}

impl AsyncWrite for Frames {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let piece = data.get(..self.piece(data)).unwrap_or(data);
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, piece))?;
        self.sent(data, count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Frames {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const DATA: u8 = 0;

    fn bytes(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 1, 0, 0, 0, 1];
        bytes.resize(HEAD + usize::from(length), b'x');
        bytes
    }

    /// The pieces in which `data` leaves, if the peer takes `room` bytes at once.
    async fn pieces(data: &[u8], room: usize) -> Vec<usize> {
        let (near, mut far): (DuplexStream, _) = tokio::io::duplex(room);
        let mut frames = Frames::new(Stream::from_bistream(near));
        let (mut pieces, mut heard) = (Vec::new(), Vec::new());
        let mut left = data;
        while !left.is_empty() {
            let count = frames.write(left).await.unwrap();
            pieces.push(count);
            left = &left[count..];
            let mut piece = vec![0; count];
            far.read_exact(&mut piece).await.unwrap();
            heard.extend(piece);
        }
        assert_eq!(heard, data);
        pieces
    }

    #[tokio::test]
    async fn a_reset_leaves_by_itself() {
        let answer = [bytes(1, 40), bytes(DATA, 100)].concat();
        let reset = bytes(RESET, 4);
        let both = [answer.clone(), reset.clone()].concat();
        let whole = 1 << 16;
        assert_eq!(pieces(&answer, whole).await, [158]);
        assert_eq!(pieces(&both, whole).await, [158, 13]);
        assert_eq!(pieces(&[both.clone(), both].concat(), whole).await, [158, 171, 13]);
        assert_eq!(pieces(&[reset, answer].concat(), whole).await, [171]);
    }

    #[tokio::test]
    async fn frames_are_followed_through_writes_of_any_length() {
        let both = [bytes(1, 40), bytes(DATA, 100), bytes(RESET, 4)].concat();
        for room in 1..both.len() {
            let pieces = pieces(&both, room).await;
            let mut ends = pieces.iter().scan(0, |at, piece| {
                *at += piece;
                Some(*at)
            });
            assert!(ends.any(|end| end == 158), "{room}: {pieces:?}");
        }
    }

    #[tokio::test]
    async fn a_payload_that_looks_like_a_reset_is_none() {
        let mut data = bytes(DATA, 60);
        data.splice(20..33, bytes(RESET, 4));
        assert_eq!(pieces(&data, 1 << 16).await, [69]);
    }
}
