//! Answering one call of the peer.

use std::{pin::pin, sync::Arc, task::Poll};

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use crate::{
    CallError, Execution, Item, Kind,
    line::Place,
    wire::{self, FrameType, Nothing, Response},
    writer::{Over, Writer},
};

/// The most items that a subscriber can have asked for in advance.
const MAX_CREDIT: usize = 1 << 20;
/// Items that are ready are sent together until they have so many bytes.
const PIECE: usize = 16 * 1024;

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

    /// Takes it only if it is there.
    fn try_take(&self) -> bool {
        self.0.try_acquire().map(SemaphorePermit::forget).is_ok()
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
            Some(End::Failed(error)) => self.last(FrameType::Error, &error.sendable()).await,
            Some(End::Aborted) => self.last(FrameType::Aborted, &nothing).await,
        };
        if sent.is_err() {
            tracing::trace!("nobody is left to answer");
        }
    }

    /// What is still to be said at the end, if anything.
    async fn execute(&self, mut execution: Execution) -> Option<End> {
        let outcome = tokio::select! {
            biased;
            outcome = self.items(&mut execution) => outcome,
            () = self.abort.cancelled() => Err(End::Aborted),
            () = self.draining.cancelled(), if execution.kind() == Kind::Subscription => {
                Err(End::Failed(CallError::shutting_down()))
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
                return Ok(self.writer.send(&self.frame(&item)?).await?);
            }
            tokio::select! {
                biased;
                () = self.credit() => {}
                error = execution.stalled() => return Err(End::Failed(error)),
            }
            let (frames, end) = self.ready(&item, execution).await?;
            tokio::select! {
                biased;
                sent = self.writer.send(&frames) => sent?,
                error = execution.stalled() => return Err(End::Failed(error)),
            }
            if let Some(end) = end {
                return Err(end);
            }
        }
    }

    /// An item, and those behind it that need no waiting: they are sent in one piece. With
    /// them, how the subscription ended, if it has.
    async fn ready(
        &self,
        item: &Item,
        execution: &mut Execution,
    ) -> Result<(Vec<u8>, Option<End>), End> {
        let mut frames = self.frame(item)?;
        while frames.len() < PIECE && self.credit.as_ref().is_none_or(|credit| credit.try_take()) {
            let end = match futures_util::poll!(pin!(execution.next())) {
                Poll::Ready(Some(Ok(item))) => {
                    self.frame(&item).map(|frame| frames.extend_from_slice(&frame)).err()
                }
                Poll::Ready(Some(Err(error))) => Some(End::Failed(error)),
                Poll::Ready(None) => Some(End::Completed),
                Poll::Pending => {
                    self.credit.iter().for_each(|credit| credit.add(1));
                    break;
                }
            };
            if end.is_some() {
                return Ok((frames, end));
            }
        }
        Ok((frames, None))
    }

    /// Waits until the subscriber takes one more item.
    async fn credit(&self) {
        if let Some(credit) = &self.credit {
            credit.take().await;
        }
    }

    fn frame(&self, item: &Item) -> Result<Vec<u8>, End> {
        let response = Response { output: &item.output, event: item.event.as_deref() };
        let frame = wire::encode(FrameType::Responded, self.place.id(), &response);
        let long = || CallError::internal("the output is longer than a frame may be");
        frame.ok_or_else(|| End::Failed(long()))
    }

    async fn last(&self, kind: FrameType, payload: &impl Serialize) -> Result<(), Over> {
        self.place.give_up();
        match wire::encode(kind, self.place.id(), payload) {
            Some(frame) => self.writer.send(&frame).await,
            None => Ok(()),
        }
    }
}
