//! Connections without sockets: many streams, codes and datagrams, as QUIC has them.

mod pipe;

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use alknet_core::{
    BoxFuture, Closed, ClosedBy, Code, Connection, ConnectionError, RecvStream, SendStream, Stream,
    Transport, TransportKind,
};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use pipe::Pipe;

/// How many bytes one direction of a stream holds before its writer waits.
const PIPE: usize = 64 * 1024;
/// The largest datagram.
const DATAGRAM: usize = 1200;
/// How many datagrams wait before old ones are dropped.
const DATAGRAMS: usize = 64;

/// The two ends of a connection: the client's and the server's, of kind
/// [`TransportKind::Memory`]. Streams are numbered as in RFC 9000, section 2.1. A 32-byte
/// secret shared by the two ends stands in for the TLS exporter.
pub fn pair() -> (Connection, Connection) {
    pair_of_kind(TransportKind::Memory)
}

/// As [`pair`], for tests of code that asks for the kind.
pub fn pair_of_kind(kind: TransportKind) -> (Connection, Connection) {
    let link = Arc::new(Link::new());
    let end = |side| Connection::new(End { link: link.clone(), side, kind });
    (end(0), end(1))
}

/// What both ends share.
struct Link {
    secret: u64,
    inbox: [Inbox; 2],
    pipes: Mutex<Vec<std::sync::Weak<Pipe>>>,
    closed: Mutex<Option<(usize, Code, String)>>,
    over: CancellationToken,
    next_bi: [AtomicU64; 2],
    next_uni: [AtomicU64; 2],
}

/// What has arrived at one end.
#[derive(Default)]
struct Inbox {
    queues: Mutex<Queues>,
    arrived: Notify,
}

#[derive(Default)]
struct Queues {
    bi: VecDeque<Stream>,
    uni: VecDeque<RecvStream>,
    datagrams: VecDeque<Bytes>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            secret: NEXT.fetch_add(1, Ordering::Relaxed),
            inbox: Default::default(),
            pipes: Mutex::default(),
            closed: Mutex::default(),
            over: CancellationToken::new(),
            next_bi: [AtomicU64::new(0), AtomicU64::new(1)],
            next_uni: [AtomicU64::new(2), AtomicU64::new(3)],
        }
    }

    fn pipe(&self, id: u64) -> (SendStream, RecvStream) {
        let pipe = Pipe::new(PIPE);
        let mut pipes = lock(&self.pipes);
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.push(Arc::downgrade(&pipe));
        let (send, recv) = Pipe::halves(pipe);
        (SendStream::new(send, Some(id)), RecvStream::new(recv, Some(id)))
    }

    fn close(&self, side: usize, code: Code, reason: &str) {
        {
            let mut closed = lock(&self.closed);
            if closed.is_some() {
                return;
            }
            *closed = Some((side, code, reason.into()));
        }
        for pipe in lock(&self.pipes).drain(..).filter_map(|pipe| pipe.upgrade()) {
            pipe.abort();
        }
        self.over.cancel();
    }

    fn closed(&self, side: usize) -> Option<Closed> {
        let (by, code, reason) = lock(&self.closed).clone()?;
        let by = if by == side { ClosedBy::Local } else { ClosedBy::Peer };
        Some(Closed { by, code, reason })
    }
}

struct End {
    link: Arc<Link>,
    side: usize,
    kind: TransportKind,
}

impl Drop for End {
    fn drop(&mut self) {
        self.link.close(self.side, Code::NORMAL, "");
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory::End({})", self.side)
    }
}

impl End {
    fn inbox(&self, side: usize) -> &Inbox {
        let [client, server] = &self.link.inbox;
        if side == 0 { client } else { server }
    }

    fn next(&self, counters: &[AtomicU64; 2]) -> u64 {
        let [client, server] = counters;
        if self.side == 0 { client } else { server }.fetch_add(4, Ordering::Relaxed)
    }

    fn deliver(&self, put: impl FnOnce(&mut Queues)) {
        let inbox = self.inbox(1 - self.side);
        put(&mut lock(&inbox.queues));
        inbox.arrived.notify_waiters();
    }

    fn check_open(&self) -> Result<(), ConnectionError> {
        self.link.closed(self.side).map_or(Ok(()), |closed| Err(ConnectionError::Closed(closed)))
    }

    /// Waits until `take` finds something that has arrived.
    async fn arrival<T>(
        &self,
        take: impl Fn(&mut Queues) -> Option<T>,
    ) -> Result<T, ConnectionError> {
        let inbox = self.inbox(self.side);
        loop {
            let arrived = inbox.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(item) = take(&mut lock(&inbox.queues)) {
                return Ok(item);
            }
            self.check_open()?;
            tokio::select! {
                () = arrived => {}
                () = self.link.over.cancelled() => {}
            }
        }
    }
}

impl Transport for End {
    fn kind(&self) -> TransportKind {
        self.kind
    }

    fn accept_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(self.arrival(|queues| queues.bi.pop_front()))
    }

    fn open_bi(&self) -> BoxFuture<'_, Result<Stream, ConnectionError>> {
        Box::pin(async move {
            self.check_open()?;
            let id = self.next(&self.link.next_bi);
            let (near_send, far_recv) = self.link.pipe(id);
            let (far_send, near_recv) = self.link.pipe(id);
            self.deliver(|queues| queues.bi.push_back(Stream::new(far_send, far_recv)));
            Ok(Stream::new(near_send, near_recv))
        })
    }

    fn accept_uni(&self) -> BoxFuture<'_, Result<RecvStream, ConnectionError>> {
        Box::pin(self.arrival(|queues| queues.uni.pop_front()))
    }

    fn open_uni(&self) -> BoxFuture<'_, Result<SendStream, ConnectionError>> {
        Box::pin(async move {
            self.check_open()?;
            let id = self.next(&self.link.next_uni);
            let (send, recv) = self.link.pipe(id);
            self.deliver(|queues| queues.uni.push_back(recv));
            Ok(send)
        })
    }

    fn read_datagram(&self) -> BoxFuture<'_, Result<Bytes, ConnectionError>> {
        Box::pin(self.arrival(|queues| queues.datagrams.pop_front()))
    }

    fn send_datagram(&self, datagram: Bytes) -> Result<(), ConnectionError> {
        self.check_open()?;
        if datagram.len() > DATAGRAM {
            return Err(ConnectionError::TooLarge);
        }
        self.deliver(|queues| {
            if queues.datagrams.len() >= DATAGRAMS {
                queues.datagrams.pop_front();
            }
            queues.datagrams.push_back(datagram);
        });
        Ok(())
    }

    fn max_datagram_size(&self) -> Option<usize> {
        Some(DATAGRAM)
    }

    fn close(&self, code: Code, reason: &str) {
        self.link.close(self.side, code, reason);
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async move {
            self.link.over.cancelled().await;
            let lost = || Closed { by: ClosedBy::Lost, code: Code::NORMAL, reason: String::new() };
            self.link.closed(self.side).unwrap_or_else(lost)
        })
    }

    /// Not a key derivation: equal at both ends, different for every pair, label and
    /// context, which is all that tests rely on.
    fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ConnectionError> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        for (i, chunk) in out.chunks_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            (self.link.secret, label, context, i).hash(&mut hasher);
            chunk.copy_from_slice(hasher.finish().to_be_bytes().split_at(chunk.len()).0);
        }
        Ok(())
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 0, 0, 1], 9)))
    }
}

#[cfg(test)]
mod tests {
    use alknet_core::StreamReset;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn streams_both_ways_and_their_numbers() {
        let (client, server) = pair();
        let mut up = client.open_bi().await.unwrap();
        assert_eq!(up.id(), Some(0));
        up.write_all(b"hello").await.unwrap();
        up.shutdown().await.unwrap();
        let mut down = server.accept_bi().await.unwrap();
        let mut text = String::new();
        down.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        assert_eq!(server.open_bi().await.unwrap().id(), Some(1));
        assert_eq!(client.open_uni().await.unwrap().id(), Some(2));
    }

    #[tokio::test]
    async fn a_reset_carries_its_code() {
        let (client, server) = pair();
        let mut up = client.open_bi().await.unwrap();
        let mut down = server.accept_bi().await.unwrap();
        up.reset(Code::new(55));
        let error = down.read_u8().await.unwrap_err();
        assert_eq!(StreamReset::code_of(&error), Some(Code::new(55)));
        let error = down.write_all(b"x").await.unwrap_err();
        assert_eq!(StreamReset::code_of(&error), Some(Code::new(55)));
    }

    #[tokio::test]
    async fn a_close_ends_everything_at_both_ends() {
        let (client, server) = pair();
        let mut up = client.open_bi().await.unwrap();
        server.close(Code::LIMIT, "enough");
        assert!(up.read_u8().await.is_err());
        let closed = client.closed().await;
        assert_eq!(
            closed,
            Closed { by: ClosedBy::Peer, code: Code::LIMIT, reason: "enough".into() }
        );
        assert!(client.open_bi().await.is_err());
    }

    #[tokio::test]
    async fn a_dropped_end_closes() {
        let (client, server) = pair();
        drop(client);
        assert_eq!(server.closed().await.by, ClosedBy::Peer);
    }
}
