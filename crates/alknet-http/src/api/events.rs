//! Subscriptions as server-sent events (HTML, section 9.2).

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use alknet_call::{CallError, Execution, Item};
use alknet_core::Login;
use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures_util::{FutureExt as _, Stream};
use http::{HeaderValue, header};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::Problem;

/// How long the stream may be silent: proxies give up what is silent for longer.
const SILENCE: Duration = Duration::from_secs(15);
/// How much is put into one piece of the body, in bytes, where there is more at hand.
const PIECE: usize = 16 * 1024;
const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");
const COMPLETED: Bytes = Bytes::from_static(b"event: completed\ndata: {}\n\n");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// The items of a subscription, until it, its caller, the caller's `login` or the node is
/// over.
pub(super) fn answer(execution: Execution, login: Login, shutdown: CancellationToken) -> Response {
    let (pieces, taken) = mpsc::channel(1);
    let mut task = JoinSet::new();
    task.spawn(run(execution, login, shutdown, pieces));
    head().map(|_| Body::from_stream(Events { taken, task }))
}

/// The beginning of such an answer.
pub(super) fn head() -> Response {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::CONTENT_TYPE, EVENT_STREAM);
    response
}

/// The stream broke off: it is not to be taken for a whole one.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the credential of the subscriber does not hold any more")]
    Revoked,
    #[error("the task of the subscription ended")]
    Ended,
}

/// The body. Dropping it ends the subscription.
struct Events {
    taken: mpsc::Receiver<Bytes>,
    task: JoinSet<Result<Bytes, Cut>>,
}

impl Stream for Events {
    type Item = Result<Bytes, Cut>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(Some(piece)) = self.taken.poll_recv(cx) {
            return Poll::Ready(Some(Ok(piece)));
        }
        let ended = std::task::ready!(self.task.poll_join_next(cx));
        Poll::Ready(ended.map(|ended| ended.unwrap_or(Err(Cut::Ended))))
    }
}

/// Hands out what the operation sends. A task of its own: a subscriber who does not read
/// does not look at the body either, and has to be noticed all the same. The last piece is
/// the result, so that there is always room for it.
async fn run(
    mut execution: Execution,
    login: Login,
    shutdown: CancellationToken,
    pieces: mpsc::Sender<Bytes>,
) -> Result<Bytes, Cut> {
    let handing = async {
        // The header leaves with the first piece.
        let mut piece = KEEP_ALIVE;
        loop {
            let room = tokio::select! {
                room = pieces.reserve() => room,
                error = execution.stalled() => return failed(error, &execution),
                () = shutdown.cancelled() => return failed(ending(), &execution),
            };
            // Nobody is there to be told anything.
            let Ok(room) = room else { return Bytes::new() };
            room.send(piece);
            let more = tokio::select! {
                more = timeout(SILENCE, next(&mut execution)) => more,
                () = shutdown.cancelled() => return failed(ending(), &execution),
            };
            piece = match more {
                Ok(Piece::More(more)) => more,
                Ok(Piece::Last(last)) => return last,
                Err(_) => KEEP_ALIVE,
            };
        }
    };
    tokio::select! {
        biased;
        () = login.revoked() => Err(Cut::Revoked),
        last = handing => Ok(last),
    }
}

enum Piece {
    More(Bytes),
    Last(Bytes),
}

/// Waits for an item, and takes what else is there already. Cancel safe: nothing waits once
/// something is taken.
async fn next(execution: &mut Execution) -> Piece {
    let mut piece = Vec::new();
    let mut item = execution.next().await;
    loop {
        match item {
            Some(Ok(item)) => write(&mut piece, &item),
            Some(Err(error)) => {
                piece.extend_from_slice(&failed(error, execution));
                return Piece::Last(piece.into());
            }
            None => {
                piece.extend_from_slice(&COMPLETED);
                return Piece::Last(piece.into());
            }
        }
        if piece.len() >= PIECE {
            return Piece::More(piece.into());
        }
        item = match execution.next().now_or_never() {
            Some(item) => item,
            None => return Piece::More(piece.into()),
        };
    }
}

fn write(piece: &mut Vec<u8>, item: &Item) {
    // A field ends with its line: an event with more than one cannot be sent, nor resumed.
    if let Some(event) = item.event.as_deref().filter(|event| !event.contains(['\r', '\n', '\0'])) {
        piece.extend_from_slice(b"id: ");
        piece.extend_from_slice(event.as_bytes());
        piece.push(b'\n');
    }
    data(piece, item.output.get());
}

/// JSON may have line breaks between its tokens, and the lines of `data` are put together
/// again with such.
fn data(piece: &mut Vec<u8>, json: &str) {
    for line in json.split(['\r', '\n']) {
        piece.extend_from_slice(b"data: ");
        piece.extend_from_slice(line.as_bytes());
        piece.push(b'\n');
    }
    piece.push(b'\n');
}

fn ending() -> CallError {
    CallError::unavailable("the node is shutting down")
}

fn failed(error: CallError, execution: &Execution) -> Bytes {
    let mut piece = b"event: error\n".to_vec();
    data(&mut piece, &Problem::failed(error, execution.operation().spec()).json());
    piece.into()
}
