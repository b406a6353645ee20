//! A WebTransport session as a [`Transport`].

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use ::h3::{client, error::StreamError, quic, server};
use alknet_core::{
    BoxFuture, Closed, ClosedBy, Code, Connection, ConnectionError, RecvStream, SendStream, Stream,
    Transport, TransportKind,
};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    capsule,
    client::Client,
    codes,
    demux::{WEBTRANSPORT_BI, WEBTRANSPORT_UNI},
    hub::{Hub, Inbox},
    stream, varint,
};

/// How long a peer may take to notice the end of a session.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long the QUIC connection may take to say why its streams failed.
const CAUSE: Duration = Duration::from_secs(1);

/// Whether a session is over, and how it ended: shared with its streams.
#[derive(Debug, Default)]
pub(super) struct State {
    closed: OnceLock<Closed>,
    over: CancellationToken,
}

impl State {
    /// Ends the session; the first end stands.
    pub(super) fn end(&self, closed: Closed) {
        if self.closed.set(closed).is_ok() {
            self.over.cancel();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed.get().is_some()
    }

    /// How the session ended, once it is over.
    pub(super) fn closed(&self) -> Closed {
        self.closed.get().cloned().unwrap_or_else(|| lost(Code::NORMAL, ""))
    }

    pub(super) fn over_owned(&self) -> WaitForCancellationFutureOwned {
        self.over.clone().cancelled_owned()
    }

    async fn over(&self) -> Closed {
        self.over.cancelled().await;
        self.closed()
    }
}

fn lost(code: Code, reason: &str) -> Closed {
    Closed { by: ClosedBy::Lost, code, reason: reason.into() }
}

/// One session. Dropped, it closes.
pub(super) struct Session {
    id: u64,
    quic: Connection,
    state: Arc<State>,
    bi: Mutex<mpsc::Receiver<Stream>>,
    uni: Mutex<mpsc::Receiver<RecvStream>>,
    datagrams: Mutex<mpsc::Receiver<Bytes>>,
    /// A connection that was made for this session and ends with it.
    owned: Option<Client>,
}

impl Session {
    pub(super) fn new(id: u64, quic: Connection, state: Arc<State>, inbox: Inbox) -> Self {
        Self {
            id,
            quic,
            state,
            bi: Mutex::new(inbox.bi),
            uni: Mutex::new(inbox.uni),
            datagrams: Mutex::new(inbox.datagrams),
            owned: None,
        }
    }

    /// With a connection that ends with the session.
    pub(super) fn owning(mut self, client: Client) -> Self {
        self.owned = Some(client);
        self
    }

    /// What a stream of this session begins with.
    fn header(&self, kind: u64) -> BytesMut {
        let mut header = BytesMut::with_capacity(2 * varint::MAX_LEN);
        varint::encode(kind, &mut header);
        varint::encode(self.id, &mut header);
        header
    }

    /// Waits for `event`, or the end of the session.
    async fn unless_over<T>(
        &self,
        event: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        tokio::select! {
            biased;
            closed = self.state.over() => Err(ConnectionError::Closed(closed)),
            result = event => result,
        }
    }

    /// Waits for what the hub brings.
    async fn arrival<T>(&self, queue: &Mutex<mpsc::Receiver<T>>) -> Result<T, ConnectionError> {
        let next = async {
            match queue.lock().await.recv().await {
                Some(arrival) => Ok(arrival),
                None => Err(ConnectionError::Closed(self.state.over().await)),
            }
        };
        self.unless_over(next).await
    }

    /// Opens a stream: it reaches the peer's session with its header, before any data.
    async fn open(&self) -> Result<Stream, ConnectionError> {
        let stream = self.quic.open_bi().await?;
        let (mut send, recv) = stream.split();
        self.write_header(&mut send, WEBTRANSPORT_BI).await;
        Ok(stream::bind(Stream::new(send, recv), &self.state))
    }

    async fn open_sending(&self) -> Result<SendStream, ConnectionError> {
        let mut send = self.quic.open_uni().await?;
        self.write_header(&mut send, WEBTRANSPORT_UNI).await;
        Ok(stream::bind_send(send, &self.state))
    }

    async fn write_header(&self, send: &mut SendStream, kind: u64) {
        // A stream that the peer stops before its first byte fails at its first use.
        let _ = send.write_all(&self.header(kind)).await;
    }
}

impl Transport for Session {
    fn kind(&self) -> TransportKind {
        TransportKind::WebTransport
    }

    fn accept_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(self.arrival(&self.bi))
    }

    fn open_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(self.unless_over(self.open()))
    }

    fn accept_uni(&self) -> BoxFuture<'_, Result<RecvStream, ConnectionError>> {
        Box::pin(self.arrival(&self.uni))
    }

    fn open_uni(&self) -> BoxFuture<'_, Result<SendStream, ConnectionError>> {
        Box::pin(self.unless_over(self.open_sending()))
    }

    fn read_datagram(&self) -> BoxFuture<'_, Result<Bytes, ConnectionError>> {
        Box::pin(self.arrival(&self.datagrams))
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), ConnectionError> {
        if self.state.is_over() {
            return Err(ConnectionError::Closed(self.state.closed()));
        }
        let mut framed = BytesMut::with_capacity(varint::MAX_LEN + datagram.len());
        varint::encode(self.id / 4, &mut framed);
        framed.extend_from_slice(&datagram);
        self.quic.send_datagram(framed.freeze())
    }

    fn max_datagram_size(&self) -> Option<usize> {
        let mut prefix = BytesMut::new();
        varint::encode(self.id / 4, &mut prefix);
        self.quic.max_datagram_size()?.checked_sub(prefix.len())
    }

    fn close(&self, code: Code, reason: &str) {
        self.state.end(Closed { by: ClosedBy::Local, code, reason: reason.into() });
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(self.state.over())
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.owned.is_some() {
                // The connection closes when the peer has taken notice of the session's end.
                let _ = timeout(FAREWELL, self.quic.closed()).await;
                self.quic.drained().await;
            }
        })
    }

    fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ConnectionError> {
        self.quic.export_keying_material(out, label, context)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        self.quic.remote_addr()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close(Code::NORMAL, "");
        if self.owned.is_some() {
            close_connection(&self.quic, &self.state.closed());
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Ends the connection of a session that is over, so that a peer which has not read the
/// close on the CONNECT stream still learns it.
pub(super) fn close_connection(quic: &Connection, session: &Closed) {
    match session.by {
        ClosedBy::Local => quic.close(codes::to_wire(session.code), &session.reason),
        ClosedBy::Peer | ClosedBy::Lost => quic.close(codes::NO_ERROR, ""),
    }
}

/// The sending half of a CONNECT stream, on either side.
pub(super) trait Tell: Send {
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), StreamError>> + Send;
    fn finish(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send;
    fn reset(&mut self, code: Code);
}

/// The receiving half of a CONNECT stream, on either side.
pub(super) trait Hear: Send {
    fn data(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> + Send;
}

macro_rules! connect_stream {
    ($side:ident) => {
        impl<S: quic::SendStream<Bytes> + Send> Tell for $side::RequestStream<S, Bytes> {
            async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
                self.send_data(data).await
            }

            async fn finish(&mut self) -> Result<(), StreamError> {
                self.finish().await
            }

            fn reset(&mut self, code: Code) {
                self.stop_stream(code.value().into());
            }
        }

        impl<S: quic::RecvStream + Send> Hear for $side::RequestStream<S, Bytes> {
            async fn data(&mut self) -> Result<Option<Bytes>, StreamError> {
                let data = self.recv_data().await?;
                Ok(data.map(|mut data| data.copy_to_bytes(data.remaining())))
            }
        }
    };
}

connect_stream!(server);
connect_stream!(client);

/// Runs a session's CONNECT stream until both sides know that it is over.
pub(super) async fn drive(
    mut tell: impl Tell,
    mut hear: impl Hear,
    (id, state): (u64, &State),
    hub: &Hub,
    quic: &Connection,
) {
    let closed = tokio::select! {
        closed = listen(&mut hear, quic) => closed,
        closed = state.over() => closed,
    };
    state.end(closed);
    hub.end(id);
    // A peer that takes no notice has its streams reset when the halves are dropped.
    let _ = timeout(FAREWELL, farewell(&mut tell, &mut hear, state.closed())).await;
}

/// Reads capsules until one of them, or the end of the stream, ends the session.
async fn listen(hear: &mut impl Hear, quic: &Connection) -> Closed {
    let mut capsules = capsule::Reader::default();
    loop {
        let close = match hear.data().await {
            Ok(Some(data)) => capsules.push(data),
            Ok(None) => Ok(Some(capsule::Close { code: Code::NORMAL, reason: String::new() })),
            Err(StreamError::RemoteTerminate { .. }) => {
                return lost(Code::NORMAL, "the session was reset");
            }
            Err(_) => return cause(quic).await,
        };
        match close {
            Ok(None) => {}
            Ok(Some(capsule::Close { code, reason })) => {
                return Closed { by: ClosedBy::Peer, code, reason };
            }
            Err(malformed) => return lost(Code::PROTOCOL, &malformed.to_string()),
        }
    }
}

/// How a session ended whose connection did.
async fn cause(quic: &Connection) -> Closed {
    match timeout(CAUSE, quic.closed()).await {
        Ok(closed) => of_connection(closed),
        Err(_) => lost(Code::NORMAL, "the session's stream failed"),
    }
}

/// The end of a connection as that of its sessions.
pub(super) fn of_connection(closed: Closed) -> Closed {
    let code = match closed.code {
        codes::NO_ERROR => Code::NORMAL,
        code => codes::from_wire(code).unwrap_or(code),
    };
    Closed { code, ..closed }
}

/// Says what there is to say and waits for the peer to end its side.
async fn farewell(tell: &mut impl Tell, hear: &mut impl Hear, closed: Closed) {
    let said = match closed.by {
        ClosedBy::Local => {
            let close = capsule::close(closed.code, &closed.reason);
            match tell.data(close).await {
                Ok(()) => tell.finish().await,
                Err(error) => Err(error),
            }
        }
        ClosedBy::Peer => tell.finish().await,
        ClosedBy::Lost => {
            let malformed = closed.code == Code::PROTOCOL;
            tell.reset(if malformed { codes::DATAGRAM_ERROR } else { codes::REQUEST_CANCELLED });
            return;
        }
    };
    if said.is_ok() {
        while let Ok(Some(_)) = hear.data().await {}
    }
}
