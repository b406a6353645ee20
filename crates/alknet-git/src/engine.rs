//! What makes and takes packs.

mod complaint;
mod configuration;
mod installed;
mod intake;
mod pump;
mod run;
mod version;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alknet_core::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use self::installed::{InstalledGit, NoGit, Setup, SetupError};
use crate::{push::Gate, request::Service};

/// Speaks git's protocol for a repository: `git upload-pack` and its kin, or something in this
/// process that does the same.
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Serves one exchange to its end, and ends its output. An exchange that is told to
    /// [`stop`](Exchange::stop), or whose client is gone, ends soon, and whatever was started
    /// for it with it; a push has then changed nothing. Once its [`gate`](Exchange::gate) has
    /// agreed to a change, it comes to its end without its client, and so does what the gate
    /// does when it is [`done`](Gate::done). It changes no other ref.
    fn serve(&self, exchange: Exchange) -> BoxFuture<'static, Result<(), EngineError>>;
}

/// How much of the protocol is spoken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// All of it, in both directions, on one stream.
    Stateful,
    /// The refs or capabilities alone: the first request of smart HTTP.
    Advertisement,
    /// One request and its answer: the others of smart HTTP.
    Stateless,
}

/// One exchange.
pub struct Exchange {
    /// What is asked for.
    pub service: Service,
    /// Whether it is a part of one.
    pub framing: Framing,
    /// The version of the protocol that the client would like.
    pub version: u8,
    /// The folder of the repository.
    pub repository: PathBuf,
    /// What the client sends. An error, unlike an end, tells that the client is gone.
    pub input: Box<dyn AsyncRead + Send + Unpin>,
    /// What it gets.
    pub output: Box<dyn AsyncWrite + Send + Unpin>,
    /// Who decides about a push; there is one unless it is an advertisement.
    pub gate: Option<Arc<dyn Gate>>,
    /// What it may use.
    pub bounds: Bounds,
    /// How much has been carried.
    pub traffic: Arc<Traffic>,
    /// Whether nobody waits for it any more.
    pub stop: CancellationToken,
    /// Whether the node ends, and with it everything, wherever it is.
    pub ending: CancellationToken,
}

/// What an exchange may use of the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bounds {
    /// Memory of each process, in bytes, without files that are mapped (`RLIMIT_DATA`).
    pub memory: u64,
    /// Time of processors that each process may take.
    pub processor: Duration,
    /// The largest pack that is pushed, in bytes.
    pub pack: u64,
    /// The most that a client may send beside a pack, in bytes: wants and haves, commands.
    pub request: u64,
    /// How long nothing may be carried, in either direction.
    pub idle: Duration,
    /// How long all of it may take.
    pub total: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            processor: Duration::from_secs(60 * 60),
            pack: 16 << 30,
            request: 64 << 20,
            idle: Duration::from_secs(10 * 60),
            total: Duration::from_secs(12 * 60 * 60),
        }
    }
}

/// How much an exchange has carried so far.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Bytes that the client has sent.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that it got.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Counts what the client has sent.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what it got.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("service", &self.service)
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

/// An exchange did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine could not be started or lost its pipes.
    #[error("git could not be run")]
    Run(#[source] io::Error),
    /// It ended with a failure. Clients have been told what they need by then.
    #[error("git ended with {status}: {complaint}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The beginning of what it wrote to standard error.
        complaint: String,
    },
    /// The engine was not set up to ask anybody about a push.
    #[error("pushes are not taken: the engine has no hooks")]
    NoHooks,
    /// The client has sent too much beside a pack.
    #[error("the request is too long")]
    TooLong,
    /// The client has signed a push and was not asked to.
    #[error("signed pushes are not taken")]
    Signed,
    /// The client has signed a push, and what git keeps of that has no room.
    #[error("the quota of the repository has no room for a signed push")]
    Full,
    /// The client went away.
    #[error("the client went away")]
    Gone(#[source] io::Error),
    /// Nobody waits for it any more.
    #[error("interrupted")]
    Interrupted,
    /// Nothing was carried for too long.
    #[error("nothing was carried for {}s", .0.as_secs())]
    Idle(Duration),
    /// It took too long.
    #[error("it took longer than {}s", .0.as_secs())]
    Late(Duration),
}
