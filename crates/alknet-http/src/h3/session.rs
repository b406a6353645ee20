//! A WebTransport session as a [`Transport`].

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use alknet_core::{
    BoxFuture, Closed, ClosedBy, Code, Connection, ConnectionError, RecvStream, SendStream, Stream,
    Transport, TransportKind,
};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    client::Client,
    codes,
    demux::{WEBTRANSPORT_BI, WEBTRANSPORT_UNI},
    hub::Inbox,
    stream, varint,
};

/// How long a peer may take to notice the end of a session.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

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

    /// Waits for the end.
    pub(super) async fn over(&self) -> Closed {
        self.over.cancelled().await;
        self.closed()
    }
}

/// The end of a session for which nobody asked.
pub(super) fn lost(code: Code, reason: &str) -> Closed {
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
