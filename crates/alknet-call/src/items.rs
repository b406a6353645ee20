//! The items of a subscription, on their way from the operation to its subscriber.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    CallError,
    operation::{Output, output},
};

/// How many items, and how many bytes of them, may wait for the subscriber.
const ITEMS: usize = 256;
const BYTES: u32 = 1024 * 1024;
/// How long an operation waits for a subscriber who takes nothing.
pub(crate) const STALLED: Duration = Duration::from_secs(30);

/// One item, and the event it carries, if any.
#[derive(Debug)]
pub struct Item {
    /// The item: JSON text.
    pub output: Output,
    /// What a later subscription names to go on behind this item.
    pub event: Option<String>,
    /// Its place in the queue, until it has been sent on.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

impl Item {
    /// What it takes to hold it, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.output.get().len() + self.event.as_ref().map_or(0, String::len)
    }

    pub(crate) fn of(output: Output) -> Self {
        Self { output, event: None, _room: None }
    }
}

/// The subscriber takes no more: it has gone, or it was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subscriber takes no more")]
pub struct Gone;

/// An operation that goes on sending is over anyway.
impl From<Gone> for CallError {
    fn from(_: Gone) -> Self {
        Self::unavailable("the subscriber takes no more")
    }
}

/// Where a subscription puts its items.
///
/// Its queue is bounded: [`send`](Self::send) waits for the subscriber. One who takes nothing for half a minute
/// is told so, and the subscription ends. Cheap to clone.
pub struct Items<T: ?Sized = RawValue> {
    sink: Option<Sink>,
    item: PhantomData<fn(&T)>,
}

#[derive(Clone)]
pub(crate) struct Sink {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    /// Set once the subscriber was too slow.
    stalled: CancellationToken,
}

/// The other end of [`Items`].
pub(crate) struct Source {
    pub(crate) items: mpsc::Receiver<Item>,
    pub(crate) stalled: CancellationToken,
}

/// A queue between an operation and its subscriber.
pub(crate) fn queue() -> (Items, Source) {
    let (sender, items) = mpsc::channel(ITEMS);
    let stalled = CancellationToken::new();
    let room = Arc::new(Semaphore::new(BYTES as usize));
    let sink = Sink { items: sender, room, stalled: stalled.clone() };
    (Items { sink: Some(sink), item: PhantomData }, Source { items, stalled })
}

impl Items {
    /// Of an operation that has none.
    pub(crate) fn none() -> Self {
        Self { sink: None, item: PhantomData }
    }

    /// Whether the operation has none: it is no subscription.
    pub fn is_none(&self) -> bool {
        self.sink.is_none()
    }

    pub(crate) fn typed<T>(self) -> Items<T> {
        Items { sink: self.sink, item: PhantomData }
    }

    /// Sends JSON text; otherwise like [`Items::send`].
    pub async fn send_raw(&self, output: Output, event: Option<String>) -> Result<(), Gone> {
        self.put(output, event).await
    }
}

impl<T: Serialize> Items<T> {
    /// Sends an item, when there is room for it. Cancel safe: an item is sent or not. What
    /// cannot be written as JSON ends the subscription.
    pub async fn send(&self, item: T) -> Result<(), CallError> {
        Ok(self.put(output(&item)?, None).await?)
    }

    /// Sends an item that a later subscription can go on behind.
    pub async fn send_event(&self, event: impl Into<String>, item: T) -> Result<(), CallError> {
        Ok(self.put(output(&item)?, Some(event.into())).await?)
    }
}

impl<T: ?Sized> Items<T> {
    /// Whether the subscriber has gone.
    pub fn is_gone(&self) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.items.is_closed())
    }

    /// Waits until the subscriber has gone. Cancel safe.
    pub async fn gone(&self) {
        if let Some(sink) = &self.sink {
            sink.items.closed().await;
        }
    }

    async fn put(&self, output: Output, event: Option<String>) -> Result<(), Gone> {
        let sink = self.sink.as_ref().ok_or(Gone)?;
        let item = Item { event, ..Item::of(output) };
        let weight = u32::try_from(item.size()).unwrap_or(BYTES).min(BYTES);
        // Mostly there is room, and no timer is needed.
        if let Ok(place) = sink.items.try_reserve()
            && let Ok(room) = sink.room.clone().try_acquire_many_owned(weight)
        {
            place.send(Item { _room: Some(room), ..item });
            return Ok(());
        }
        let placed = async {
            let room = sink.room.clone().acquire_many_owned(weight).await.map_err(|_| Gone)?;
            let place = sink.items.reserve().await.map_err(|_| Gone)?;
            place.send(Item { _room: Some(room), ..item });
            Ok(())
        };
        match timeout(STALLED, placed).await {
            Ok(placed) => placed,
            Err(_) => {
                sink.stalled.cancel();
                Err(Gone)
            }
        }
    }
}

impl<T: ?Sized> Clone for Items<T> {
    fn clone(&self) -> Self {
        Self { sink: self.sink.clone(), item: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("gone", &self.is_gone()).finish()
    }
}
