//! Repositories for the peers of a node, whichever way they come.

use std::{fmt, io, sync::Arc, time::Duration};

use alknet_core::{Audit, AuthContext, Identity, IdentityProvider, Stream};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    engine::{Bounds, Engine, EngineError, Framing},
    events::Events,
    lfs::{LfsError, Rooms},
    name::RepositoryName,
    push::{self, OwnerHooks, Tenants},
    record::Record,
    repositories::{Repositories, RepositoryError},
    request::{InvalidRequest, Request},
    rights::Rights,
    slots::Slots,
};

/// How long what is interrupted may take to end.
const PARTING: Duration = Duration::from_secs(15);

/// What a git server is made from.
#[derive(Debug)]
#[non_exhaustive]
pub struct GitConfig {
    /// The repositories.
    pub repositories: Repositories,
    /// What makes and takes packs.
    pub engine: Arc<dyn Engine>,
    /// Where fetches and pushes are recorded.
    pub audit: Audit,
    /// Who is told of what happens.
    pub events: Events,
    /// The owner's hooks.
    pub hooks: Option<OwnerHooks>,
    /// Who knows what a caller may do by the time that a push is decided. Without it, that is
    /// what they might do at its beginning.
    pub identities: Option<Arc<dyn IdentityProvider>>,
    /// Bounds.
    pub limits: GitLimits,
}

impl GitConfig {
    /// With the default bounds, no hooks of the owner, and nobody who knows callers.
    pub fn new(repositories: Repositories, engine: impl Engine, audit: Audit) -> Self {
        Self {
            repositories,
            engine: Arc::new(engine),
            audit,
            events: Events::default(),
            hooks: None,
            identities: None,
            limits: GitLimits::default(),
        }
    }
}

/// How much is served at once, and for how long.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GitLimits {
    /// Exchanges in progress on one connection.
    pub exchanges: usize,
    /// How long a client may take to say what it wants.
    pub start: Duration,
    /// Exchanges in progress over the whole node. A quarter of them is kept for identities.
    pub all_exchanges: usize,
    /// Exchanges in progress of one identity, or of one address that has none, over all of its
    /// connections; of IPv6, of all addresses of a /64. As many may wait.
    pub exchanges_per_caller: usize,
    /// Exchanges that wait for others to end, over the whole node.
    pub waiting: usize,
    /// How long each waits at most.
    pub patience: Duration,
    /// The largest object that is pushed, in bytes, once it is unpacked.
    pub object: u64,
    /// What each exchange may use of the machine.
    pub bounds: Bounds,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self {
            exchanges: 16,
            start: Duration::from_secs(30),
            all_exchanges: 64,
            exchanges_per_caller: 16,
            waiting: 256,
            patience: Duration::from_secs(30),
            object: 2 << 30,
            bounds: Bounds::default(),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who they have proven to be, if somebody.
    pub identity: Option<Arc<Identity>>,
    /// Where they come from.
    pub auth: AuthContext,
}

impl Caller {
    /// The caller of a connection.
    pub fn of(auth: AuthContext) -> Self {
        Self { identity: auth.identity.clone(), auth }
    }

    /// What they may do.
    pub fn rights(&self) -> Rights<'_> {
        Rights::of(self.identity.as_deref())
    }
}

/// A git server for the peers of a node. Cheap to clone; clones share their bounds.
#[derive(Clone)]
pub struct GitServer(pub(crate) Arc<Inner>);

/// What clones share.
pub(crate) struct Inner {
    pub(crate) config: GitConfig,
    pub(crate) record: Arc<Record>,
    pub(crate) slots: Slots,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) rooms: Rooms,
    /// Exchanges end in tasks of their own: what follows their end is done when nobody waits.
    pub(crate) tasks: TaskTracker,
    /// Whether all of them have to end now.
    pub(crate) ending: CancellationToken,
}

/// An exchange was not served to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// There is no such repository that the caller may know of.
    #[error("there is no repository {0}, or it is not yours to see")]
    NotFound(RepositoryName),
    /// The caller sees the repository and may not do this.
    #[error("you may not push to {0}")]
    Forbidden(RepositoryName),
    /// It is a copy of another, which nobody pushes to.
    #[error("{0} is a copy of another repository: push there")]
    Mirror(RepositoryName),
    /// The credential of the caller does not hold any more.
    #[error("your access has ended")]
    Ended,
    /// Others are served, and it took too long.
    #[error("the node is busy with other exchanges: try again later")]
    Busy,
    /// The client took too long to say what it wants.
    #[error("no request in time")]
    Late,
    /// It said nothing that can be understood.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The exchange failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Large files could not be kept or given.
    #[error(transparent)]
    Lfs(#[from] LfsError),
    /// The stream failed.
    #[error("the stream failed")]
    Stream(#[from] io::Error),
    /// The node is ending.
    #[error("interrupted")]
    Interrupted,
}

impl GitError {
    /// What a client is told that was refused. What has gone wrong on the node's side is for
    /// the node's log.
    pub fn told(&self) -> String {
        match self {
            Self::NotFound(_)
            | Self::Forbidden(_)
            | Self::Mirror(_)
            | Self::Ended
            | Self::Busy
            | Self::Late => self.to_string(),
            Self::Request(error) => error.to_string(),
            Self::Repository(_)
            | Self::Engine(_)
            | Self::Lfs(_)
            | Self::Stream(_)
            | Self::Interrupted => "the node cannot serve this now".to_owned(),
        }
    }
}

impl GitServer {
    /// A server with this configuration.
    pub fn new(config: GitConfig) -> Self {
        let GitConfig { repositories, audit, events, limits, .. } = &config;
        let GitLimits { all_exchanges, exchanges_per_caller, waiting, .. } = *limits;
        Self(Arc::new(Inner {
            record: Arc::new(Record::new(audit.clone(), events.clone())),
            slots: Slots::new(all_exchanges, exchanges_per_caller, waiting),
            tenants: Tenants::new(repositories.clone()),
            rooms: Rooms::default(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            config,
        }))
    }

    /// The repositories that it serves.
    pub fn repositories(&self) -> &Repositories {
        &self.0.config.repositories
    }

    /// Its bounds.
    pub fn limits(&self) -> &GitLimits {
        &self.0.config.limits
    }

    /// What happens to the repositories.
    pub fn events(&self) -> &Events {
        self.0.record.events()
    }

    /// Takes away what killed processes have left in the repositories: half a push, locks. To
    /// be called once, before anything is served; no other node may serve them.
    pub async fn sweep(&self) -> Result<(), GitError> {
        let repositories = self.repositories().clone();
        blocking(move || push::sweep(&repositories)).await
    }

    /// Ends it: what is under way has so long to come to its end, which a push may do without
    /// its client, and is interrupted then. Nothing is done after that.
    pub async fn shutdown(&self, deadline: Duration) {
        self.0.tasks.close();
        let done = timeout(deadline, self.0.tasks.wait()).await;
        self.0.ending.cancel();
        if done.is_err() && timeout(PARTING, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("exchanges do not end");
        }
    }

    /// Serves one stream that begins with a request line, to its end.
    pub async fn serve(&self, mut stream: Stream, caller: &Caller) -> Result<(), GitError> {
        let read = Request::read(&mut stream);
        let request = match timeout(self.limits().start, read).await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => return refuse(stream, error.into()).await,
            Err(_) => return Err(GitError::Late),
        };
        let admitted = match self.admit(&request, caller).await {
            Ok(admitted) => admitted,
            Err(error) => return refuse(stream, error).await,
        };
        let (output, input) = stream.split();
        self.exchange(&request, admitted, Framing::Stateful, input, output).await
    }
}

/// Disks may be slow, and other exchanges must not wait for them.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, GitError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| GitError::Interrupted)??)
}

/// Tells the client in the packet line that git's clients show (gitprotocol-pack, `ERR`).
async fn refuse(mut stream: Stream, error: GitError) -> Result<(), GitError> {
    let text = format!("ERR {}", error.told());
    let line = format!("{:04x}{text}", text.len() + 4);
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await?;
    Err(error)
}

impl fmt::Debug for GitServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitServer")
            .field("repositories", self.repositories())
            .finish_non_exhaustive()
    }
}
