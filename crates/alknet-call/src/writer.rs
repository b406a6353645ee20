//! The sending direction of a stream, shared by all calls on it.

use std::{
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alknet_core::{Code, SendStream};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Frames, and bytes of them, that may wait to be sent.
const FRAMES: usize = 256;
const BYTES: u32 = 4 * 1024 * 1024;
/// What is sent in one piece.
const PIECE: usize = 64 * 1024;
/// How long a peer may take nothing at all.
const STALLED: Duration = Duration::from_secs(60);
/// How long the end of a stream may take to arrive.
const ARRIVED: Duration = Duration::from_secs(2);

/// Where frames are put. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writer {
    frames: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    urgent: Arc<Urgent>,
}

struct Queued {
    frame: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Small frames that go before the others and never wait for room. There is at most one or
/// two for every frame that the peer or a local caller has got through.
#[derive(Default)]
struct Urgent {
    frames: Mutex<Vec<Bytes>>,
    more: Notify,
}

impl Urgent {
    fn frames(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream is over.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the stream is over")]
pub(crate) struct Over;

impl Writer {
    /// Queues a frame, when there is room. Cancel safe.
    pub(crate) async fn send(&self, frame: Bytes) -> Result<(), Over> {
        let weight = u32::try_from(frame.len()).unwrap_or(BYTES).min(BYTES);
        let room = self.room.clone().acquire_many_owned(weight).await.map_err(|_| Over)?;
        let place = self.frames.reserve().await.map_err(|_| Over)?;
        place.send(Queued { frame, _room: room });
        Ok(())
    }

    /// Sends a small frame as soon as possible.
    pub(crate) fn send_urgent(&self, frame: Bytes) {
        self.urgent.frames().push(frame);
        self.urgent.more.notify_one();
    }
}

/// The task that sends.
pub(crate) struct Sending {
    /// Whether the transport tells when everything has arrived.
    is_acknowledged: bool,
    stream: SendStream,
    frames: mpsc::Receiver<Queued>,
    urgent: Arc<Urgent>,
}

/// Splits a stream's sending direction into where frames are put, and what sends them.
pub(crate) fn writer(stream: SendStream, is_acknowledged: bool) -> (Writer, Sending) {
    let (sender, frames) = mpsc::channel(FRAMES);
    let urgent = Arc::new(Urgent::default());
    let room = Arc::new(Semaphore::new(BYTES as usize));
    let writer = Writer { frames: sender, room, urgent: urgent.clone() };
    (writer, Sending { is_acknowledged, stream, frames, urgent })
}

impl Sending {
    /// Sends what is queued until `finish`, then the rest, and ends the direction.
    pub(crate) async fn run(mut self, finish: CancellationToken) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(PIECE);
        let mut queued = Vec::new();
        loop {
            let urgent = mem::take(&mut *self.urgent.frames());
            if urgent.is_empty() && queued.is_empty() {
                tokio::select! {
                    biased;
                    received = self.frames.recv_many(&mut queued, FRAMES) => {
                        if received == 0 {
                            break;
                        }
                    }
                    () = self.urgent.more.notified() => {}
                    () = finish.cancelled() => break,
                }
                continue;
            }
            for frame in urgent {
                self.put(&mut buffer, &frame).await?;
            }
            for Queued { frame, _room } in queued.drain(..) {
                self.put(&mut buffer, &frame).await?;
            }
            self.write(&mut buffer).await?;
        }
        timeout(STALLED, self.stream.shutdown()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if self.is_acknowledged {
            // A connection that is closed now takes with it what has not arrived.
            let _ = timeout(ARRIVED, self.stream.stopped()).await;
        }
        Ok(())
    }

    /// Adds a frame to what is sent in one piece.
    async fn put(&mut self, buffer: &mut BytesMut, frame: &[u8]) -> io::Result<()> {
        if buffer.len() + frame.len() > PIECE {
            self.write(buffer).await?;
        }
        buffer.extend_from_slice(frame);
        if buffer.len() >= PIECE {
            self.write(buffer).await?;
        }
        Ok(())
    }

    async fn write(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        while !buffer.is_empty() {
            let written = timeout(STALLED, self.stream.write_buf(buffer)).await;
            match written {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(written?),
                Err(_) => {
                    self.stream.reset(Code::TIMEOUT);
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        timeout(STALLED, self.stream.flush()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        // Room for one large frame is not kept for ever.
        if buffer.capacity() > 2 * PIECE {
            *buffer = BytesMut::with_capacity(PIECE);
        }
        Ok(())
    }
}
