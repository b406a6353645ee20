//! Bodies as git reads and writes them.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use async_compression::tokio::bufread::GzipDecoder;
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body::Frame;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_util::{io::StreamReader, sync::PollSender};

use super::refusal::Refusal;
use crate::{
    admission::Admitted,
    engine::{EngineError, Traffic},
    server::GitError,
};

/// The most that a compressed request may become, in bytes: the wants and haves of a fetch.
/// What is longer, git sends as it is.
const MAX_UNPACKED: u64 = 64 * 1024 * 1024;
/// How much of an answer goes on its way at once, in bytes, and how often before git waits.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 4;
/// How long a client may take nothing of its answer.
const STALL: Duration = Duration::from_secs(60);

/// What a client sends, and what was wrong with it in the end.
pub(super) struct Input {
    pub(super) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) fault: Fault,
}

/// Why a request could not be read to its end. Shared by its reader and its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Arc<OnceLock<(StatusCode, &'static str)>>);

impl Fault {
    /// What to answer instead of the outcome, if there was a fault.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.get().map(|(status, message)| Refusal::Status(*status, message))
    }

    fn found(&self, status: StatusCode, message: &'static str) -> io::Error {
        let _ = self.0.set((status, message));
        io::Error::other(message)
    }
}

impl Input {
    /// No body at all.
    pub(super) fn none() -> Self {
        Self { reader: Box::new(tokio::io::empty()), fault: Fault::default() }
    }

    /// The body of a request, unpacked.
    pub(super) fn of(headers: &HeaderMap, body: Body) -> Result<Self, Refusal> {
        let fault = Fault::default();
        let plain = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        let packed = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
        let reader: Box<dyn AsyncRead + Send + Unpin> = match packed {
            None | Some(b"identity") => Box::new(plain),
            Some(b"gzip" | b"x-gzip") => {
                let inner = GzipDecoder::new(plain);
                Box::new(Unpacked { inner, left: MAX_UNPACKED, fault: fault.clone() })
            }
            Some(_) => {
                let message = "only gzip is unpacked here";
                return Err(Refusal::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
            }
        };
        Ok(Self { reader, fault })
    }
}

/// An unpacked body that fails where it becomes too long.
struct Unpacked<R> {
    inner: R,
    left: u64,
    fault: Fault,
}

impl<R: AsyncRead + Unpin> AsyncRead for Unpacked<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if ready!(Pin::new(&mut self.inner).poll_read(cx, buf)).is_err() {
            let message = "the body is not packed by gzip";
            return Poll::Ready(Err(self.fault.found(StatusCode::BAD_REQUEST, message)));
        }
        let read = (buf.filled().len() - before) as u64;
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => {
                // Who fails to read has read nothing.
                buf.set_filled(before);
                let message = "the body becomes too long";
                let error = self.fault.found(StatusCode::PAYLOAD_TOO_LARGE, message);
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Where git writes its answer; it fails when the client takes nothing for too long.
pub(super) struct Output {
    pieces: PollSender<Bytes>,
    /// Runs only while the client is waited for.
    stall: Option<Pin<Box<Sleep>>>,
}

/// An output, and what comes out of it.
pub(super) fn output() -> (Output, mpsc::Receiver<Bytes>) {
    let (send, pieces) = mpsc::channel(PIECES);
    (Output { pieces: PollSender::new(send), stall: None }, pieces)
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        match self.pieces.poll_reserve(cx) {
            Poll::Ready(reserved) => {
                self.stall = None;
                reserved.map_err(gone)?;
            }
            Poll::Pending => {
                let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(STALL)));
                ready!(stall.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let piece = data.get(..PIECE).unwrap_or(data);
        self.pieces.send_item(Bytes::copy_from_slice(piece)).map_err(gone)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pieces.close();
        Poll::Ready(Ok(()))
    }
}

/// An exchange in a task of its own, so that its deadlines hold also while nobody reads the
/// answer. Dropped, it ends the exchange.
pub(super) type Running = JoinSet<Result<(), GitError>>;

/// What git answers, as the body of a response.
struct Answer {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
    exchange: Running,
}

/// The body of the answer of a running exchange behind `head`; why there is none, if it ended
/// in failure before it had said anything.
pub(super) async fn answer(
    head: Bytes,
    mut pieces: mpsc::Receiver<Bytes>,
    mut exchange: Running,
    fault: &Fault,
) -> Result<Body, Refusal> {
    let Some(first) = pieces.recv().await else {
        return match exchange.join_next().await {
            Some(Ok(Ok(()))) => Ok(Body::from(head)),
            Some(Ok(Err(error))) => Err(fault.refusal().unwrap_or_else(|| error.into())),
            Some(Err(_)) | None => Err(GitError::Interrupted.into()),
        };
    };
    let first = match head.is_empty() {
        true => first,
        false => [head, first].concat().into(),
    };
    Ok(Body::new(Answer { first: Some(first), pieces, exchange }))
}

/// A body that somebody takes within `total`, piece by piece, or not at all. Until its end, or
/// until it is dropped, `held` is there. It fails where their credential does not hold to its
/// end.
pub(super) fn download(
    body: Body,
    total: Duration,
    traffic: Arc<Traffic>,
    held: impl AsRef<Admitted> + Send + Sync + 'static,
) -> Body {
    let (send, pieces) = mpsc::channel(PIECES);
    let mut exchange = Running::new();
    exchange.spawn(async move {
        let late = |_| GitError::Stream(io::ErrorKind::TimedOut.into());
        let carried = async {
            let mut all = body.into_data_stream();
            while let Some(piece) = all.next().await {
                let piece = piece.map_err(io::Error::other)?;
                traffic.add_sent(piece.len() as u64);
                let sent = timeout(STALL, send.send(piece)).await.map_err(late)?;
                sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
            Ok(())
        };
        held.as_ref().during(timeout(total, carried)).await?.map_err(late)?
    });
    Body::new(Answer { first: None, pieces, exchange })
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = GitError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GitError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(piece) = ready!(self.pieces.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(match ready!(self.exchange.poll_join_next(cx)) {
            // A git that fails has told the client why, in its own protocol.
            Some(Ok(Ok(()) | Err(GitError::Engine(EngineError::Failed { .. })))) | None => None,
            // Not to be taken for the whole answer.
            Some(Ok(Err(error))) => Some(Err(error)),
            Some(Err(_)) => Some(Err(GitError::Interrupted)),
        })
    }
}
