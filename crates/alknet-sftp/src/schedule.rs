//! Which request runs when.
//!
//! Answers are those of a server that does one request after the other (draft, section 4.1):
//! whatever touches the same file keeps its order. Requests on one file, under whatever
//! handles, form a lane and run one after the other; lanes run beside each other. Requests
//! that name a path may be about any file: those that only look run beside one another and
//! beside reads, and those that change something run alone.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::{
    flags::opens_for_writing,
    handles::{Lane, Open},
    perform::{Copied, perform},
    session::{Answer, Context, SessionError},
    wire::{self, Request},
};

/// Threads that one session may have waiting for the disk.
const WORKERS: usize = 8;
/// How many requests on a file are done at once.
const BATCH: usize = 64;
/// More than so many on a file are worth a thread, beside which their answers are sent.
const FEW: usize = 4;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Job {
    id: u32,
    request: Request,
    /// What it names by a handle.
    open: Option<Arc<Open>>,
    copied: Copied,
    room: OwnedSemaphorePermit,
}

impl Job {
    pub(crate) fn new(id: u32, request: Request, room: OwnedSemaphorePermit) -> Self {
        Self { id, request, open: None, copied: Copied::default(), room }
    }

    /// Does it, or a piece of it: then it is to be done again.
    fn perform(mut self, context: &Context) -> Result<Answer, Box<Self>> {
        let open = self.open.as_deref();
        let outcome = perform(context, self.id, &self.request, open, &mut self.copied);
        if self.copied.more && outcome.is_ok() {
            return Err(Box::new(self));
        }
        Ok((wire::answer(self.id, outcome), self.room))
    }

    /// Does it if that takes no waiting for the disk.
    fn quick(&self, context: &Context) -> Option<Bytes> {
        let outcome = context.quick(self.id, &self.request, self.open.as_deref())?;
        Some(wire::answer(self.id, outcome))
    }
}

/// What a request must not overtake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Nothing, and nothing overtakes it.
    Alone,
    /// What changes something.
    Looks,
    /// What else is on the lane, and what changes something.
    Reads(Lane),
    /// What else is on the lane, and what looks.
    Writes(Lane),
}

/// What a thread was doing.
#[derive(Debug)]
enum Done {
    Alone,
    Look,
    Lane {
        lane: Lane,
        jobs: usize,
        writes: usize,
    },
    /// A piece of a request that runs alone.
    Piece(Box<Job>),
}

/// The requests of a session.
pub(crate) struct Schedule {
    context: Arc<Context>,
    replies: mpsc::UnboundedSender<Answer>,
    /// In the order of arrival, the first of which has to wait.
    waiting: VecDeque<Job>,
    /// An empty one has its last requests running.
    lanes: HashMap<Lane, VecDeque<Job>>,
    /// Lanes and looks that wait for a thread.
    ready: VecDeque<Ready>,
    running: JoinSet<Done>,
    alone: bool,
    looks: usize,
    /// On lanes, whether they run yet or not.
    on_lanes: usize,
    writes: usize,
}

enum Ready {
    Lane(Lane),
    Job(Job, Done),
}

/// What came of what was ready.
struct Begun {
    /// The node has no thread left.
    starved: bool,
    /// Something was done.
    done: bool,
}

impl Schedule {
    pub(crate) fn new(context: Arc<Context>, replies: mpsc::UnboundedSender<Answer>) -> Self {
        Self {
            context,
            replies,
            waiting: VecDeque::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            running: JoinSet::new(),
            alone: false,
            looks: 0,
            on_lanes: 0,
            writes: 0,
        }
    }

    /// Does what arrives, until no more will and all is done.
    pub(crate) async fn run(
        mut self,
        mut arrived: mpsc::Receiver<Job>,
    ) -> Result<(), SessionError> {
        let mut more = true;
        while more || !self.is_idle() {
            let pause = self.context.trail.pause();
            let starved = loop {
                if pause.is_none() {
                    self.admit();
                }
                // What is done already may be what others wait for.
                let Begun { starved, done } = self.start();
                if !done {
                    break starved;
                }
            };
            let workers = self.context.workers.clone();
            tokio::select! {
                job = arrived.recv(), if more => match job {
                    Some(job) => {
                        self.waiting.push_back(job);
                        while let Ok(job) = arrived.try_recv() {
                            self.waiting.push_back(job);
                        }
                    }
                    None => more = false,
                },
                Some(done) = self.running.join_next() => {
                    self.settle(done)?;
                    while let Some(done) = self.running.try_join_next() {
                        self.settle(done)?;
                    }
                }
                Ok(thread) = workers.acquire_owned(), if starved => self.start_one(thread),
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
        let context = self.context;
        // What the client left open is closed where the disk may be waited for.
        let left = context.handles.clear();
        tokio::task::spawn_blocking(move || {
            left.iter().for_each(|open| context.abandon(open));
            drop(left);
        })
        .await
        .map_err(SessionError::Panic)
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty() && self.running.is_empty()
    }

    /// Lets requests in, in the order of their arrival, until one has to wait.
    fn admit(&mut self) {
        while let Some(job) = self.waiting.front_mut() {
            let order = match order(&self.context, job) {
                Ok(order) => order,
                Err(fault) => {
                    if let Some(job) = self.waiting.pop_front() {
                        let answer = wire::answer(job.id, Err(fault));
                        let _ = self.replies.send((answer, job.room));
                    }
                    continue;
                }
            };
            if !self.may_begin(order) {
                return;
            }
            let Some(job) = self.waiting.pop_front() else { return };
            self.enter(job, order);
        }
    }

    fn may_begin(&self, order: Order) -> bool {
        match order {
            Order::Alone => !self.alone && self.looks == 0 && self.on_lanes == 0,
            Order::Looks => !self.alone && self.writes == 0,
            Order::Reads(_) => !self.alone,
            Order::Writes(_) => !self.alone && self.looks == 0,
        }
    }

    fn enter(&mut self, mut job: Job, order: Order) {
        // Nobody finds it any more: what comes after its CLOSE is too late.
        if let Request::Close { handle } = &job.request {
            job.open = self.context.handles.take(handle).ok();
        }
        match order {
            Order::Alone => {
                self.alone = true;
                self.ready.push_back(Ready::Job(job, Done::Alone));
            }
            Order::Looks => {
                self.looks += 1;
                self.ready.push_back(Ready::Job(job, Done::Look));
            }
            Order::Reads(lane) | Order::Writes(lane) => {
                self.on_lanes += 1;
                self.writes += usize::from(order == Order::Writes(lane));
                match self.lanes.entry(lane) {
                    Entry::Occupied(mut queue) => queue.get_mut().push_back(job),
                    Entry::Vacant(place) => {
                        place.insert(VecDeque::new()).push_back(job);
                        self.ready.push_back(Ready::Lane(lane));
                    }
                }
            }
        }
    }

    /// Does what is ready and quick, and starts the rest while there are threads.
    fn start(&mut self) -> Begun {
        let mut begun = Begun { starved: false, done: false };
        while let Some(ready) = self.ready.pop_front() {
            let Some(slow) = self.quick(ready) else {
                begun.done = true;
                continue;
            };
            self.ready.push_front(slow);
            if self.running.len() >= WORKERS {
                break;
            }
            let Ok(thread) = self.context.workers.clone().try_acquire_owned() else {
                begun.starved = true;
                break;
            };
            self.start_one(thread);
        }
        begun
    }

    /// Does what takes no thread; the rest of it, if that is not all.
    fn quick(&mut self, ready: Ready) -> Option<Ready> {
        match ready {
            Ready::Job(job, Done::Look) => match job.quick(&self.context) {
                Some(answer) => {
                    self.looks -= 1;
                    let _ = self.replies.send((answer, job.room));
                    None
                }
                None => Some(Ready::Job(job, Done::Look)),
            },
            Ready::Lane(lane) => self.quick_lane(lane).then_some(Ready::Lane(lane)),
            ready @ Ready::Job(..) => Some(ready),
        }
    }

    /// Does the first requests of a lane; whether there are others.
    fn quick_lane(&mut self, lane: Lane) -> bool {
        let Entry::Occupied(mut queue) = self.lanes.entry(lane) else { return false };
        if queue.get().len() > FEW {
            return true;
        }
        while let Some(job) = queue.get_mut().pop_front() {
            match job.quick(&self.context) {
                Some(answer) => {
                    self.on_lanes -= 1;
                    let _ = self.replies.send((answer, job.room));
                }
                None => {
                    queue.get_mut().push_front(job);
                    return true;
                }
            }
        }
        queue.remove();
        false
    }

    fn start_one(&mut self, thread: OwnedSemaphorePermit) {
        let (context, replies) = (self.context.clone(), self.replies.clone());
        match self.ready.pop_front() {
            None => {}
            Some(Ready::Job(job, done)) => {
                self.running.spawn_blocking(move || {
                    let answer = match job.perform(&context) {
                        Ok(answer) => answer,
                        Err(job) => return Done::Piece(job),
                    };
                    let _ = replies.send(answer);
                    drop(thread);
                    done
                });
            }
            Some(Ready::Lane(lane)) => {
                let Some(queue) = self.lanes.get_mut(&lane) else { return };
                let batch: Vec<Job> = queue.drain(..queue.len().min(BATCH)).collect();
                self.running.spawn_blocking(move || {
                    let (jobs, mut writes) = (batch.len(), 0);
                    for job in batch {
                        writes += usize::from(writes_file(&job));
                        if !context.is_over()
                            && let Ok(answer) = job.perform(&context)
                        {
                            let _ = replies.send(answer);
                        }
                    }
                    drop(thread);
                    Done::Lane { lane, jobs, writes }
                });
            }
        }
    }

    fn settle(&mut self, done: Result<Done, JoinError>) -> Result<(), SessionError> {
        match done.map_err(SessionError::Panic)? {
            Done::Alone => self.alone = false,
            Done::Look => self.looks -= 1,
            Done::Piece(job) => self.ready.push_back(Ready::Job(*job, Done::Alone)),
            Done::Lane { lane, jobs, writes } => {
                self.on_lanes -= jobs;
                self.writes -= writes;
                if let Entry::Occupied(queue) = self.lanes.entry(lane) {
                    if queue.get().is_empty() {
                        queue.remove();
                    } else {
                        self.ready.push_back(Ready::Lane(lane));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a request on a handle changes the file, or what others see of it.
fn writes_file(job: &Job) -> bool {
    let writes =
        || job.open.as_ref().is_some_and(|open| open.file().is_ok_and(|file| file.writes()));
    match job.request {
        Request::Write { .. } | Request::FSetStat { .. } | Request::FSync { .. } => true,
        Request::Close { .. } => writes(),
        _ => false,
    }
}

/// What a request must not overtake. A handle that names nothing is a fault at once.
fn order(context: &Context, job: &mut Job) -> Result<Order, crate::fault::Fault> {
    context.permit(&job.request)?;
    if let Some(handle) = job.request.handle() {
        let open = match &job.open {
            Some(open) => open,
            None => job.open.insert(context.handles.find(handle)?),
        };
        let lane = open.lane;
        return Ok(if writes_file(job) { Order::Writes(lane) } else { Order::Reads(lane) });
    }
    Ok(match &job.request {
        Request::Open { flags, .. } if !opens_for_writing(*flags) => Order::Looks,
        Request::Open { .. } | Request::CopyData(_) => Order::Alone,
        request if request.changes() => Order::Alone,
        _ => Order::Looks,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        sync::Semaphore,
        task::JoinSet,
        time::timeout,
    };

    use crate::{Session, Shared, View};

    fn packet(kind: u8, fields: &[u8]) -> Vec<u8> {
        let length = u32::try_from(5 + fields.len()).unwrap();
        [&length.to_be_bytes()[..], &[kind, 0, 0, 0, 1], fields].concat()
    }

    fn text(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
    }

    async fn answer(stream: &mut DuplexStream) -> Vec<u8> {
        let length = stream.read_u32().await.unwrap();
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    async fn opened(stream: &mut DuplexStream, path: &str, flags: u32) -> Vec<u8> {
        let fields = [&text(path.as_bytes())[..], &flags.to_be_bytes(), &[0; 4]].concat();
        stream.write_all(&packet(3, &fields)).await.unwrap();
        answer(stream).await.split_off(9)
    }

    /// With one thread for all sessions, and a copy of a terabyte.
    #[tokio::test]
    async fn a_long_copy_lets_others_have_their_turn() {
        let dir = tempfile::tempdir().unwrap();
        let large = std::fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(1 << 40).unwrap();
        let mut shared = Shared::default();
        shared.workers = Semaphore::new(1).into();
        let mut servers = JoinSet::new();
        let mut start = async || {
            let (mut near, far) = tokio::io::duplex(64 << 10);
            let (input, output) = tokio::io::split(far);
            let session = Session::new(View::account(dir.path()).unwrap(), shared.clone());
            servers.spawn(session.serve(input, output));
            near.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).await.unwrap();
            answer(&mut near).await;
            near
        };
        let (mut copying, mut other) = (start().await, start().await);
        let from = opened(&mut copying, "large", 1).await;
        let to = opened(&mut copying, "/dev/null", 2).await;
        let copy = [text(b"copy-data"), text(&from), vec![0; 16], text(&to), vec![0; 8]].concat();
        copying.write_all(&packet(200, &copy)).await.unwrap();
        for _ in 0..20 {
            other.write_all(&packet(17, &text(b"large"))).await.unwrap();
            let told = timeout(Duration::from_secs(60), answer(&mut other)).await.unwrap();
            assert_eq!(told[0], 105);
        }
        assert!(servers.try_join_next().is_none(), "the copy is under way");
    }
}
