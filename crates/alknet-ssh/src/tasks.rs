//! The tasks of a transport.

use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// The tasks that serve the channels of one transport: started from within the session, and
/// owned by whoever runs it.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
    tracker: TaskTracker,
}

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set();
        while set.try_join_next().is_some() {}
        set.spawn(self.tracker.track_future(task));
    }

    /// Waits until no task runs; no more may be started.
    pub(crate) async fn ended(&self) {
        let mut set = mem::take(&mut *self.set());
        while set.join_next().await.is_some() {}
    }

    /// Waits until no task runs at some moment. Cancel safe.
    pub(crate) async fn idle(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Aborts every task when the guard is dropped.
    pub(crate) fn abort_on_drop(&self) -> AbortOnDrop {
        AbortOnDrop(self.clone())
    }

    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Aborts the tasks when it is dropped.
pub(crate) struct AbortOnDrop(Tasks);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.set().abort_all();
    }
}
