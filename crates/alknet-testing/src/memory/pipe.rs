//! One direction of a stream: a bounded buffer with an end, a reset and a stop.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use alknet_core::{BoxFuture, Code, RecvHalf, SendHalf, StreamReset};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct Pipe {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    finished: bool,
    reset: Option<Code>,
    stopped: Option<Code>,
    aborted: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who waits for the reader to be done.
    watchers: Vec<Waker>,
}

impl State {
    fn wake(&mut self) {
        let halves = self.reader.take().into_iter().chain(self.writer.take());
        halves.chain(self.watchers.drain(..)).for_each(Waker::wake);
    }

    /// Whether there is nothing left that a reset could take back.
    fn all_read(&self) -> bool {
        self.finished && self.bytes.is_empty()
    }

    /// How the reader ended the stream, if it did.
    fn outcome(&self) -> Option<Option<Code>> {
        let over = self.all_read() || self.aborted || self.reset.is_some();
        if over || self.stopped.is_some() { Some(self.stopped) } else { None }
    }
}

pub(super) struct Send(Arc<Pipe>);
pub(super) struct Recv(Arc<Pipe>);

impl Pipe {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), capacity })
    }

    pub(super) fn halves(pipe: Arc<Self>) -> (Send, Recv) {
        (Send(pipe.clone()), Recv(pipe))
    }

    /// The connection is gone: both ends fail.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.aborted = true;
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl AsyncRead for Recv {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if let Some(code) = state.reset {
            return Poll::Ready(Err(StreamReset(code).into()));
        }
        if state.aborted {
            return Poll::Ready(Err(aborted()));
        }
        if state.bytes.is_empty() && !state.finished {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buf.remaining().min(state.bytes.len());
        let taken: Vec<u8> = state.bytes.drain(..count).collect();
        buf.put_slice(&taken);
        state.wake();
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf for Recv {
    fn stop(&mut self, code: Code) {
        let mut state = self.0.lock();
        if !state.finished {
            state.stopped.get_or_insert(code);
        }
        state.bytes.clear();
        state.wake();
    }
}

impl Drop for Recv {
    fn drop(&mut self) {
        self.stop(Code::CANCELLED);
    }
}

impl AsyncWrite for Send {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if let Some(code) = state.stopped {
            return Poll::Ready(Err(StreamReset(code).into()));
        }
        if state.aborted {
            return Poll::Ready(Err(aborted()));
        }
        if state.finished || state.reset.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = buf.len().min(self.0.capacity.saturating_sub(state.bytes.len()));
        if count == 0 && !buf.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.bytes.extend(buf.iter().take(count));
        state.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        state.finished = true;
        state.wake();
        Poll::Ready(Ok(()))
    }
}

impl SendHalf for Send {
    fn reset(&mut self, code: Code) {
        let mut state = self.0.lock();
        if !state.all_read() {
            state.reset.get_or_insert(code);
            state.bytes.clear();
        }
        state.wake();
    }

    fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        let pipe = self.0.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            let mut state = pipe.lock();
            if let Some(outcome) = state.outcome() {
                return Poll::Ready(outcome);
            }
            state.watchers.push(cx.waker().clone());
            Poll::Pending
        }))
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        let finished = self.0.lock().finished;
        if !finished {
            self.reset(Code::CANCELLED);
        }
    }
}
