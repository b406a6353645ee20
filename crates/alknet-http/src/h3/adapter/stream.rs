//! The streams that h3 reads and writes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use alknet_core::{Code, ConnectionError, RecvStream, SendStream, StreamReset};
use bytes::{Buf, Bytes};
use tokio::{io::AsyncWrite as _, sync::watch};

use super::{
    super::{
        codes,
        demux::{Bidirectional, Unidirectional},
        gate::{Gate, Violation},
        hub::Request,
        settings::{self, Peer},
    },
    connection_error, on_stream,
};

/// The most that is read from a stream at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// A request stream.
pub(in crate::h3) struct Bidi {
    send: HttpSend,
    recv: HttpRecv,
}

impl Bidi {
    /// `unread` is what the peer is told when the rest of the stream is of no interest.
    pub(super) fn new(
        accepted: Bidirectional,
        unread: Code,
    ) -> Result<Self, ConnectionErrorIncoming> {
        let Bidirectional { stream, head, request } = accepted;
        let (send, recv) = stream.split();
        let recv = HttpRecv {
            id: stream_id(recv.id())?,
            stream: recv,
            ready: Bytes::new(),
            input: head,
            gate: Some(Gate::default()),
            settings: None,
            unread: Some(unread),
            _request: request,
        };
        Ok(Self { send: HttpSend::new(send)?, recv })
    }
}

impl quic::BidiStream<Bytes> for Bidi {
    type SendStream = HttpSend;
    type RecvStream = HttpRecv;

    fn split(self) -> (Self::SendStream, Self::RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::RecvStream for Bidi {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Self::Buf>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for Bidi {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// The receiving half of a stream of HTTP/3.
pub(in crate::h3) struct HttpRecv {
    id: StreamId,
    stream: RecvStream,
    /// Handed out before anything else: the type of a unidirectional stream.
    ready: Bytes,
    /// Has arrived and not passed the gate.
    input: Bytes,
    /// On streams that are made of frames.
    gate: Option<Gate>,
    settings: Option<watch::Sender<Option<Peer>>>,
    /// Until the stream has ended: what a drop tells the peer.
    unread: Option<Code>,
    _request: Option<Request>,
}

impl HttpRecv {
    /// `settings` is told the peer's settings, on a control stream.
    pub(super) fn unidirectional(
        accepted: Unidirectional,
        settings: Option<watch::Sender<Option<Peer>>>,
    ) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self {
            id: stream_id(accepted.recv.id())?,
            stream: accepted.recv,
            ready: accepted.head,
            input: Bytes::new(),
            gate: settings.is_some().then(Gate::default),
            settings,
            unread: Some(codes::NO_ERROR),
            _request: None,
        })
    }

    /// The next piece that passes the gate.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Some(gate) = &mut self.gate else { return self.stream.poll_chunk(cx, CHUNK) };
        loop {
            if let Some(piece) = gate.next(&mut self.input).map_err(io::Error::other)? {
                if let Some((settings, payload)) = self.settings.as_ref().zip(gate.take_settings())
                {
                    settings.send_replace(Some(Peer::parse(&payload)));
                }
                return Poll::Ready(Ok(Some(piece)));
            }
            match ready!(self.stream.poll_chunk(cx, CHUNK))? {
                Some(chunk) => self.input = chunk,
                None => return Poll::Ready(gate.finish().map(|()| None).map_err(io::Error::other)),
            }
        }
    }

    fn stop(&mut self, code: Code) {
        if self.unread.take().is_some() {
            self.stream.stop(code);
        }
    }
}

impl quic::RecvStream for HttpRecv {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Self::Buf>, StreamErrorIncoming>> {
        if !self.ready.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.ready))));
        }
        let piece = ready!(self.poll_piece(cx));
        match &piece {
            Ok(Some(_)) => {}
            Ok(None) => self.unread = None,
            Err(error) => {
                if let Some(code) = violation(error) {
                    self.stop(code);
                }
            }
        }
        Poll::Ready(piece.map_err(stream_error))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.stop(Code::new(error_code));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for HttpRecv {
    fn drop(&mut self) {
        if let Some(code) = self.unread {
            self.stop(code);
        }
    }
}

/// The sending half of a stream of HTTP/3.
pub(in crate::h3) struct HttpSend {
    id: StreamId,
    stream: SendStream,
    writing: Option<WriteBuf<Bytes>>,
    /// The opening of the control stream.
    opening: Bytes,
    is_control: bool,
    ended: bool,
}

impl HttpSend {
    pub(super) fn new(stream: SendStream) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self {
            id: stream_id(stream.id())?,
            stream,
            writing: None,
            opening: Bytes::new(),
            is_control: false,
            ended: false,
        })
    }

    /// As our control stream. h3 writes its SETTINGS first, and knows one dialect of
    /// WebTransport only: ours go in their place.
    pub(super) fn with_our_settings(mut self) -> Self {
        self.is_control = true;
        self
    }
}

impl quic::SendStream<Bytes> for HttpSend {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(poll_write_all(&mut self.stream, cx, &mut self.opening))?;
        if let Some(data) = &mut self.writing {
            ready!(poll_write_all(&mut self.stream, cx, data))?;
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if std::mem::take(&mut self.is_control) {
            self.opening = settings::control_stream();
        } else {
            self.writing = Some(data.into());
        }
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).map_err(stream_error)?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, reset_code: u64) {
        if !std::mem::replace(&mut self.ended, true) {
            self.stream.reset(Code::new(reset_code));
        }
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for HttpSend {
    fn drop(&mut self) {
        quic::SendStream::<Bytes>::reset(self, codes::REQUEST_CANCELLED.value());
    }
}

fn poll_write_all(
    stream: &mut SendStream,
    cx: &mut Context<'_>,
    data: &mut impl Buf,
) -> Poll<Result<(), StreamErrorIncoming>> {
    while data.has_remaining() {
        let written = ready!(Pin::new(&mut *stream).poll_write(cx, data.chunk()));
        match written.map_err(stream_error)? {
            0 => return Poll::Ready(Err(stream_error(io::ErrorKind::WriteZero.into()))),
            count => data.advance(count),
        }
    }
    Poll::Ready(Ok(()))
}

fn stream_id(id: Option<u64>) -> Result<StreamId, ConnectionErrorIncoming> {
    id.and_then(|id| id.try_into().ok()).ok_or_else(|| {
        ConnectionErrorIncoming::InternalError("the transport does not number its streams".into())
    })
}

fn violation(error: &io::Error) -> Option<Code> {
    error.get_ref()?.downcast_ref::<Violation>().map(|violation| violation.0)
}

fn stream_error(error: io::Error) -> StreamErrorIncoming {
    if let Some(code) = StreamReset::code_of(&error) {
        return StreamErrorIncoming::StreamTerminated { error_code: code.value() };
    }
    // On a critical stream, h3 would take the end of the connection for the peer's fault.
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectionError>()) {
        Some(ended) => on_stream(connection_error(ended.clone())),
        None => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
