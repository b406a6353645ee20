//! Which session a stream or datagram belongs to.
//!
//! A session's id is the number of its CONNECT stream. QUIC promises no order between
//! streams, so what belongs to a session may arrive before the session is accepted, or
//! after it is over. The hub holds what is alive and nothing else: an id that is neither
//! a session nor a request still undecided, and is not still to come, is gone.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alknet_core::{BoxFuture, Closed, Code, RecvStream, Stream};
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout_at},
};

use super::{codes, session::State, stream};

/// Streams of one connection that wait for their session.
const EARLY_STREAMS: usize = 64;
/// Datagrams of one connection that wait for their session.
const EARLY_DATAGRAMS: usize = 32;
/// How long a stream waits for its session.
const EARLY: Duration = Duration::from_secs(10);
/// Streams of one session, each way, that wait for the handler to accept them; beyond the
/// number of streams that QUIC lets a peer have open.
const STREAMS: usize = 1024;
/// Datagrams of one session that wait for the handler to read them.
const DATAGRAMS: usize = 128;

/// Something that arrived for a session.
pub(super) enum Arrival {
    Bi(Stream),
    Uni(RecvStream),
}

impl Arrival {
    pub(super) fn reject(self, code: Code) {
        match self {
            Self::Bi(mut stream) => stream.reset(code),
            Self::Uni(mut recv) => recv.stop(code),
        }
    }
}

/// Resolves when the peer stops the answer to a request, or has all of it.
pub(super) type Stopped = BoxFuture<'static, Option<Code>>;

/// Where an accepted session finds what arrives for it.
pub(super) struct Inbox {
    pub(super) bi: mpsc::Receiver<Stream>,
    pub(super) uni: mpsc::Receiver<RecvStream>,
    pub(super) datagrams: mpsc::Receiver<Bytes>,
}

#[derive(Clone)]
struct Feed {
    bi: mpsc::Sender<Stream>,
    uni: mpsc::Sender<RecvStream>,
    datagrams: mpsc::Sender<Bytes>,
    session: Arc<State>,
}

/// The sessions of one connection.
pub(super) struct Hub {
    requests: Mutex<Requests>,
    /// Wakes the streams that wait for a session.
    changes: watch::Sender<()>,
    early: Semaphore,
}

struct Requests {
    /// Beyond every request that exists; `None` on a client, which makes them itself.
    next: Option<u64>,
    undecided: HashSet<u64>,
    stopped: HashMap<u64, Stopped>,
    sessions: HashMap<u64, Feed>,
    datagrams: VecDeque<(u64, Bytes)>,
    had_sessions: bool,
}

enum Found {
    Session(Feed),
    Undecided,
    Gone,
}

impl Requests {
    fn find(&self, id: u64) -> Found {
        if let Some(feed) = self.sessions.get(&id) {
            return Found::Session(feed.clone());
        }
        let to_come = self.next.is_some_and(|next| id >= next);
        if to_come || self.undecided.contains(&id) { Found::Undecided } else { Found::Gone }
    }
}

impl Hub {
    /// For the side that accepts sessions.
    pub(super) fn server() -> Arc<Self> {
        Self::new(Some(0))
    }

    /// For the side that asks for them.
    pub(super) fn client() -> Arc<Self> {
        Self::new(None)
    }

    fn new(next: Option<u64>) -> Arc<Self> {
        let requests = Requests {
            next,
            undecided: HashSet::new(),
            stopped: HashMap::new(),
            sessions: HashMap::new(),
            datagrams: VecDeque::new(),
            had_sessions: false,
        };
        Arc::new(Self {
            requests: Mutex::new(requests),
            changes: watch::Sender::new(()),
            early: Semaphore::new(EARLY_STREAMS),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request stream exists: it may become a session, until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>, id: u64) -> Request {
        let mut requests = self.lock();
        if let Some(next) = &mut requests.next {
            *next = (*next).max(id + 4);
        }
        requests.undecided.insert(id);
        Request { hub: self.clone(), id }
    }

    /// What tells that the peer wants no answer to a request; `None` if it was taken.
    pub(super) fn take_stopped(&self, id: u64) -> Option<Stopped> {
        self.lock().stopped.remove(&id)
    }

    /// The request became a session: what waits for it goes there.
    pub(super) fn activate(&self, id: u64, session: Arc<State>) -> Inbox {
        let (bi, bi_inbox) = mpsc::channel(STREAMS);
        let (uni, uni_inbox) = mpsc::channel(STREAMS);
        let (datagrams, datagram_inbox) = mpsc::channel(DATAGRAMS);
        {
            let mut requests = self.lock();
            requests.undecided.remove(&id);
            requests.datagrams.retain(|(of, datagram)| {
                // The inbox has room for all that can have waited.
                let _ = *of == id && datagrams.try_send(datagram.clone()).is_ok();
                *of != id
            });
            requests.had_sessions = true;
            requests.sessions.insert(id, Feed { bi, uni, datagrams, session });
        }
        self.changes.send_replace(());
        Inbox { bi: bi_inbox, uni: uni_inbox, datagrams: datagram_inbox }
    }

    /// The request is no session, or no longer.
    pub(super) fn end(&self, id: u64) {
        {
            let mut requests = self.lock();
            requests.undecided.remove(&id);
            requests.stopped.remove(&id);
            requests.sessions.remove(&id);
            requests.datagrams.retain(|(of, _)| *of != id);
        }
        self.changes.send_replace(());
    }

    /// The connection is over, and its sessions with it.
    pub(super) fn end_all(&self, closed: &Closed) {
        let sessions = std::mem::take(&mut self.lock().sessions);
        for feed in sessions.into_values() {
            feed.session.end(closed.clone());
        }
    }

    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether there ever was one.
    pub(super) fn had_sessions(&self) -> bool {
        self.lock().had_sessions
    }

    /// Brings a stream to its session, waiting for one that has not come yet.
    pub(super) async fn deliver(&self, id: u64, arrival: Arrival) {
        let mut changes = self.changes.subscribe();
        let Some(arrival) = self.try_deliver(id, arrival) else { return };
        let Ok(_place) = self.early.try_acquire() else {
            return arrival.reject(codes::BUFFERED_STREAM_REJECTED);
        };
        let deadline = Instant::now() + EARLY;
        let mut waiting = arrival;
        while let Ok(Ok(())) = timeout_at(deadline, changes.changed()).await {
            let Some(arrival) = self.try_deliver(id, waiting) else { return };
            waiting = arrival;
        }
        waiting.reject(codes::BUFFERED_STREAM_REJECTED);
    }

    /// Gives a stream back that has to wait.
    fn try_deliver(&self, id: u64, arrival: Arrival) -> Option<Arrival> {
        let found = self.lock().find(id);
        match found {
            Found::Session(feed) => feed.push(arrival),
            Found::Gone => arrival.reject(codes::SESSION_GONE),
            Found::Undecided => return Some(arrival),
        }
        None
    }

    /// Brings a datagram to its session, or keeps it for a while, or drops it.
    pub(super) fn deliver_datagram(&self, id: u64, datagram: Bytes) {
        let mut requests = self.lock();
        match requests.find(id) {
            // A datagram for a full inbox is lost, as datagrams may be.
            Found::Session(feed) => drop(feed.datagrams.try_send(datagram)),
            Found::Undecided => {
                if requests.datagrams.len() >= EARLY_DATAGRAMS {
                    requests.datagrams.pop_front();
                }
                requests.datagrams.push_back((id, datagram));
            }
            Found::Gone => {}
        }
    }
}

impl Feed {
    fn push(&self, arrival: Arrival) {
        let refused = match arrival {
            Arrival::Bi(stream) => match self.bi.try_reserve() {
                Ok(place) => return place.send(stream::bind(stream, &self.session)),
                Err(_) => Arrival::Bi(stream),
            },
            Arrival::Uni(recv) => match self.uni.try_reserve() {
                Ok(place) => return place.send(stream::bind_recv(recv, &self.session)),
                Err(_) => Arrival::Uni(recv),
            },
        };
        let over = self.session.is_over();
        refused.reject(if over { codes::SESSION_GONE } else { codes::BUFFERED_STREAM_REJECTED });
    }
}

/// A request stream that exists. Dropped with it.
pub(super) struct Request {
    hub: Arc<Hub>,
    id: u64,
}

impl Request {
    /// Keeps what tells that the peer wants no answer.
    pub(super) fn watch(&self, stopped: Stopped) {
        self.hub.lock().stopped.insert(self.id, stopped);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.hub.end(self.id);
    }
}
