//! A [`Connection`] as the h3 crate wants one. What belongs to WebTransport never reaches
//! h3, and what does reach it has passed the [gate](super::gate).

mod stream;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use ::h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming};
use alknet_core::{BoxFuture, ClosedBy, Code, Connection, ConnectionError, SendStream, Stream};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    codes,
    demux::{Bidirectional, Demux, Unidirectional},
    hub::Hub,
    settings::Peer,
};

pub(super) use stream::{Bidi, HttpRecv, HttpSend};

/// Request streams and control streams that wait for h3 to take them.
const QUEUE: usize = 64;

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
        let accepted = accepted(ready!(self.unidirectional.poll_recv(cx)))?;
        let settings = accepted.control.then(|| self.settings.clone());
        Poll::Ready(HttpRecv::unidirectional(accepted, settings))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        loop {
            let mut accepted = accepted(ready!(self.bidirectional.poll_recv(cx)))?;
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
        let send = ready!(self.opener.poll_open_send(cx))?;
        let control = !std::mem::replace(&mut self.control_open, true);
        Poll::Ready(Ok(if control { send.with_our_settings() } else { send }))
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
        // h3's words would tell a prober which implementation this is.
        let reason = String::from_utf8_lossy(reason);
        tracing::debug!(?code, %reason, "HTTP/3 ends a connection");
        self.quic.close(Code::new(code.value()), "");
    }
}

/// What the demultiplexer brought. It ends with the connection's error and not without.
fn accepted<T>(brought: Option<Result<T, ConnectionError>>) -> Result<T, ConnectionErrorIncoming> {
    let ended = || ConnectionErrorIncoming::InternalError("nothing is accepted any more".into());
    brought.ok_or_else(ended)?.map_err(connection_error)
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
