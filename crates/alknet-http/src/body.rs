//! Bodies that do not wait for ever.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{BoxError, body::Body};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// How long a peer may send nothing of a body that is waited for: nginx's
/// `client_body_timeout`.
const IDLE: Duration = Duration::from_secs(60);

/// A body that fails when the peer stalls while somebody is waiting for it.
pub(crate) fn guarded<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::new(Guarded { body, waiting: false, idle: None })
}

/// The peer sent nothing for too long.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body stalled")]
struct Stalled;

struct Guarded<B> {
    body: B,
    /// Whether `idle` runs: only while somebody waits for the peer.
    waiting: bool,
    idle: Option<Pin<Box<Sleep>>>,
}

impl<B> HttpBody for Guarded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let began = !std::mem::replace(&mut self.waiting, true);
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(IDLE)));
        if began {
            idle.as_mut().reset(Instant::now() + IDLE);
        }
        idle.as_mut().poll(cx).map(|()| Some(Err(Stalled.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
