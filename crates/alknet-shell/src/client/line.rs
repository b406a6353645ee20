//! One connection of a viewer.

use std::{io, time::Duration};

use alknet_core::{Closed, Code, Connection, RecvStream, SendStream};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::{DialError, RequestError};
use crate::wire::{Attached, Decoder, Frame, FromClient, FromNode, Refusal, Sender};

/// Frames that wait to be looked at, or to be written.
const QUEUE: usize = 64;
/// How long a connection that ended gets to say why.
const REASON: Duration = Duration::from_millis(200);

/// Why there is no line.
#[derive(Debug)]
pub(super) enum Failed {
    Dial(DialError),
    Refused(Refusal),
    /// The connection ended before the viewer was attached.
    Ended(Option<Closed>),
    Protocol(Box<dyn std::error::Error + Send + Sync>),
    /// It was not made in time.
    Slow,
    /// It was made, and the viewer not attached in time.
    Late,
}

/// What arrives on a line.
#[derive(Debug)]
pub(super) enum Incoming {
    Frame(Frame),
    /// Nothing more, and why if the node said so.
    End(Option<Closed>),
    /// What the node sent is no frame.
    Broken(crate::wire::WireError),
}

/// A connection on which the viewer is attached.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) attempt: u64,
    /// How long it took to be made.
    pub(super) took: Duration,
    pub(super) attached: Attached,
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) outgoing: mpsc::Sender<Frame>,
    connection: Connection,
    tasks: JoinSet<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.close(Code::CANCELLED, "");
    }
}

impl Line {
    /// Attaches on a connection.
    pub(super) async fn attach(
        connection: Connection,
        attempt: u64,
        request: &FromClient,
    ) -> Result<Self, Failed> {
        let (send, mut reader, first) = begin(&connection, request).await?;
        let attached = match first {
            FromNode::Attached(attached) => attached,
            FromNode::Error(refusal) => return Err(Failed::Refused(refusal)),
            _ => return Err(Failed::Protocol("another answer was expected".into())),
        };
        let (frames, incoming) = mpsc::channel(QUEUE);
        let (outgoing, queued) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        let closing = connection.clone();
        tasks.spawn(async move {
            loop {
                let next = match reader.next().await {
                    Ok(Some(frame)) => Incoming::Frame(frame),
                    Ok(None) => Incoming::End(reason(&closing).await),
                    Err(error) => Incoming::Broken(error),
                };
                let over = !matches!(next, Incoming::Frame(_));
                if frames.send(next).await.is_err() || over {
                    return;
                }
            }
        });
        tasks.spawn(async move {
            // Whoever reads notices the end of the connection as well.
            let _ = write(send, queued).await;
        });
        Ok(Self { attempt, took: Duration::ZERO, attached, incoming, outgoing, connection, tasks })
    }

    /// Says the last word, and waits until the node has taken it.
    pub(super) async fn end(mut self, last: Frame, patience: Duration) {
        let Self { outgoing, incoming, .. } = &mut self;
        let said = async {
            let _ = outgoing.send(last).await;
            let (none, _) = mpsc::channel(1);
            // The writer finishes the stream when nobody can add to its queue.
            drop(std::mem::replace(outgoing, none));
            while let Some(Incoming::Frame(_)) = incoming.recv().await {}
        };
        let _ = timeout(patience, said).await;
        self.connection.close(Code::NORMAL, "");
        let _ = timeout(patience, self.connection.drained()).await;
        self.tasks.shutdown().await;
    }
}

/// Why a connection has ended, if it has and the node said so.
async fn reason(connection: &Connection) -> Option<Closed> {
    timeout(REASON, connection.closed()).await.ok()
}

async fn write(mut send: SendStream, mut queued: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = queued.recv().await {
        frame.encode(&mut bytes);
        while let Ok(frame) = queued.try_recv() {
            frame.encode(&mut bytes);
        }
        send.write_all(&bytes).await?;
        send.flush().await?;
        bytes.clear();
    }
    send.shutdown().await
}

struct Reader {
    recv: RecvStream,
    decoder: Decoder,
}

impl Reader {
    /// The next frame; `None` at the end. Cancel safe.
    async fn next(&mut self) -> Result<Option<Frame>, crate::wire::WireError> {
        loop {
            if let Some(frame) = self.decoder.frame()? {
                return Ok(Some(frame));
            }
            match self.recv.read_buf(self.decoder.buffer()).await {
                Ok(1..) => {}
                _ => return Ok(None),
            }
        }
    }
}

/// Opens a stream, says the first word and hears the answer.
async fn begin(
    connection: &Connection,
    request: &FromClient,
) -> Result<(SendStream, Reader, FromNode), Failed> {
    let ended = |_| Failed::Ended(None);
    let frame = request.frame().map_err(|error| Failed::Protocol(error.into()))?;
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let opened = async {
        let (mut send, recv) =
            connection.open_bi().await.map_err(|_| io::ErrorKind::NotConnected)?.split();
        send.write_all(&bytes).await?;
        send.flush().await?;
        Ok::<_, io::Error>((send, recv))
    };
    let (send, recv) = match opened.await {
        Ok(halves) => halves,
        Err(error) => {
            let closed = reason(connection).await;
            return Err(closed.map_or_else(|| ended(error), |closed| Failed::Ended(Some(closed))));
        }
    };
    let mut reader = Reader { recv, decoder: Decoder::new(Sender::Node) };
    let first = reader.next().await.map_err(|error| Failed::Protocol(error.into()))?;
    match first {
        Some(Frame::Control(json)) => {
            let read = FromNode::read(&json).map_err(|error| Failed::Protocol(error.into()))?;
            Ok((send, reader, read))
        }
        Some(_) => Err(Failed::Protocol("a CONTROL was expected".into())),
        None => Err(Failed::Ended(reason(connection).await)),
    }
}

/// One request and its answer.
pub(super) async fn ask(
    connection: &Connection,
    request: &FromClient,
) -> Result<FromNode, RequestError> {
    match begin(connection, request).await {
        Ok((mut send, _, answer)) => {
            // The answer is here; whether the node hears the end makes no difference.
            let _ = send.shutdown().await;
            Ok(answer)
        }
        Err(Failed::Ended(Some(closed))) => {
            Err(alknet_core::ConnectionError::Closed(closed).into())
        }
        Err(Failed::Ended(None)) => Err(RequestError::NoAnswer),
        Err(_) => Err(RequestError::Protocol),
    }
}
