//! One stream of a client, on the node.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alknet_core::{AuthContext, Identity, RecvStream, SendStream, Stream};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    Shells,
    hub::Next,
    session::Seat,
    wire::{Decoder, Frame, FromClient, FromNode, Refusal, RefusalCode, Sender},
};

/// How long the first frame may take.
const FIRST: Duration = Duration::from_secs(10);
/// How long a session may take to start: longer than whatever says who has which account and
/// whatever records, which have ten seconds each, so that a refusal of theirs is told.
const START: Duration = Duration::from_secs(25);
/// How long a viewer may be silent before it is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(15);
/// How many times.
const ASKED: u32 = 3;
/// How long a client may take to hear the last frame.
const LAST: Duration = Duration::from_secs(10);
/// How long the stream of an attachment that was taken over gets to say so.
const REPLACED: Duration = Duration::from_secs(1);
/// PINGs that wait for their answer.
const PINGS: usize = 16;
/// How much is gathered for one write, in bytes.
const GATHER: usize = 32 * 1024;

/// Serves a stream to its end.
pub(crate) async fn serve(
    shells: Shells,
    stream: Stream,
    auth: AuthContext,
    identity: Arc<Identity>,
) {
    let (mut send, recv) = stream.split();
    let mut reader = Reader { recv, decoder: Decoder::new(Sender::Client) };
    let answer = match timeout(FIRST, reader.request()).await {
        Err(_) => return,
        Ok(Ok(FromClient::Attach(request))) => {
            let attached = tokio::select! {
                attached = shells.attach(&auth, &identity, &request) => attached,
                () = sleep(START) => Err(Refusal::new(RefusalCode::Failed, "it takes too long")),
            };
            match attached {
                Ok((seat, attached)) => {
                    let first = FromNode::Attached(attached);
                    return Attachment::new(seat).serve(reader, send, &first).await;
                }
                Err(refusal) => FromNode::Error(refusal),
            }
        }
        Ok(Ok(FromClient::List)) => FromNode::Sessions { sessions: shells.list(&identity) },
        Ok(Ok(FromClient::End(_))) if !crate::handler::may_type(&identity.scopes) => {
            let message = "this credential is for looking on only";
            FromNode::Error(Refusal::new(RefusalCode::NotFound, message))
        }
        Ok(Ok(FromClient::End(which))) => match shells.end(&identity, &which) {
            Ok(name) => FromNode::Ended { name },
            Err(refusal) => FromNode::Error(refusal),
        },
        Ok(Err(Some(refusal))) => FromNode::Error(refusal),
        Ok(Err(None)) => return,
    };
    let mut bytes = BytesMut::new();
    answer.frame().encode(&mut bytes);
    let said = async {
        send.write_all(&bytes).await?;
        send.shutdown().await?;
        reader.rest().await;
        Ok::<_, io::Error>(())
    };
    let _ = timeout(LAST, said).await;
}

/// The frames of a client.
struct Reader {
    recv: RecvStream,
    decoder: Decoder,
}

fn broken(message: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Protocol, message)
}

impl Reader {
    /// The next frame; `Err(None)` when the stream is over. Cancel safe.
    async fn next(&mut self) -> Result<Frame, Option<Refusal>> {
        loop {
            if let Some(frame) = self.decoder.frame().map_err(|error| Some(broken(error)))? {
                return Ok(frame);
            }
            match self.recv.read_buf(self.decoder.buffer()).await {
                Ok(1..) => {}
                _ => return Err(None),
            }
        }
    }

    /// What the client begins with.
    async fn request(&mut self) -> Result<FromClient, Option<Refusal>> {
        match self.next().await? {
            Frame::Control(json) => FromClient::read(&json).map_err(|error| Some(broken(error))),
            _ => Err(Some(broken("a stream begins with a CONTROL"))),
        }
    }

    /// Reads to the end, and drops what comes.
    async fn rest(&mut self) {
        while matches!(self.recv.chunk(GATHER).await, Ok(Some(_))) {}
    }
}

/// A viewer's stream.
struct Attachment {
    seat: Seat,
    urgent: Mutex<Urgent>,
    /// Told when something is urgent.
    wake: Notify,
}

/// What goes out ahead of everything that waits.
#[derive(Default)]
struct Urgent {
    pongs: Vec<u64>,
    ping: Option<u64>,
    refusal: Option<Refusal>,
}

impl Attachment {
    fn new(seat: Seat) -> Self {
        Self { seat, urgent: Mutex::default(), wake: Notify::new() }
    }

    fn urgent(&self) -> MutexGuard<'_, Urgent> {
        self.urgent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, mut reader: Reader, mut send: SendStream, first: &FromNode) {
        let mut bytes = BytesMut::new();
        first.frame().encode(&mut bytes);
        let ended = tokio::select! {
            ended = self.write(&mut send, bytes) => ended.is_ok(),
            () = self.read(&mut reader) => false,
            () = self.replaced() => false,
        };
        if ended {
            // What was said has to arrive before the connection may end.
            let heard = async {
                while let Ok(frame) = reader.next().await {
                    let _ = self.seat.session.hub().arrived(self.seat.place, frame, Instant::now());
                }
            };
            let _ = timeout(LAST, heard).await;
        }
        if self.seat.session.is_over() {
            self.seat.session.settle();
        }
    }

    /// Takes in what the client says, until the client is gone. A client that broke the
    /// rules is gone once it was told.
    async fn read(&self, reader: &mut Reader) {
        let mut asked = 0;
        loop {
            let heard = match timeout(SILENCE, reader.next()).await {
                Ok(heard) => heard,
                Err(_) if asked == ASKED => return,
                Err(_) => {
                    asked += 1;
                    self.urgent().ping = Some(asked.into());
                    self.wake.notify_one();
                    continue;
                }
            };
            asked = 0;
            let done = match heard {
                Ok(Frame::Ping(token)) => self.ping(token),
                Ok(frame) => self.arrived(frame),
                Err(None) => return,
                Err(Some(refusal)) => Err(refusal),
            };
            if let Err(refusal) = done {
                self.urgent().refusal = Some(refusal);
                self.wake.notify_one();
                return sleep(LAST).await;
            }
        }
    }

    fn ping(&self, token: u64) -> Result<(), Refusal> {
        let mut urgent = self.urgent();
        if urgent.pongs.len() >= PINGS {
            return Err(Refusal::new(RefusalCode::Busy, "too many PINGs at once"));
        }
        urgent.pongs.push(token);
        drop(urgent);
        self.wake.notify_one();
        Ok(())
    }

    fn arrived(&self, frame: Frame) -> Result<(), Refusal> {
        let done = self.seat.session.hub().arrived(self.seat.place, frame, Instant::now());
        self.seat.session.settle();
        done
    }

    /// Sends what there is to send, until there is nothing more ever.
    async fn write(&self, send: &mut SendStream, mut bytes: BytesMut) -> io::Result<()> {
        loop {
            let changed = self.seat.session.changed.notified();
            let mut changed = pin!(changed);
            changed.as_mut().enable();
            let last = self.gather(&mut bytes);
            if !bytes.is_empty() {
                send.write_all(&bytes).await?;
                send.flush().await?;
                bytes.clear();
            } else if !last {
                tokio::select! {
                    () = changed => {}
                    () = self.wake.notified() => {}
                }
            }
            if last {
                return send.shutdown().await;
            }
        }
    }

    /// Adds what is to be sent; whether it is the last.
    fn gather(&self, bytes: &mut BytesMut) -> bool {
        let urgent = std::mem::take(&mut *self.urgent());
        for token in urgent.pongs {
            Frame::Pong(token).encode(bytes);
        }
        if let Some(token) = urgent.ping {
            Frame::Ping(token).encode(bytes);
        }
        if let Some(refusal) = urgent.refusal {
            FromNode::Error(refusal).frame().encode(bytes);
            return true;
        }
        let now = Instant::now();
        while bytes.len() < GATHER {
            let next = self.seat.session.hub().next(self.seat.place, now);
            match next {
                Next::Frame(frame) => frame.encode(bytes),
                Next::Wait => return false,
                Next::Over => return true,
                Next::Last(frame) => {
                    frame.encode(bytes);
                    return true;
                }
            }
        }
        false
    }

    /// Waits until another attachment has taken over, and a little longer: a write that
    /// blocks on a transport that is gone must not keep this one.
    async fn replaced(&self) {
        loop {
            let changed = self.seat.session.changed.notified();
            let mut changed = pin!(changed);
            changed.as_mut().enable();
            if !self.seat.session.hub().is_at(self.seat.place) {
                return sleep(REPLACED).await;
            }
            changed.await;
        }
    }
}
