//! The stream under HTTP/1.1.
//!
//! hyper waits for ever for a peer that does not read, and answers what it cannot parse by
//! itself, in its own words. This is where both are dealt with. An answer of hyper's own
//! never has the `Server` field that all of ours have, and leaves in one write.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use alknet_core::Stream;
use bytes::{Buf as _, Bytes};
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::decoy::closing_page;

/// How long a peer may take nothing of what is sent: nginx's `send_timeout`.
const SEND: Duration = Duration::from_secs(60);

/// How hyper's own answers go on after the status line, and how long that is in all.
const FIELDS: &[u8] = b"\r\nConnection: close\r\nContent-Length: 0\r\nDate: ";
const AFTER_STATUS: usize = FIELDS.len() + "Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n".len();

/// A stream while HTTP/1.1 is spoken on it.
pub(crate) struct Wire {
    stream: Stream,
    cover: bool,
    /// The page that is being sent instead of what hyper wrote.
    page: Option<Bytes>,
    /// Whether `stall` runs: only while the peer is waited for.
    stalled: bool,
    stall: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// Under cover, hyper's own answers are put into nginx's words.
    pub(crate) fn new(stream: Stream, cover: bool) -> Self {
        Self { stream, cover, page: None, stalled: false, stall: None }
    }

    /// The stream itself, for when HTTP is over.
    pub(crate) fn into_inner(self) -> Stream {
        self.stream
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.cover && self.page.is_none() {
            self.page = own_answer(data).map(closing_page);
        }
        let Some(page) = &mut self.page else {
            return Pin::new(&mut self.stream).poll_write(cx, data);
        };
        while page.has_remaining() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, page))?;
            page.advance(sent);
        }
        self.page = None;
        Poll::Ready(Ok(data.len()))
    }

    /// Fails when the peer keeps `poll` waiting for too long.
    fn within_deadline<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = false;
            return poll;
        }
        let began = !std::mem::replace(&mut self.stalled, true);
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(SEND)));
        if began {
            stall.as_mut().reset(Instant::now() + SEND);
        }
        stall.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The status of an answer that hyper made by itself.
fn own_answer(written: &[u8]) -> Option<StatusCode> {
    let (status_line, rest) = written.split_at_checked(written.len().checked_sub(AFTER_STATUS)?)?;
    let status = status_line.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let own = rest.starts_with(FIELDS) && !status_line.contains(&b'\r');
    StatusCode::from_bytes(status).ok().filter(|_| own)
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = self.poll_send(cx, data);
        self.within_deadline(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.within_deadline(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.within_deadline(cx, poll)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}
