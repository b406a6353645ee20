//! A call in progress.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use futures_util::{FutureExt as _, future};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::{
    CallError, Context, ErrorCode, Item, Items, Kind,
    items::{self, STALLED, Source},
    operation::{Operation, Output},
};

/// What becomes of a call of a query or a mutation.
type Running = Pin<Box<dyn Future<Output = Result<Output, CallError>> + Send>>;

/// A call in progress. Dropping it cancels the operation, and all that it has called in
/// turn.
pub struct Execution {
    operation: Arc<Operation>,
    state: State,
    /// Tells what runs elsewhere for this call.
    _over: DropGuard,
}

enum State {
    /// A query or a mutation, which runs in its caller's task.
    Unary(Running),
    /// A subscription has a task of its own: it notices a subscriber that does not even look.
    Items(Subscription),
    Over,
}

struct Subscription {
    task: JoinSet<Result<Output, CallError>>,
    source: Source,
    stalled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How the operation ended; what it sent before is still to be taken.
    ended: Option<Result<Output, CallError>>,
}

impl Execution {
    pub(crate) fn new(
        operation: Arc<Operation>,
        context: Context,
        input: serde_json::Value,
        deadline: Option<Instant>,
        over: CancellationToken,
    ) -> Self {
        let state = match operation.spec.kind {
            Kind::Query | Kind::Mutation => {
                let running = run(operation.clone(), context, input, Items::none());
                State::Unary(Box::pin(by(deadline, running)))
            }
            Kind::Subscription => {
                let (items, source) = items::queue();
                let running = run(operation.clone(), context, input, items);
                let mut task = JoinSet::new();
                task.spawn(by(deadline, running));
                let stalled = Box::pin(source.stalled.clone().cancelled_owned());
                State::Items(Subscription { task, source, stalled, ended: None })
            }
        };
        Self { operation, state, _over: over.drop_guard() }
    }

    /// What kind of operation it is.
    pub fn kind(&self) -> Kind {
        self.operation.spec.kind
    }

    /// The operation.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// The next item of a subscription, or the one output of another call; `None` when there
    /// is no more. Nothing follows an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Item, CallError>> {
        future::poll_fn(|cx| self.poll_item(cx)).await
    }

    /// The output of a query or a mutation; the first item of a subscription.
    pub async fn output(mut self) -> Result<Output, CallError> {
        match self.next().await {
            Some(item) => Ok(item?.output),
            None => Err(CallError::unavailable("the subscription has no items")),
        }
    }

    /// Waits until the subscriber has been found to be too slow: what [`next`](Self::next)
    /// would give after all that is queued. For whoever waits for room for the next item.
    /// Cancel safe.
    pub async fn stalled(&mut self) -> CallError {
        match &mut self.state {
            State::Items(subscription) => subscription.stalled().await,
            _ => future::pending().await,
        }
    }

    /// Cancels the operation and waits until nothing of it runs any more. Cancel safe: it
    /// is cancelled either way.
    pub async fn abort(mut self) {
        if let State::Items(subscription) = &mut self.state {
            subscription.task.shutdown().await;
        }
    }

    pub(crate) fn poll_item(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Item, CallError>>> {
        let outcome = match &mut self.state {
            State::Unary(running) => {
                let outcome = task::ready!(running.as_mut().poll(cx));
                Some(outcome.map(Item::of))
            }
            State::Items(subscription) => task::ready!(subscription.poll(cx)),
            State::Over => None,
        };
        let goes_on = matches!((&self.state, &outcome), (State::Items(_), Some(Ok(_))));
        if !goes_on {
            self.state = State::Over;
        }
        Poll::Ready(outcome.map(|item| item.map_err(|error| self.operation.admitted(error))))
    }
}

impl Subscription {
    /// Waits until the operation has waited too long for its subscriber, or has ended, and the
    /// subscriber has taken nothing for as long since. How it ended, if it failed, goes first.
    async fn stalled(&mut self) -> CallError {
        let Self { task, source, stalled, ended } = self;
        let idle = async {
            if ended.is_none()
                && let Some(over) = task.join_next().await
            {
                *ended = Some(over.unwrap_or_else(|error| Err(CallError::internal(error))));
                source.items.close();
            }
            // The deadline holds whether anything is taken or not.
            if !matches!(ended, Some(Err(error)) if error.code == ErrorCode::Timeout) {
                tokio::time::sleep(STALLED).await;
            }
        };
        tokio::select! {
            () = stalled => slow(),
            () = idle => match ended.take() {
                Some(Err(error)) => error,
                _ => slow(),
            },
        }
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<Item, CallError>>> {
        if let Poll::Ready(Some(item)) = self.source.items.poll_recv(cx) {
            return Poll::Ready(Some(Ok(item)));
        }
        if self.stalled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(slow())));
        }
        if self.ended.is_none() {
            let Some(ended) = task::ready!(self.task.poll_join_next(cx)) else {
                return Poll::Ready(None);
            };
            self.ended = Some(ended.unwrap_or_else(|error| Err(CallError::internal(error))));
            // What a clone of the queue elsewhere still sends comes too late.
            self.source.items.close();
        }
        if let Some(item) = task::ready!(self.source.items.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(item)));
        }
        Poll::Ready(match self.ended.take() {
            Some(Err(error)) => Some(Err(error)),
            _ => None,
        })
    }
}

fn slow() -> CallError {
    let message = format!("nothing was taken for {} seconds", STALLED.as_secs());
    CallError::unavailable(message).with_details(json!({ "reason": "slow-consumer" }))
}

async fn run(
    operation: Arc<Operation>,
    context: Context,
    input: serde_json::Value,
    items: Items,
) -> Result<Output, CallError> {
    // A handler's own code before its first await counts as well.
    let running = AssertUnwindSafe(async { operation.handler.run(context, input, items).await });
    match running.catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Err(CallError::internal(format!("{} panicked", operation.spec.name))),
    }
}

async fn by(
    deadline: Option<Instant>,
    running: impl Future<Output = Result<Output, CallError>>,
) -> Result<Output, CallError> {
    match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline, running).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::timeout()),
        },
        None => running.await,
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution").field("operation", &self.operation).finish_non_exhaustive()
    }
}
