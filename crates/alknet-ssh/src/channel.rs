//! A channel as a [`Stream`].

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use alknet_core::{BoxFuture, Code, RecvHalf, RecvStream, SendHalf, SendStream, Stream};
use bytes::Bytes;
use russh::{Channel, ChannelMsg, ChannelReadHalf, server::Msg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::queue::Backlog;

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// A channel in parts.
pub(crate) struct Parts {
    pub(crate) stream: Stream,
    /// What the client shows as an error. Its end is told to nobody.
    pub(crate) stderr: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) finished: Finished,
}

/// Takes a channel apart.
pub(crate) fn parts(channel: Channel<Msg>, backlog: Backlog) -> Parts {
    let (read, write) = channel.split();
    let finished = Finished::default();
    let errors = Sender {
        write: Some(Box::pin(write.make_writer_ext(Some(STDERR)))),
        // It is not theirs to tell.
        finished: Finished::told(),
        backlog: backlog.clone(),
        easing: None,
    };
    let send = Sender {
        write: Some(Box::pin(write.make_writer())),
        finished: finished.clone(),
        backlog,
        easing: None,
    };
    let recv = Receiver { read: Some(read), chunk: Bytes::new() };
    let stream = Stream::new(SendStream::new(send, None), RecvStream::new(recv, None));
    Parts { stream, stderr: Box::new(errors), finished }
}

/// Whether the client has been told that nothing more comes. That is told once.
#[derive(Clone, Default)]
pub(crate) struct Finished(Arc<AtomicBool>);

impl Finished {
    fn told() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sends data on a channel, as fast as its window and the transport take it.
struct Sender {
    write: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    finished: Finished,
    backlog: Backlog,
    /// Waits until less is queued for the transport.
    easing: Option<BoxFuture<'static, ()>>,
}

impl Sender {
    fn poll_easy(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.easing.is_none() && self.backlog.is_easy() {
            return Poll::Ready(());
        }
        let backlog = self.backlog.clone();
        let easing =
            self.easing.get_or_insert_with(|| Box::pin(async move { backlog.ready().await }));
        ready!(easing.as_mut().poll(cx));
        self.easing = None;
        Poll::Ready(())
    }

    fn open(&mut self) -> io::Result<Pin<&mut (dyn AsyncWrite + Send)>> {
        let open = self.write.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(open.as_mut())
    }
}

impl SendHalf for Sender {
    fn reset(&mut self, _code: Code) {
        self.write = None;
    }
}

impl AsyncWrite for Sender {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_easy(cx));
        self.open()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished.is_set() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.open()?.poll_shutdown(cx))?;
        self.finished.0.store(true, Ordering::Relaxed);
        self.write = None;
        Poll::Ready(Ok(()))
    }
}

/// What the client sends on a channel, without a copy.
struct Receiver {
    /// Until the client's end or ours.
    read: Option<ChannelReadHalf>,
    chunk: Bytes,
}

impl Receiver {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.chunk.is_empty()
            && let Some(read) = &mut self.read
        {
            // It keeps no state of its own between two polls.
            let message = {
                let wait = pin!(read.wait());
                ready!(wait.poll(cx))
            };
            match message {
                Some(ChannelMsg::Data { data }) => self.chunk = data,
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => self.read = None,
                Some(_) => {}
            }
        }
        Poll::Ready(())
    }
}

impl RecvHalf for Receiver {
    fn stop(&mut self, _code: Code) {
        self.read = None;
        self.chunk = Bytes::new();
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        ready!(self.poll_fill(cx));
        let len = self.chunk.len().min(max);
        Poll::Ready(Ok((len > 0).then(|| self.chunk.split_to(len))))
    }
}

impl AsyncRead for Receiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(cx));
        let len = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk.split_to(len));
        Poll::Ready(Ok(()))
    }
}
