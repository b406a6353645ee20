//! The stream that the SSH session sees: two queues, whose other ends the pumps hold.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
};

/// Chunks that wait to be read. A full queue makes the pump stop reading the transport.
const INCOMING: usize = 4;

/// Bytes that wait to be sent, before the session ends with an error. The SSH windows keep
/// channel data well below it; a peer that asks for answers and never reads reaches it.
const OUTGOING: usize = 16 * 1024 * 1024;

/// Small messages are put together up to about this many bytes for one write.
const BATCH: usize = 64 * 1024;

/// An in-memory byte stream whose writes are always accepted.
///
/// The SSH session's loop does not read while a write blocks. If both ends of a connection
/// do that, they can wait for each other for ever; a write that only queues rules it out.
#[derive(Debug)]
pub(crate) struct Pipe {
    incoming: mpsc::Receiver<Bytes>,
    rest: Bytes,
    outgoing: Option<mpsc::UnboundedSender<Bytes>>,
    queued: Arc<AtomicUsize>,
    flushed: Option<oneshot::Receiver<()>>,
}

/// Where a pump puts what the transport received. Dropping it is the end of the stream.
pub(crate) type Inlet = mpsc::Sender<Bytes>;

/// Where a pump takes what the transport shall send. Dropping it makes writes fail.
#[derive(Debug)]
pub(crate) struct Outlet {
    outgoing: mpsc::UnboundedReceiver<Bytes>,
    queued: Arc<AtomicUsize>,
    flushed: oneshot::Sender<()>,
}

impl Pipe {
    pub(crate) fn new() -> (Self, Inlet, Outlet) {
        let (inlet, incoming) = mpsc::channel(INCOMING);
        let (outgoing, outlet) = mpsc::unbounded_channel();
        let (done, flushed) = oneshot::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let pipe = Self {
            incoming,
            rest: Bytes::new(),
            outgoing: Some(outgoing),
            queued: Arc::clone(&queued),
            flushed: Some(flushed),
        };
        (pipe, inlet, Outlet { outgoing: outlet, queued, flushed: done })
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.incoming.poll_recv(cx)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(outgoing) = &self.outgoing else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if self.queued.fetch_add(data.len(), Ordering::Relaxed) + data.len() > OUTGOING {
            return Poll::Ready(Err(io::Error::other("the peer does not read")));
        }
        match outgoing.send(Bytes::copy_from_slice(data)) {
            Ok(()) => Poll::Ready(Ok(data.len())),
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the stream and waits until the pump has sent everything, or has given up.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing = None;
        if let Some(flushed) = &mut self.flushed {
            let _ = ready!(Pin::new(flushed).poll(cx));
            self.flushed = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl Outlet {
    /// The next bytes to send, as many as wait, up to [`BATCH`]; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let first = self.outgoing.recv().await?;
        let batch = self.merge(first);
        self.queued.fetch_sub(batch.len(), Ordering::Relaxed);
        Some(batch)
    }

    /// Everything is with the transport: lets a waiting shutdown go on.
    pub(crate) fn finished(self) {
        let _ = self.flushed.send(());
    }

    fn merge(&mut self, first: Bytes) -> Bytes {
        if self.outgoing.is_empty() {
            return first;
        }
        let mut batch = BytesMut::from(first);
        while batch.len() < BATCH {
            match self.outgoing.try_recv() {
                Ok(more) => batch.extend_from_slice(&more),
                Err(_) => break,
            }
        }
        batch.freeze()
    }
}

#[cfg(test)]
mod tests;
