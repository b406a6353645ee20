//! What the two halves of a WebSocket and its driver share.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use alknet_core::{Code, StreamReset};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::close;

/// The most data in one message that is sent, and what waits for the driver, in bytes.
const CHUNK: usize = 64 * 1024;
/// With so many bytes, or so many messages, waiting to be read nothing more is received.
const READ_AHEAD: usize = 128 * 1024;
const READ_AHEAD_MESSAGES: usize = 8;

/// Why a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer closed it.
    Peer(Code),
    /// It is closed here with this close code: by reset, or for a fault of the peer.
    Local(u16),
    /// The peer is gone.
    Lost,
}

#[derive(Default)]
pub(super) struct Link {
    state: Mutex<State>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    driver: AtomicWaker,
    over: CancellationToken,
}

#[derive(Default)]
struct State {
    ended: Option<Ended>,
    outgoing: Outgoing,
    incoming: Incoming,
}

#[derive(Default)]
struct Outgoing {
    data: BytesMut,
    /// The stream was ended: no data may follow.
    finished: bool,
    /// The message that says so has yet to be sent.
    finish_due: bool,
    /// Something was queued since the transport was last flushed.
    unflushed: bool,
    gone: bool,
}

#[derive(Default)]
struct Incoming {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// The peer ended the stream.
    finished: bool,
    /// Nobody wants what still comes.
    stopped: bool,
    gone: bool,
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the WebSocket, unless it ended before, and wakes all who wait.
    pub(super) fn end(&self, ended: Ended) {
        self.state().ended.get_or_insert(ended);
        self.over.cancel();
        self.driver.wake();
        self.reader.wake();
        self.writer.wake();
    }
}

/// For the sending half.
impl Link {
    /// Waits until the WebSocket has ended, and nothing that is written arrives any more; the
    /// peer's code, if it closed it.
    pub(super) async fn over(&self) -> Option<Code> {
        self.over.cancelled().await;
        match self.state().ended {
            Some(Ended::Peer(code)) => Some(code),
            _ => None,
        }
    }

    /// Queues as much as there is room for.
    pub(super) fn poll_write(&self, cx: &Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.register(cx.waker());
        let mut state = self.state();
        if let Some(ended) = state.ended {
            return Poll::Ready(Err(ended.into()));
        }
        let out = &mut state.outgoing;
        if out.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = CHUNK.saturating_sub(out.data.len());
        if room == 0 {
            return Poll::Pending;
        }
        let data = data.get(..room).unwrap_or(data);
        out.data.extend_from_slice(data);
        out.unflushed = true;
        drop(state);
        self.driver.wake();
        Poll::Ready(Ok(data.len()))
    }

    /// Waits until the transport has taken everything.
    pub(super) fn poll_flush(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.writer.register(cx.waker());
        let state = self.state();
        match state.ended {
            _ if !state.outgoing.unflushed => Poll::Ready(Ok(())),
            Some(ended) => Poll::Ready(Err(ended.into())),
            None => Poll::Pending,
        }
    }

    /// Ends the stream behind what is queued.
    pub(super) fn finish(&self) {
        let out = &mut self.state().outgoing;
        if !mem::replace(&mut out.finished, true) {
            out.finish_due = true;
            out.unflushed = true;
            self.driver.wake();
        }
    }

    /// Drops what is queued and closes the WebSocket.
    pub(super) fn reset(&self, code: Code) {
        let mut state = self.state();
        state.outgoing.data.clear();
        state.outgoing.finish_due = false;
        drop(state);
        self.end(Ended::Local(close::to_wire(code)));
    }

    pub(super) fn sender_gone(&self) {
        let mut state = self.state();
        state.outgoing.gone = true;
        let finished = state.outgoing.finished;
        drop(state);
        if finished {
            self.driver.wake();
        } else {
            // As on any transport: a sender that is dropped unfinished cancels.
            self.end(Ended::Local(close::to_wire(Code::CANCELLED)));
        }
    }
}

/// For the receiving half.
impl Link {
    /// The next bytes, at most `max`; `None` at the end.
    pub(super) fn poll_chunk(
        &self,
        cx: &Context<'_>,
        max: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        self.reader.register(cx.waker());
        let mut state = self.state();
        let ended = state.ended;
        let incoming = &mut state.incoming;
        if incoming.stopped {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Some(chunk) = incoming.take(max) {
            drop(state);
            self.driver.wake();
            return Poll::Ready(Ok(Some(chunk)));
        }
        match ended {
            // A normal close is the end of the stream.
            Some(Ended::Peer(Code::NORMAL)) => Poll::Ready(Ok(None)),
            _ if incoming.finished => Poll::Ready(Ok(None)),
            Some(ended) => Poll::Ready(Err(ended.into())),
            None => Poll::Pending,
        }
    }

    /// A WebSocket cannot tell its peer to stop: what still comes is dropped.
    pub(super) fn stop(&self) {
        self.state().incoming.stop();
        self.driver.wake();
    }

    pub(super) fn receiver_gone(&self) {
        let incoming = &mut self.state().incoming;
        incoming.gone = true;
        incoming.stop();
        self.driver.wake();
    }
}

/// For the driver.
impl Link {
    /// Leaves the driver's waker for everything below.
    pub(super) fn register_driver(&self, cx: &Context<'_>) {
        self.driver.register(cx.waker());
    }

    /// How the WebSocket ended, if it did: normally, when both halves are dropped and all
    /// is sent.
    pub(super) fn ended(&self) -> Option<Ended> {
        let State { ended, outgoing, incoming } = &*self.state();
        let abandoned = outgoing.gone && incoming.gone && !outgoing.unflushed;
        ended.or_else(|| abandoned.then_some(Ended::Local(close::NORMAL)))
    }

    /// What is to be sent next.
    pub(super) fn next_message(&self) -> Option<Message> {
        let out = &mut self.state().outgoing;
        if out.data.is_empty() {
            let end = mem::take(&mut out.finish_due);
            return end.then(|| Message::Binary(Bytes::new()));
        }
        let data = out.data.split().freeze();
        self.writer.wake();
        Some(Message::Binary(data))
    }

    /// The transport has taken everything that the driver took.
    pub(super) fn flushed(&self) {
        let out = &mut self.state().outgoing;
        out.unflushed = out.finish_due || !out.data.is_empty();
        self.writer.wake();
    }

    /// Whether the receiving half has room for another message, or wants none.
    pub(super) fn is_receiving(&self) -> bool {
        let incoming = &self.state().incoming;
        incoming.bytes < READ_AHEAD && incoming.queue.len() < READ_AHEAD_MESSAGES
    }

    /// Hands a message to the receiving half; an empty one is the end. False if the end
    /// came before.
    pub(super) fn deliver(&self, data: Bytes) -> bool {
        let incoming = &mut self.state().incoming;
        if incoming.finished {
            return false;
        }
        if data.is_empty() {
            incoming.finished = true;
        } else if !incoming.stopped {
            incoming.bytes += data.len();
            incoming.queue.push_back(data);
        }
        self.reader.wake();
        true
    }
}

impl Incoming {
    fn take(&mut self, max: usize) -> Option<Bytes> {
        let first = self.queue.front_mut()?;
        let chunk = first.split_to(max.min(first.len()));
        if !first.has_remaining() {
            self.queue.pop_front();
        }
        self.bytes -= chunk.len();
        Some(chunk)
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.queue.clear();
        self.bytes = 0;
    }
}

/// The error of a half that is used after the end.
impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Peer(code) => StreamReset(code).into(),
            Ended::Local(_) => io::ErrorKind::ConnectionAborted.into(),
            Ended::Lost => io::ErrorKind::ConnectionReset.into(),
        }
    }
}
