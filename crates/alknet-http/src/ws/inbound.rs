//! The receiving direction.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use alknet_core::{Code, RecvHalf, RecvStream, StreamReset};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{
    Ended, Role, close,
    frame::{self, Header, Opcode, Violation},
    link::Shared,
};

/// How much is asked of the transport at once, in bytes.
const READ: usize = 32 * 1024;

/// Frames on their way in. Memory is bounded by [`READ`]: payload is handed on as it comes.
pub(super) struct Inbound {
    io: RecvStream,
    role: Role,
    buffer: BytesMut,
    /// How much at the start of `buffer` is unmasked payload for the reader.
    ready: usize,
    frame: Frame,
    ended: bool,
}

/// Where in a message the stream is.
#[derive(Default)]
struct Frame {
    /// Payload bytes of the current data frame that are still to come or to unmask.
    left: u64,
    key: Option<[u8; 4]>,
    /// A message has begun and its last frame was not seen.
    in_message: bool,
    /// The current frame is its message's last.
    last: bool,
    /// The current message has had payload.
    has_data: bool,
}

/// What stands next in the stream.
enum Next {
    /// So many bytes of payload, unmasked at the start of the buffer.
    Data(usize),
    End,
    Closed,
}

/// Why nothing more can be received.
enum Fault {
    Io(io::Error),
    Violation(Violation),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Inbound {
    pub(super) fn new(io: RecvStream, head: Bytes, role: Role) -> Self {
        let frame = Frame::default();
        Self { io, role, buffer: BytesMut::from(head), ready: 0, frame, ended: false }
    }

    /// Finds payload, answering control frames on the way.
    fn poll_next(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Result<Next, Fault>> {
        loop {
            if self.ready > 0 {
                return Poll::Ready(Ok(Next::Data(self.ready)));
            }
            if self.unmask() {
                continue;
            }
            if self.frame.left == 0 {
                if self.finish_frame()? {
                    return Poll::Ready(Ok(Next::End));
                }
                match self.begin_frame(shared)? {
                    Progress::Frame => continue,
                    Progress::Closed => return Poll::Ready(Ok(Next::Closed)),
                    Progress::Incomplete => {}
                }
            }
            ready!(self.poll_fill(shared, cx))?;
        }
    }

    /// Makes what has arrived of the current frame's payload ready.
    fn unmask(&mut self) -> bool {
        let left = usize::try_from(self.frame.left).unwrap_or(usize::MAX);
        let here = left.min(self.buffer.len());
        if let (Some(key), Some(data)) = (&mut self.frame.key, self.buffer.get_mut(..here)) {
            frame::mask(data, key);
        }
        self.ready = here;
        self.frame.left -= here as u64;
        here > 0
    }

    /// At the end of a data frame: whether the message was the empty one that ends the
    /// stream.
    fn finish_frame(&mut self) -> Result<bool, Violation> {
        if !(self.frame.in_message && self.frame.last) {
            return Ok(false);
        }
        self.frame.in_message = false;
        if self.frame.has_data {
            return Ok(false);
        }
        self.ended = true;
        Ok(true)
    }

    fn begin_frame(&mut self, shared: &Shared) -> Result<Progress, Fault> {
        let Some((header, len)) = Header::parse(&self.buffer)? else {
            return Ok(Progress::Incomplete);
        };
        if header.mask.is_some() != (self.role == Role::Server) {
            return Err(Violation::Mask.into());
        }
        if header.opcode.is_control() {
            return self.control(shared, header, len);
        }
        self.begin_data(header)?;
        self.buffer.advance(len);
        Ok(Progress::Frame)
    }

    fn begin_data(&mut self, header: Header) -> Result<(), Violation> {
        match header.opcode {
            Opcode::Text => return Err(Violation::Text),
            Opcode::Continuation if !self.frame.in_message => return Err(Violation::Fragmentation),
            Opcode::Binary if self.frame.in_message => return Err(Violation::Fragmentation),
            Opcode::Binary if self.ended => return Err(Violation::AfterEnd),
            _ => {}
        }
        let begun = self.frame.in_message && self.frame.has_data;
        self.frame = Frame {
            left: header.len,
            key: header.mask,
            in_message: true,
            last: header.fin,
            has_data: begun || header.len > 0,
        };
        Ok(())
    }

    /// A control frame, once it is whole: it is 131 bytes at the most.
    fn control(
        &mut self,
        shared: &Shared,
        header: Header,
        header_len: usize,
    ) -> Result<Progress, Fault> {
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if self.buffer.len() < header_len.saturating_add(len) {
            return Ok(Progress::Incomplete);
        }
        self.buffer.advance(header_len);
        let mut payload = self.buffer.split_to(len);
        if let Some(mut key) = header.mask {
            frame::mask(&mut payload, &mut key);
        }
        match header.opcode {
            Opcode::Ping => shared.control(Opcode::Pong, &payload)?,
            Opcode::Close => {
                shared.closed_by_peer(close_code(&payload)?);
                return Ok(Progress::Closed);
            }
            _ => {}
        }
        Ok(Progress::Frame)
    }

    fn poll_fill(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.reserve(READ);
        let arrived = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer))?;
        shared.heard.store(true, Ordering::Relaxed);
        if arrived == 0 {
            Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads and drops what still comes, up to the peer's close frame or the end.
    pub(super) fn poll_drain(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.poll_next(shared, cx)) {
                Ok(Next::Data(len)) => self.consume(len),
                Ok(Next::End) => {}
                Ok(Next::Closed) => return Poll::Ready(()),
                Err(fault) => {
                    fail(shared, &fault);
                    return Poll::Ready(());
                }
            }
        }
    }

    fn consume(&mut self, len: usize) {
        self.buffer.advance(len);
        self.ready = self.ready.saturating_sub(len);
    }
}

/// What [`Inbound::begin_frame`] came to.
enum Progress {
    Frame,
    Incomplete,
    Closed,
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let valid = close::may_be_sent(code) && std::str::from_utf8(reason).is_ok();
            if valid { Ok(Some(code)) } else { Err(Violation::Close) }
        }
        [_] => Err(Violation::Close),
    }
}

fn fail(shared: &Shared, fault: &Fault) {
    match fault {
        Fault::Violation(violation) => {
            tracing::debug!(%violation, "the peer broke the WebSocket protocol");
            shared.close_locally(Code::PROTOCOL, violation.close_code());
        }
        Fault::Io(_) => shared.lost(),
    }
}

/// The half that the protocol reads from.
pub(super) struct Receiver {
    inbound: Option<Inbound>,
    /// The stream was read to its end.
    ended: bool,
    shared: Arc<Shared>,
}

impl Receiver {
    pub(super) fn new(inbound: Inbound, shared: Arc<Shared>) -> Self {
        Self { inbound: Some(inbound), ended: false, shared }
    }

    /// How much payload is ready; 0 at the end.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(inbound) = &mut self.inbound else {
            let stopped = || io::ErrorKind::BrokenPipe.into();
            return Poll::Ready(if self.ended { Ok(0) } else { Err(stopped()) });
        };
        self.shared.register_reader(cx);
        let next = match inbound.poll_next(&self.shared, cx) {
            Poll::Pending => match self.shared.ended() {
                None => return Poll::Pending,
                Some(ended) => return Poll::Ready(after(ended, &self.shared)),
            },
            Poll::Ready(next) => next,
        };
        self.shared.listening.store(false, Ordering::Relaxed);
        Poll::Ready(match next {
            Ok(Next::Data(len)) => Ok(len),
            Ok(Next::End) => {
                self.ended = true;
                self.give_back();
                Ok(0)
            }
            Ok(Next::Closed) => match self.shared.ended() {
                Some(ended) => after(ended, &self.shared),
                None => Ok(0),
            },
            Err(fault) => {
                fail(&self.shared, &fault);
                Err(fault.into())
            }
        })
    }

    fn give_back(&mut self) {
        if let Some(inbound) = self.inbound.take() {
            self.shared.give_back(inbound);
        }
    }
}

/// What a reader is told after the end: a normal close is the end of the stream.
fn after(ended: Ended, shared: &Shared) -> io::Result<usize> {
    match ended {
        Ended::Peer(Code::NORMAL) => Ok(0),
        Ended::Peer(code) => Err(StreamReset(code).into()),
        Ended::Local(_) | Ended::Lost => {
            Err(shared.ended_error().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()))
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) => error,
            Fault::Violation(violation) => Self::new(io::ErrorKind::InvalidData, violation),
        }
    }
}

impl AsyncRead for Receiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ready = ready!(self.poll_ready(cx))?;
        if let Some(inbound) = &mut self.inbound {
            let len = ready.min(buf.remaining());
            buf.put_slice(inbound.buffer.get(..len).unwrap_or_default());
            inbound.consume(len);
        }
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf for Receiver {
    /// A WebSocket cannot tell its peer to stop: what still comes is dropped.
    fn stop(&mut self, _code: Code) {
        self.give_back();
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        let ready = ready!(self.poll_ready(cx))?.min(max);
        let Some(inbound) = self.inbound.as_mut().filter(|_| ready > 0) else {
            return Poll::Ready(Ok(None));
        };
        inbound.ready -= ready;
        Poll::Ready(Ok(Some(inbound.buffer.split_to(ready).freeze())))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.give_back();
        self.shared.receiver_gone();
    }
}
