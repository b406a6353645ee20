//! A [`Connection`] as the h3 crate wants one. What belongs to WebTransport never reaches
//! h3, and what does reach it has passed the [gate](super::gate).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use ::h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use alknet_core::{
    BoxFuture, ClosedBy, Code, Connection, ConnectionError, RecvStream, SendStream, Stream,
    StreamReset,
};
use bytes::{Buf, Bytes};
use tokio::{
    io::AsyncWrite as _,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    codes,
    demux::{Bidirectional, Demux, Unidirectional},
    gate::Gate,
    hub::{Hub, Request},
    settings::{self, Peer},
};

/// Request streams and control streams that wait for h3 to take them.
const QUEUE: usize = 64;
/// The most that is read from a stream at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// The connection of one side, and the tasks that feed it.
pub(super) struct Adapter {
    opener: Opener,
    bidirectional: mpsc::Receiver<Result<Bidirectional, ConnectionError>>,
    unidirectional: mpsc::Receiver<Result<Unidirectional, ConnectionError>>,
    refusing: Arc<AtomicBool>,
    settings: watch::Sender<Option<Peer>>,
    /// Ours is the first stream that h3 opens.
    control_open: bool,
    _demux: JoinSet<()>,
}

impl Adapter {
    pub(super) fn new(quic: Connection, hub: Arc<Hub>) -> Self {
        let (bidirectional, bidirectional_queue) = mpsc::channel(QUEUE);
        let (unidirectional, unidirectional_queue) = mpsc::channel(QUEUE);
        let demux = Demux { quic: quic.clone(), hub: hub.clone(), bidirectional, unidirectional };
        let mut tasks = JoinSet::new();
        tasks.spawn(demux.run());
        Self {
            opener: Opener { quic, hub, bi: None, uni: None },
            bidirectional: bidirectional_queue,
            unidirectional: unidirectional_queue,
            refusing: Arc::default(),
            settings: watch::Sender::new(None),
            control_open: false,
            _demux: tasks,
        }
    }

    /// Set to true, it has every further request refused unseen.
    pub(super) fn refusing(&self) -> Arc<AtomicBool> {
        self.refusing.clone()
    }

    /// The peer's settings, once they have arrived.
    pub(super) fn peer_settings(&self) -> watch::Receiver<Option<Peer>> {
        self.settings.subscribe()
    }
}

impl quic::Connection<Bytes> for Adapter {
    type RecvStream = HttpRecv;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        let Some(accepted) = ready!(self.unidirectional.poll_recv(cx)) else {
            return Poll::Pending;
        };
        let Unidirectional { recv, head, control } = accepted.map_err(connection_error)?;
        let settings = control.then(|| self.settings.clone());
        Poll::Ready(HttpRecv::control(recv, head, settings))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        loop {
            let Some(accepted) = ready!(self.bidirectional.poll_recv(cx)) else {
                return Poll::Pending;
            };
            let mut accepted = accepted.map_err(connection_error)?;
            if self.refusing.load(Ordering::Relaxed) {
                accepted.stream.reset(codes::REQUEST_REJECTED);
                continue;
            }
            if let Some(request) = &accepted.request {
                request.watch(accepted.stream.stopped());
            }
            return Poll::Ready(Bidi::new(accepted, codes::NO_ERROR));
        }
    }

    fn opener(&self) -> Self::OpenStreams {
        self.opener.clone()
    }
}

impl quic::OpenStreams<Bytes> for Adapter {
    type BidiStream = Bidi;
    type SendStream = HttpSend;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        let mut send = ready!(self.opener.poll_open_send(cx))?;
        send.is_control = !std::mem::replace(&mut self.control_open, true);
        Poll::Ready(Ok(send))
    }

    fn close(&mut self, code: ::h3::error::Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

type Opening<T> = Option<BoxFuture<'static, Result<T, ConnectionError>>>;

/// Opens streams.
pub(super) struct Opener {
    quic: Connection,
    hub: Arc<Hub>,
    bi: Opening<Stream>,
    uni: Opening<SendStream>,
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self { quic: self.quic.clone(), hub: self.hub.clone(), bi: None, uni: None }
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Bidi;
    type SendStream = HttpSend;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        let quic = self.quic.clone();
        let opening = self.bi.get_or_insert_with(|| Box::pin(async move { quic.open_bi().await }));
        let opened = ready!(opening.as_mut().poll(cx));
        self.bi = None;
        let stream = opened.map_err(open_error)?;
        let request = stream.id().map(|id| self.hub.begin(id));
        let opened = Bidirectional { stream, head: Bytes::new(), request };
        Poll::Ready(Bidi::new(opened, codes::REQUEST_CANCELLED).map_err(on_stream))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        let quic = self.quic.clone();
        let opening =
            self.uni.get_or_insert_with(|| Box::pin(async move { quic.open_uni().await }));
        let opened = ready!(opening.as_mut().poll(cx));
        self.uni = None;
        let send = opened.map_err(open_error)?;
        Poll::Ready(HttpSend::new(send).map_err(on_stream))
    }

    fn close(&mut self, code: ::h3::error::Code, reason: &[u8]) {
        self.quic.close(Code::new(code.value()), &String::from_utf8_lossy(reason));
    }
}

/// A request stream.
pub(super) struct Bidi {
    send: HttpSend,
    recv: HttpRecv,
}

impl Bidi {
    /// `unread` is what the peer is told when the rest of the stream is of no interest.
    fn new(accepted: Bidirectional, unread: Code) -> Result<Self, ConnectionErrorIncoming> {
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
pub(super) struct HttpRecv {
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
    fn control(
        stream: RecvStream,
        head: Bytes,
        settings: Option<watch::Sender<Option<Peer>>>,
    ) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self {
            id: stream_id(stream.id())?,
            stream,
            ready: head,
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
pub(super) struct HttpSend {
    id: StreamId,
    stream: SendStream,
    writing: Option<WriteBuf<Bytes>>,
    /// The opening of the control stream.
    opening: Bytes,
    is_control: bool,
    ended: bool,
}

impl HttpSend {
    fn new(stream: SendStream) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self {
            id: stream_id(stream.id())?,
            stream,
            writing: None,
            opening: Bytes::new(),
            is_control: false,
            ended: false,
        })
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
            // h3 writes its SETTINGS first on the control stream, and knows one dialect of
            // WebTransport only.
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
    error.get_ref()?.downcast_ref::<super::gate::Violation>().map(|violation| violation.0)
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::Closed(closed) if closed.by == ClosedBy::Peer => {
            ConnectionErrorIncoming::ApplicationClose { error_code: closed.code.value() }
        }
        ConnectionError::Closed(closed) if closed.by == ClosedBy::Lost => {
            ConnectionErrorIncoming::Timeout
        }
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn on_stream(connection_error: ConnectionErrorIncoming) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
}

fn open_error(error: ConnectionError) -> StreamErrorIncoming {
    on_stream(connection_error(error))
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
