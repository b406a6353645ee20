//! The sending direction.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use alknet_core::{Code, SendHalf, SendStream};
use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite;

use super::{
    Role, close,
    frame::{self, Header, Opcode},
    link::{Shared, Waiting},
};

/// The most data in one frame, in bytes.
const FRAME: usize = 64 * 1024;
/// How much waits for the transport before data waits too. Control frames may go beyond by
/// as much again, then they are dropped.
const QUEUE: usize = 64 * 1024;

/// Frames on their way out: what is queued is whole frames, so data and control frames
/// never cut into each other.
pub(super) struct Outbound {
    io: SendStream,
    role: Role,
    queue: BytesMut,
    /// Something was queued since the transport was last flushed.
    unflushed: bool,
    /// The end of the stream, or a close frame, was queued: no data may follow.
    finished: bool,
    closed: bool,
}

impl Outbound {
    pub(super) fn new(io: SendStream, role: Role) -> Self {
        Self { io, role, queue: BytesMut::new(), unflushed: false, finished: false, closed: false }
    }

    fn push(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut key = match self.role {
            Role::Server => None,
            Role::Client => {
                let mut key = [0; 4];
                aws_lc_rs::rand::fill(&mut key).map_err(io::Error::other)?;
                Some(key)
            }
        };
        self.unflushed = true;
        let len = payload.len() as u64;
        Header { fin: true, opcode, mask: key, len }.write(&mut self.queue);
        let start = self.queue.len();
        self.queue.extend_from_slice(payload);
        if let (Some(key), Some(data)) = (&mut key, self.queue.get_mut(start..)) {
            frame::mask(data, key);
        }
        Ok(())
    }

    /// Queues a ping or a pong, unless the peer reads so little that the queue is full: a
    /// peer may leave out answers to all but the latest ping (RFC 6455, section 5.5.3).
    pub(super) fn push_control(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        if self.closed || self.queue.len() > 2 * QUEUE {
            return Ok(());
        }
        self.push(opcode, payload)
    }

    /// Queues a close frame, after which nothing is sent.
    pub(super) fn push_close(&mut self, code: u16) -> io::Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.finished = true;
        self.push(Opcode::Close, &code.to_be_bytes())
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(super) fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queue.len() > QUEUE {
            ready!(self.poll_some(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.io).poll_write(cx, &self.queue))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            sent => {
                self.queue.advance(sent);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.queue.is_empty() {
            ready!(self.poll_some(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_room(cx))?;
        let data = data.get(..FRAME).unwrap_or(data);
        if !data.is_empty() {
            self.push(Opcode::Binary, data)?;
        }
        // What cannot leave now leaves with the next call.
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.finished, true) {
            self.push(Opcode::Binary, &[])?;
        }
        self.poll_flush(cx)
    }
}

/// The half that the protocol writes to.
pub(super) struct Sender(Arc<Shared>);

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn poll<T>(
        &self,
        cx: &Context<'_>,
        act: impl FnOnce(&mut Outbound, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Some(error) = self.0.ended_error() {
            return Poll::Ready(Err(error));
        }
        self.0.with_outbound(Waiting::Data, cx, act)
    }
}

impl AsyncWrite for Sender {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |out, cx| out.poll_write(cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Outbound::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Outbound::poll_finish)
    }
}

impl SendHalf for Sender {
    /// There is one stream, so abandoning it closes the WebSocket.
    fn reset(&mut self, code: Code) {
        self.0.close_locally(code, close::to_wire(code));
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.sender_gone();
    }
}
