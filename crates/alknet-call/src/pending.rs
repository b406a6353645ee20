//! What this side waits for.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::{CallError, Item, operation::Output, wire::Responded};

/// Bytes of items that wait for a local subscriber.
const BYTES: usize = 16 * 1024 * 1024;

/// An output that has arrived.
pub(crate) struct Event {
    output: Output,
    event: Option<String>,
}

impl Event {
    pub(crate) fn of(responded: Responded<'_>) -> Self {
        let output = responded.output.unwrap_or(RawValue::NULL).to_owned();
        Self { output, event: responded.event }
    }
}

/// Who waits for the answers to a call.
pub(crate) enum Waiter {
    /// For one output.
    Output(Mutex<Option<oneshot::Sender<Result<Output, CallError>>>>),
    /// For items.
    Items { items: mpsc::Sender<Result<Item, CallError>>, held: Arc<AtomicUsize> },
}

impl Waiter {
    /// One that waits for an output.
    pub(crate) fn output() -> (Self, oneshot::Receiver<Result<Output, CallError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self::Output(Mutex::new(Some(sender))), receiver)
    }

    /// One that waits for items, `window` of them at a time.
    pub(crate) fn items(window: usize) -> (Self, Incoming) {
        // One more for how it ends.
        let (sender, items) = mpsc::channel(window + 1);
        let held = Arc::new(AtomicUsize::new(0));
        (Self::Items { items: sender, held: held.clone() }, Incoming { items, held })
    }

    /// Passes something on; whether more can follow.
    pub(crate) fn pass(&self, event: Event) -> bool {
        match self {
            Self::Output(sender) => {
                let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(sender) = sender {
                    // Whoever does not wait any more has sent an abort.
                    let _ = sender.send(Ok(event.output));
                }
                false
            }
            Self::Items { items, held } => {
                let item = Item { event: event.event, ..Item::of(event.output) };
                let size = item.size();
                let too_much = held.fetch_add(size, Ordering::Relaxed) + size > BYTES;
                // The last place is for the end.
                !too_much && items.capacity() > 1 && items.try_send(Ok(item)).is_ok()
            }
        }
    }

    /// Says that nothing follows; `None`: as it should be.
    pub(crate) fn end(self, error: Option<CallError>) {
        match self {
            Self::Output(sender) => {
                let sender = sender.into_inner().unwrap_or_else(PoisonError::into_inner);
                let error =
                    error.unwrap_or_else(|| CallError::unavailable("the call has no output"));
                if let Some(sender) = sender {
                    let _ = sender.send(Err(error));
                }
            }
            Self::Items { items, .. } => {
                if let Some(error) = error {
                    let _ = items.try_send(Err(error));
                }
            }
        }
    }
}

/// Where the items of a subscription arrive.
pub(crate) struct Incoming {
    pub(crate) items: mpsc::Receiver<Result<Item, CallError>>,
    held: Arc<AtomicUsize>,
}

impl Incoming {
    /// To be called for every item that is taken.
    pub(crate) fn took(&self, item: &Item) {
        self.held.fetch_sub(item.size(), Ordering::Relaxed);
    }
}
