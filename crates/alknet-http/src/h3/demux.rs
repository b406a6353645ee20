//! Sorts what a peer opens: WebTransport streams and datagrams go to their sessions, the
//! rest to HTTP/3. The first bytes of a stream decide (draft-ietf-webtrans-http3).

use std::{io, sync::Arc, time::Duration};

use alknet_core::{Connection, ConnectionError, RecvStream, Stream};
use bytes::{Bytes, BytesMut};
use futures_util::{
    future::join3,
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    codes,
    hub::{Arrival, Hub, Request},
    varint,
};

/// Opens a bidirectional WebTransport stream.
pub(super) const WEBTRANSPORT_BI: u64 = 0x41;
/// Opens a unidirectional WebTransport stream.
pub(super) const WEBTRANSPORT_UNI: u64 = 0x54;
/// The unidirectional streams of HTTP/3 that a peer may open here: control and QPACK.
const CONTROL: u64 = 0x00;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// How long a stream may take to say what it is.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Streams each way that have not said what they are, or wait for their session; no more
/// are accepted meanwhile.
const UNDECIDED: usize = 256;

/// A bidirectional stream for HTTP/3.
pub(super) struct Bidirectional {
    pub(super) stream: Stream,
    /// What was read of it.
    pub(super) head: Bytes,
    /// Of a stream that the client opened.
    pub(super) request: Option<Request>,
}

/// A unidirectional stream for HTTP/3.
pub(super) struct Unidirectional {
    pub(super) recv: RecvStream,
    /// The stream type as it was read.
    pub(super) head: Bytes,
    pub(super) control: bool,
}

/// One connection's sorting. [`run`](Self::run) ends with the connection.
pub(super) struct Demux {
    pub(super) quic: Connection,
    pub(super) hub: Arc<Hub>,
    pub(super) bidirectional: mpsc::Sender<Result<Bidirectional, ConnectionError>>,
    pub(super) unidirectional: mpsc::Sender<Result<Unidirectional, ConnectionError>>,
}

/// What the first bytes of a stream say.
enum Head {
    Session(u64),
    Other { kind: u64, read: Bytes },
}

impl Demux {
    pub(super) async fn run(self) {
        join3(self.sort_bidirectional(), self.sort_unidirectional(), self.sort_datagrams()).await;
    }

    async fn sort_bidirectional(&self) {
        let mut undecided = FuturesUnordered::new();
        let error = loop {
            tokio::select! {
                accepted = self.quic.accept_bi(), if undecided.len() < UNDECIDED => match accepted {
                    Ok(stream) => undecided.push(self.sort_stream(stream)),
                    Err(error) => break error,
                },
                Some(()) = undecided.next() => {}
            }
        };
        // Nobody listens once HTTP/3 has ended.
        let _ = self.bidirectional.send(Err(error)).await;
    }

    async fn sort_unidirectional(&self) {
        let mut undecided = FuturesUnordered::new();
        let error = loop {
            tokio::select! {
                accepted = self.quic.accept_uni(), if undecided.len() < UNDECIDED => match accepted {
                    Ok(recv) => undecided.push(self.sort_recv_stream(recv)),
                    Err(error) => break error,
                },
                Some(()) = undecided.next() => {}
            }
        };
        let _ = self.unidirectional.send(Err(error)).await;
    }

    async fn sort_datagrams(&self) {
        while let Ok(mut datagram) = self.quic.read_datagram().await {
            // RFC 9297, section 2.1: a quarter of the id of the request stream.
            let Some((quarter, at)) = varint::decode(&datagram) else { continue };
            let payload = datagram.split_off(at);
            self.hub.deliver_datagram(quarter.saturating_mul(4), payload);
        }
    }

    async fn sort_stream(&self, stream: Stream) {
        let request = stream.id().filter(|id| is_request(*id)).map(|id| self.hub.begin(id));
        let (mut send, mut recv) = stream.split();
        let head = timeout(HEADER_DEADLINE, head(&mut recv, WEBTRANSPORT_BI)).await;
        match head {
            Ok(Ok(Some(Head::Session(id)))) => {
                drop(request);
                self.deliver(id, Arrival::Bi(Stream::new(send, recv))).await;
            }
            Ok(Ok(Some(Head::Other { read, .. }))) => {
                let stream = Stream::new(send, recv);
                let http = Bidirectional { stream, head: read, request };
                let _ = self.bidirectional.send(Ok(http)).await;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => {
                send.reset(codes::REQUEST_INCOMPLETE);
                recv.stop(codes::REQUEST_INCOMPLETE);
            }
        }
    }

    async fn sort_recv_stream(&self, mut recv: RecvStream) {
        let head = timeout(HEADER_DEADLINE, head(&mut recv, WEBTRANSPORT_UNI)).await;
        match head {
            Ok(Ok(Some(Head::Session(id)))) => self.deliver(id, Arrival::Uni(recv)).await,
            Ok(Ok(Some(Head::Other { kind, read }))) if is_http(kind) => {
                let http = Unidirectional { recv, head: read, control: kind == CONTROL };
                let _ = self.unidirectional.send(Ok(http)).await;
            }
            _ => recv.stop(codes::STREAM_CREATION_ERROR),
        }
    }

    async fn deliver(&self, session: u64, arrival: Arrival) {
        if is_request(session) {
            self.hub.deliver(session, arrival).await;
        } else {
            self.quic.close(codes::ID_ERROR, "");
        }
    }
}

/// Whether a stream of this number is a bidirectional one that the client opened.
fn is_request(id: u64) -> bool {
    id.is_multiple_of(4)
}

fn is_http(kind: u64) -> bool {
    matches!(kind, CONTROL | QPACK_ENCODER | QPACK_DECODER)
}

/// Reads what a stream is; `None` if it ends before it says so.
async fn head(recv: &mut RecvStream, webtransport: u64) -> io::Result<Option<Head>> {
    let mut read = BytesMut::with_capacity(2 * varint::MAX_LEN);
    let Some(kind) = read_varint(recv, &mut read).await? else { return Ok(None) };
    if kind != webtransport {
        return Ok(Some(Head::Other { kind, read: read.freeze() }));
    }
    read.clear();
    Ok(read_varint(recv, &mut read).await?.map(Head::Session))
}

/// Reads one integer and not a byte more, and appends its bytes to `read`.
async fn read_varint(recv: &mut RecvStream, read: &mut BytesMut) -> io::Result<Option<u64>> {
    let start = read.len();
    let mut missing = 1;
    while missing > 0 {
        let Some(chunk) = recv.chunk(missing).await? else { return Ok(None) };
        read.extend_from_slice(&chunk);
        let part = read.get(start..).unwrap_or_default();
        missing = part.first().map_or(1, |first| varint::len_of(*first)) - part.len();
    }
    Ok(read.get(start..).and_then(varint::decode).map(|(value, _)| value))
}
