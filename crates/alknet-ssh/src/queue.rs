//! A stream whose writes never wait.
//!
//! The SSH session loop neither reads nor serves its channels while a write waits. When
//! both ends are such loops and the pipe between them is small, each waits for the other to
//! read, for ever. A [`QueuedWriter`] takes every write at once and leaves the waiting to a
//! [`Drain`]. What is little and has nothing before it goes to the stream at once, without the
//! other task; bulk does not, so that what the stream does with it is done beside the session.
//!
//! What it holds stays small because the producers of bulk data ask [`Backlog::ready`]
//! first. The limit is for what nobody asks for, such as answers to a peer that sends
//! requests and never reads: beyond it the stream ends.

use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// From here on producers wait: enough to keep any transport busy between two turns of a
/// task, too little to delay what an interactive user types by much.
const HIGH: usize = 1024 * 1024;
/// The most that goes to the stream without a turn of the [`Drain`].
const LITTLE: usize = 4 * 1024;
/// Buffers larger than this are given back once they are empty.
const KEEP: usize = 256 * 1024;

/// The stream: reads go straight through, writes go into the queue.
///
/// `poll_flush` does nothing: what was written is on its way. `poll_shutdown` waits until
/// all of it is written and the sending direction is closed. Dropping the stream begins a
/// shutdown too, so that the last words of a session that fails get out.
pub(crate) struct QueuedWriter<R, W> {
    read: R,
    write: Shared<W>,
    queue: Arc<Queue>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Writes what is queued; it has to run for as long as the stream is used. When it is
/// dropped, the stream ends.
pub(crate) struct Drain<W> {
    write: Shared<W>,
    guard: EndOnDrop,
}

/// The sending half, until the [`Drain`] is gone.
struct Shared<W>(Arc<Mutex<Option<W>>>);

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: AsyncWrite + Unpin> Shared<W> {
    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut W>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut write = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match write.as_mut() {
            Some(write) => poll(Pin::new(write)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

/// What others see of the queue.
#[derive(Clone)]
pub(crate) struct Backlog(Arc<Queue>);

struct Queue {
    state: Mutex<State>,
    /// Told when the level has fallen below [`HIGH`] and when the stream has ended.
    eased: Notify,
    closing: CancellationToken,
    ended: CancellationToken,
    limit: usize,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// What was written by now may still have to be flushed.
    unflushed: bool,
    /// The drain has something in hand: only one waits for the stream.
    draining: bool,
    /// How much of the batch in the writer's hands is still to be written.
    writing: usize,
    closing: bool,
    closed: bool,
    failure: Option<io::ErrorKind>,
    writer: Option<Waker>,
    closer: Option<Waker>,
}

/// Splits the two halves of a transport's stream into a stream that never waits with its
/// writes, the future that does the writing, and a view of what is queued. More than
/// `limit` bytes in the queue end the stream with [`io::ErrorKind::OutOfMemory`].
pub(crate) fn queued<R, W>(
    read: R,
    write: W,
    limit: usize,
) -> (QueuedWriter<R, W>, Drain<W>, Backlog) {
    let queue = Arc::new(Queue {
        state: Mutex::default(),
        eased: Notify::new(),
        closing: CancellationToken::new(),
        ended: CancellationToken::new(),
        limit,
    });
    let ended = Box::pin(queue.ended.clone().cancelled_owned());
    let write = Shared(Arc::new(Mutex::new(Some(write))));
    let stream = QueuedWriter { read, write: write.clone(), queue: queue.clone(), ended };
    (stream, Drain { write, guard: EndOnDrop(queue.clone()) }, Backlog(queue))
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the stream: everything queued is dropped, every call fails from now on.
    fn end(&self, kind: io::ErrorKind) {
        let mut state = self.state();
        if state.failure.is_some() {
            return;
        }
        state.failure = Some(kind);
        state.pending = Vec::new();
        state.writing = 0;
        wake(&mut state.writer);
        wake(&mut state.closer);
        drop(state);
        self.ended.cancel();
        self.eased.notify_waiters();
    }

    fn push(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if let Some(kind) = state.failure {
            return Err(kind.into());
        }
        if state.closing {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.level() + bytes.len() > self.limit {
            drop(state);
            self.end(io::ErrorKind::OutOfMemory);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        state.pending.extend_from_slice(bytes);
        wake(&mut state.writer);
        Ok(bytes.len())
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        if let Some(kind) = state.failure {
            return Poll::Ready(Err(kind.into()));
        }
        if state.closed {
            return Poll::Ready(Ok(()));
        }
        state.closer = Some(cx.waker().clone());
        drop(state);
        self.close();
        Poll::Pending
    }

    /// Begins the shutdown.
    fn close(&self) {
        let mut state = self.state();
        if !mem::replace(&mut state.closing, true) {
            wake(&mut state.writer);
            drop(state);
            self.closing.cancel();
        }
    }

    /// Whether nothing is before what is written now, and nobody but the caller writes.
    fn is_idle(&self) -> bool {
        let state = self.state();
        let open = state.failure.is_none() && !state.closing;
        open && state.level() == 0 && !state.unflushed && !state.draining
    }

    /// Has the drain flush.
    fn flush_later(&self) {
        let mut state = self.state();
        state.unflushed = true;
        wake(&mut state.writer);
    }

    /// Swaps everything queued into `batch`, which is empty; `false` when there will be
    /// nothing more.
    fn poll_batch(&self, cx: &mut Context<'_>, batch: &mut Vec<u8>) -> Poll<io::Result<bool>> {
        let mut state = self.state();
        state.draining = false;
        if let Some(kind) = state.failure {
            return Poll::Ready(Err(kind.into()));
        }
        if !state.pending.is_empty() || state.unflushed {
            (state.unflushed, state.draining) = (false, true);
            mem::swap(&mut state.pending, batch);
            state.writing = batch.len();
            return Poll::Ready(Ok(true));
        }
        if state.closing {
            return Poll::Ready(Ok(false));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wrote(&self, len: usize) {
        let mut state = self.state();
        let before = state.level();
        state.writing = state.writing.saturating_sub(len);
        if before >= HIGH && state.level() < HIGH {
            drop(state);
            self.eased.notify_waiters();
        }
    }

    fn is_easy(&self) -> bool {
        let state = self.state();
        state.failure.is_some() || state.level() < HIGH
    }

    fn closed(&self) {
        let mut state = self.state();
        state.closed = true;
        wake(&mut state.closer);
    }
}

impl State {
    fn level(&self) -> usize {
        self.pending.len() + self.writing
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Backlog {
    /// Waits while much is queued; returns also when the stream has ended. Cancel safe.
    pub(crate) async fn ready(&self) {
        loop {
            let eased = self.0.eased.notified();
            tokio::pin!(eased);
            eased.as_mut().enable();
            if self.0.is_easy() {
                return;
            }
            eased.await;
        }
    }

    /// Whether [`ready`](Self::ready) would return at once.
    pub(crate) fn is_easy(&self) -> bool {
        self.0.is_easy()
    }

    /// Waits until the stream is being shut down.
    pub(crate) async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// Ends the stream: reads and writes fail, what is queued is dropped.
    pub(crate) fn end(&self, kind: io::ErrorKind) {
        self.0.end(kind);
    }
}

struct EndOnDrop(Arc<Queue>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if !self.0.state().closed {
            self.0.end(io::ErrorKind::ConnectionAborted);
        }
    }
}

impl<R, W> Drop for QueuedWriter<R, W> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<W> Drop for Drain<W> {
    fn drop(&mut self) {
        *self.write.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<W: AsyncWrite + Unpin> Drain<W> {
    /// Writes until the stream is shut down or fails.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let queue = self.guard.0.clone();
        let result = self.write_all(&queue).await;
        match &result {
            Ok(()) => queue.closed(),
            Err(error) => queue.end(error.kind()),
        }
        result
    }

    async fn write_all(&mut self, queue: &Queue) -> io::Result<()> {
        let mut batch = Vec::new();
        while poll_fn(|cx| queue.poll_batch(cx, &mut batch)).await? {
            let mut rest = batch.as_slice();
            while !rest.is_empty() {
                let len = self.poll(|write, cx| write.poll_write(cx, rest)).await?;
                rest = rest.get(len..).filter(|_| len > 0).ok_or(io::ErrorKind::WriteZero)?;
                queue.wrote(len);
            }
            self.poll(AsyncWrite::poll_flush).await?;
            batch.clear();
            batch.shrink_to(KEEP);
        }
        self.poll(AsyncWrite::poll_shutdown).await
    }

    async fn poll<T>(
        &self,
        mut poll: impl FnMut(Pin<&mut W>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        poll_fn(|cx| self.write.poll(|write| poll(write, cx))).await
    }
}

impl<R, W: AsyncWrite + Unpin> QueuedWriter<R, W> {
    /// Writes what the stream takes at once, and has it on its way; how much that is. What
    /// fails here fails in the drain as well.
    fn write_at_once(&self, bytes: &[u8], cx: &mut Context<'_>) -> usize {
        let Poll::Ready(Ok(len)) = self.write.poll(|write| write.poll_write(cx, bytes)) else {
            return 0;
        };
        if len == bytes.len() && !self.write.poll(|write| write.poll_flush(cx)).is_ready() {
            self.queue.flush_later();
        }
        len
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for QueuedWriter<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.queue.ended.is_cancelled() {
            let kind = self.queue.state().failure.unwrap_or(io::ErrorKind::ConnectionAborted);
            return Poll::Ready(Err(kind.into()));
        }
        if let Poll::Ready(result) = Pin::new(&mut self.read).poll_read(cx, buf) {
            return Poll::Ready(result);
        }
        self.ended.as_mut().poll(cx).map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for QueuedWriter<R, W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let little = bytes.len() <= LITTLE && self.queue.is_idle();
        let written = if little { self.write_at_once(bytes, cx) } else { 0 };
        match bytes.get(written..) {
            Some(rest) if !rest.is_empty() => {
                Poll::Ready(self.queue.push(rest).map(|len| written + len))
            }
            _ => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let failure = self.queue.state().failure;
        Poll::Ready(failure.map_or(Ok(()), |kind| Err(kind.into())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.poll_closed(cx)
    }
}

#[cfg(test)]
mod tests;
