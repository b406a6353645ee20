//! What the two halves of a WebSocket and its driver share.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use alknet_core::{Code, StreamReset};
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::{Ended, close, frame::Opcode, inbound::Inbound, outbound::Outbound};

/// Who waits for the transport to take more.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waiting {
    Data,
    Control,
}

/// The transport remembers one waker for writes, and two tasks write: both are woken.
#[derive(Default)]
struct Writers {
    data: AtomicWaker,
    control: AtomicWaker,
}

impl Wake for Writers {
    fn wake(self: Arc<Self>) {
        self.data.wake();
        self.control.wake();
    }
}

pub(super) struct Shared {
    outbound: Mutex<Outbound>,
    writers: Arc<Writers>,
    reader: AtomicWaker,
    state: Mutex<State>,
    /// Tells the driver to look at `state` and the queue.
    pub(super) changed: Notify,
    /// Anything arrived since this was last looked at.
    pub(super) heard: AtomicBool,
    /// The receiving half is waiting for bytes, so silence is the peer's.
    pub(super) listening: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    /// How it ended, from when that is known.
    ended: Option<Ended>,
    /// The close frame that is due.
    pub(super) close: Option<u16>,
    sender_gone: bool,
    /// What the receiving half gave back: at the end of the stream, or when dropped.
    pub(super) returned: Option<Inbound>,
    receiver_gone: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(outbound: Outbound) -> Self {
        Self {
            outbound: Mutex::new(outbound),
            writers: Arc::default(),
            reader: AtomicWaker::new(),
            state: Mutex::default(),
            changed: Notify::new(),
            heard: AtomicBool::new(false),
            listening: AtomicBool::new(false),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Lets `act` at the outbound queue; whoever waits is woken when there is room.
    pub(super) fn with_outbound<T>(
        &self,
        waiting: Waiting,
        cx: &Context<'_>,
        act: impl FnOnce(&mut Outbound, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let slot = match waiting {
            Waiting::Data => &self.writers.data,
            Waiting::Control => &self.writers.control,
        };
        slot.register(cx.waker());
        let both = Waker::from(self.writers.clone());
        act(&mut lock(&self.outbound), &mut Context::from_waker(&both))
    }

    /// Queues a control frame for the driver to send.
    pub(super) fn control(&self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        lock(&self.outbound).push_control(opcode, payload)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Queues the close frame.
    pub(super) fn push_close(&self, code: u16) -> io::Result<()> {
        lock(&self.outbound).push_close(code)
    }

    pub(super) fn is_unflushed(&self) -> bool {
        lock(&self.outbound).is_unflushed()
    }

    /// The error of a half used after the end, if this is after the end.
    pub(super) fn ended_error(&self) -> Option<io::Error> {
        let ended = self.state().ended?;
        Some(match ended {
            Ended::Peer(code) => StreamReset(code).into(),
            Ended::Local(_) => io::ErrorKind::ConnectionAborted.into(),
            Ended::Lost => io::ErrorKind::TimedOut.into(),
        })
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.state().ended
    }

    /// The peer sent a close frame; ours answers it.
    pub(super) fn closed_by_peer(&self, code: Option<u16>) {
        let answer = code.unwrap_or(close::NORMAL);
        self.end(Ended::Peer(close::from_wire(code)), Some(answer));
    }

    /// This side ends it, and says so to the peer.
    pub(super) fn close_locally(&self, code: Code, wire: u16) {
        self.end(Ended::Local(code), Some(wire));
    }

    /// The peer or the transport is gone: nothing can be said any more.
    pub(super) fn lost(&self) {
        self.end(Ended::Lost, None);
    }

    fn end(&self, ended: Ended, close: Option<u16>) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = Some(ended);
            state.close = close;
        }
        drop(state);
        self.changed.notify_one();
        self.reader.wake();
        self.writers.data.wake();
    }

    /// Leaves the reader's waker for an end that comes from elsewhere.
    pub(super) fn register_reader(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
        self.listening.store(true, Ordering::Relaxed);
    }

    pub(super) fn sender_gone(&self) {
        let finished = lock(&self.outbound).is_finished();
        let mut state = self.state();
        state.sender_gone = true;
        drop(state);
        if finished {
            self.changed.notify_one();
        } else {
            // As on any transport: a sender that is dropped unfinished cancels.
            self.close_locally(Code::CANCELLED, close::to_wire(Code::CANCELLED));
        }
    }

    /// The receiving half has what it wanted: the driver listens on, for control frames.
    pub(super) fn give_back(&self, inbound: Inbound) {
        self.state().returned = Some(inbound);
        self.listening.store(false, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(super) fn receiver_gone(&self) {
        self.state().receiver_gone = true;
        self.changed.notify_one();
    }

    /// Both halves are done, and nothing went wrong.
    pub(super) fn is_abandoned(&self) -> bool {
        let state = self.state();
        state.sender_gone && state.receiver_gone
    }
}
