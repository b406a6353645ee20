//! A network namespace without a name.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, RawFd},
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// Lives as long as this, and as whatever runs in it.
pub(super) struct Namespace(File);

impl Namespace {
    pub(super) fn new() -> Result<Self> {
        // A namespace is a thread's, and what a thread has left it does not get back.
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace takes a superuser")?;
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        });
        let Ok(made) = made.join() else { bail!("the thread of a new namespace panicked") };
        Ok(Self(made?))
    }

    /// Runs this in the namespace. Processes that it starts are there too.
    pub(super) fn run<T: Send>(&self, run: impl FnOnce() -> T + Send) -> Result<T> {
        let result = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                anyhow::Ok(run())
            });
            inside.join()
        });
        let Ok(result) = result else { bail!("a thread in a namespace panicked") };
        result
    }

    /// By which another process can enter it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
