//! Bodies that nobody wants.
//!
//! A client may still be sending when the answer is there, and a TCP connection that is
//! closed on it meanwhile loses the answer. What nobody reads of an HTTP/1.1 body is
//! therefore read all the same, with nginx's deadlines; then the connection takes its next
//! request, or ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the next piece may take: nginx's `lingering_timeout`.
const IDLE: Duration = Duration::from_secs(5);
/// How long all of it may take: nginx's `lingering_time`.
const TOTAL: Duration = Duration::from_secs(30);

/// Where bodies are read that nobody wants.
#[derive(Debug, Clone)]
pub(crate) struct Lingering {
    tasks: TaskTracker,
    until: CancellationToken,
}

impl Lingering {
    /// Reads in `tasks`, and no further when `until` is cancelled.
    pub(crate) fn new(tasks: TaskTracker, until: CancellationToken) -> Self {
        Self { tasks, until }
    }

    /// The body, read to its end also where it is dropped before.
    pub(crate) fn body<B>(&self, body: B) -> Unwanted<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        Unwanted { body: Some(body), lingering: self.clone() }
    }
}

/// A body that may be dropped before its end.
pub(crate) struct Unwanted<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    /// `None` when it is over.
    body: Option<B>,
    lingering: Lingering,
}

impl<B> Drop for Unwanted<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let until = self.lingering.until.clone();
        let reading = until.run_until_cancelled_owned(discard(body));
        drop(self.lingering.tasks.spawn_on(reading, &runtime));
    }
}

async fn discard(mut body: impl Body<Data = Bytes> + Unpin) {
    let all = async { while let Ok(Some(Ok(_))) = timeout(IDLE, body.frame()).await {} };
    // What comes later still ends with the connection.
    let _ = timeout(TOTAL, all).await;
}

impl<B> Body for Unwanted<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
