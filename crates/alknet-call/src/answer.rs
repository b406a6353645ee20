//! Answering one call of the peer.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::{
    CallError, Execution, Item, Kind,
    line::Place,
    wire::{self, FrameType, Nothing, Response},
    writer::{Over, Writer},
};

/// The most items that a subscriber can have asked for in advance.
const MAX_CREDIT: usize = 1 << 20;

/// How many items a subscriber still takes.
#[derive(Debug)]
pub(crate) struct Credit(Semaphore);

impl Credit {
    pub(crate) fn new(items: u32) -> Self {
        let credit = Self(Semaphore::new(0));
        credit.add(items);
        credit
    }

    pub(crate) fn add(&self, items: u32) {
        let room = MAX_CREDIT.saturating_sub(self.0.available_permits());
        self.0.add_permits(usize::try_from(items).unwrap_or(MAX_CREDIT).min(room));
    }

    async fn take(&self) {
        // It is never closed.
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

/// Everything needed to answer one call.
pub(crate) struct Answer {
    pub(crate) writer: Writer,
    pub(crate) place: Place,
    pub(crate) abort: CancellationToken,
    pub(crate) credit: Option<Arc<Credit>>,
    pub(crate) draining: CancellationToken,
    pub(crate) _in_progress: TaskTrackerToken,
}

/// How a call ends, other than by an item.
enum End {
    Completed,
    Failed(CallError),
    Aborted,
    Over,
}

impl From<Over> for End {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

impl Answer {
    /// Runs the call to its end, or until it is aborted.
    pub(crate) async fn run(self, execution: Result<Execution, CallError>) {
        let end = match execution {
            Ok(execution) => self.execute(execution).await,
            Err(error) => Some(End::Failed(error)),
        };
        let nothing = Nothing {};
        let sent = match end {
            None | Some(End::Over) => Ok(()),
            Some(End::Completed) => self.last(FrameType::Completed, &nothing).await,
            Some(End::Failed(error)) => self.last(FrameType::Error, &error).await,
            Some(End::Aborted) => self.last(FrameType::Aborted, &nothing).await,
        };
        if sent.is_err() {
            tracing::trace!("nobody is left to answer");
        }
    }

    /// What is still to be said at the end, if anything.
    async fn execute(&self, mut execution: Execution) -> Option<End> {
        let outcome = tokio::select! {
            outcome = self.items(&mut execution) => outcome,
            () = self.abort.cancelled() => Err(End::Aborted),
            () = self.draining.cancelled(), if execution.kind() == Kind::Subscription => {
                Err(End::Failed(CallError::unavailable("the node is shutting down")))
            }
        };
        execution.abort().await;
        outcome.err()
    }

    /// Passes on what the operation gives; `Ok` once the one output of a call is sent.
    async fn items(&self, execution: &mut Execution) -> Result<(), End> {
        loop {
            let item = match execution.next().await {
                Some(Ok(item)) => item,
                Some(Err(error)) => return Err(End::Failed(error)),
                None => return Err(End::Completed),
            };
            if execution.kind() != Kind::Subscription {
                self.place.give_up();
                return self.send(item).await;
            }
            tokio::select! {
                sent = self.item(item) => sent?,
                error = execution.stalled() => return Err(End::Failed(error)),
            }
        }
    }

    /// Sends an item once the subscriber takes it.
    async fn item(&self, item: Item) -> Result<(), End> {
        if let Some(credit) = &self.credit {
            credit.take().await;
        }
        self.send(item).await
    }

    async fn send(&self, item: Item) -> Result<(), End> {
        let Item { output, event, room: _room } = item;
        let response = Response { output: &output, event: event.as_deref() };
        let frame = wire::encode(FrameType::Responded, self.place.id(), &response);
        let long = || CallError::internal("the output is longer than a frame may be");
        Ok(self.writer.send(frame.ok_or_else(|| End::Failed(long()))?).await?)
    }

    async fn last(&self, kind: FrameType, payload: &impl Serialize) -> Result<(), Over> {
        self.place.give_up();
        match wire::encode(kind, self.place.id(), payload) {
            Some(frame) => self.writer.send(frame).await,
            None => Ok(()),
        }
    }
}
