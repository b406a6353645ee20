//! The sending direction of a stream, shared by all calls on it.

use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use alknet_core::{BoxFuture, Code, SendStream};
use tokio::{io::AsyncWriteExt as _, sync::Semaphore, time::timeout};

/// Bytes of frames that may wait to be sent.
const BYTES: u32 = 1024 * 1024;
/// Bytes of small frames that may wait beside them.
const SMALL: usize = 1024 * 1024;
/// The buffer that is kept.
const KEPT: usize = 128 * 1024;
/// How long a peer may take nothing at all.
const STALLED: Duration = Duration::from_secs(60);
/// How long the end of a stream may take to arrive.
const ARRIVED: Duration = Duration::from_secs(2);

/// Where frames are put. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Queue>);

struct Queue {
    /// A permit for each byte that may still be queued.
    room: Semaphore,
    queued: Mutex<Queued>,
}

#[derive(Default)]
struct Queued {
    /// Whole frames, one behind the other.
    frames: Vec<u8>,
    /// The permits that they hold.
    held: usize,
    /// Bytes of them that hold none.
    small: usize,
    /// Whether nothing more is put.
    is_finished: bool,
    /// Who waits for frames.
    waiting: Option<Waker>,
}

/// The stream is over.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the stream is over")]
pub(crate) struct Over;

impl Writer {
    /// Queues a frame, when there is room. Cancel safe.
    pub(crate) async fn send(&self, frame: &[u8]) -> Result<(), Over> {
        let weight = u32::try_from(frame.len()).unwrap_or(BYTES).min(BYTES);
        let room = match self.0.room.try_acquire_many(weight) {
            Ok(room) => room,
            Err(_) => self.0.room.acquire_many(weight).await.map_err(|_| Over)?,
        };
        let held = room.num_permits();
        room.forget();
        self.put(|queued| {
            queued.frames.extend_from_slice(frame);
            queued.held += held;
        });
        Ok(())
    }

    /// Queues a small frame, whether there is room or not, behind all that is queued: an abort
    /// must not overtake the request that it is about. False once far more of them wait than
    /// a peer that reads would ever leave: the stream has to end.
    #[must_use]
    pub(crate) fn send_small(&self, frame: &[u8]) -> bool {
        let mut fits = false;
        self.put(|queued| {
            fits = queued.small + frame.len() <= SMALL;
            if fits {
                queued.small += frame.len();
                queued.frames.extend_from_slice(frame);
            }
        });
        fits
    }

    /// Ends the direction behind what is queued.
    pub(crate) fn finish(&self) {
        self.put(|queued| queued.is_finished = true);
    }

    /// For the task that sends as well, before it does other work: it looks into the queue
    /// by itself afterwards, so that nobody has to wake it until then.
    pub(crate) fn stay_awake(&self) {
        self.queued().waiting = None;
    }

    fn put(&self, put: impl FnOnce(&mut Queued)) {
        let waiting = {
            let mut queued = self.queued();
            put(&mut queued);
            queued.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Moves what is queued into an empty buffer, and tells the permits that it holds;
    /// `None` once there will be no more.
    fn poll_next(&self, buffer: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let mut queued = self.queued();
        if !queued.frames.is_empty() {
            mem::swap(buffer, &mut queued.frames);
            queued.small = 0;
            return Poll::Ready(Some(mem::take(&mut queued.held)));
        }
        if queued.is_finished {
            return Poll::Ready(None);
        }
        queued.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn queued(&self) -> MutexGuard<'_, Queued> {
        self.0.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What sends.
pub(crate) struct Sending {
    /// Whether the transport tells when everything has arrived.
    is_acknowledged: bool,
    stream: SendStream,
    writer: Writer,
}

/// Splits a stream's sending direction into where frames are put, and what sends them.
pub(crate) fn writer(stream: SendStream, is_acknowledged: bool) -> (Writer, Sending) {
    let (room, queued) = (Semaphore::new(BYTES as usize), Mutex::default());
    let writer = Writer(Arc::new(Queue { room, queued }));
    (writer.clone(), Sending { is_acknowledged, stream, writer })
}

impl Sending {
    /// Waits until the peer wants no more, or is gone.
    pub(crate) fn stopped(&self) -> BoxFuture<'static, Option<Code>> {
        self.stream.stopped()
    }

    /// Sends what is queued until the writer is finished, and ends the direction.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(held) = poll_fn(|cx| self.writer.poll_next(&mut buffer, cx)).await {
            self.write(&buffer).await?;
            self.writer.0.room.add_permits(held);
            // Room for one large frame is not kept for ever.
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
        in_time(self.stream.shutdown()).await?;
        if self.is_acknowledged {
            // A connection that is closed now takes with it what has not arrived.
            let _ = timeout(ARRIVED, self.stream.stopped()).await;
        }
        Ok(())
    }

    async fn write(&mut self, mut frames: &[u8]) -> io::Result<()> {
        while !frames.is_empty() {
            match in_time(self.stream.write_buf(&mut frames)).await {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::TimedOut {
                        self.stream.reset(Code::TIMEOUT);
                    }
                    return Err(error);
                }
            }
        }
        in_time(self.stream.flush()).await
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.writer.0.room.close();
    }
}

/// Gives a peer that takes nothing no more than its time.
async fn in_time<T>(sending: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut sending = pin!(sending);
    // Nearly all of it is done at once, and needs no timer.
    if let Poll::Ready(sent) = futures_util::poll!(&mut sending) {
        return sent;
    }
    timeout(STALLED, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
