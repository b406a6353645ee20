//! Git repositories, served over any byte stream: the handler of `alknet/git`, and what SSH
//! and HTTPS lead to.
//!
//! ```no_run
//! # use alknet_git::*;
//! # async fn run(audit: alknet_core::Audit) -> Result<(), Box<dyn std::error::Error>> {
//! let repositories = Repositories::open("/srv/repos".as_ref())?;
//! repositories.create(&"team/notes".parse()?, &Settings::default())?;
//! // `main` of this very program calls `hook::main` first.
//! let setup = Setup::new("/run/repos", hook::program()?);
//! let engine = InstalledGit::find()?.set_up(&setup)?;
//! let server = GitServer::new(GitConfig::new(repositories, engine, audit));
//! server.sweep().await?;
//! let adapter = GitAdapter::new(server);
//! # Ok(())
//! # }
//! ```
//!
//! # Model
//!
//! A stream is one exchange: the request line of git's daemon (`gitprotocol-pack`, section
//! "Git transport") names a service and a repository, and what follows is git's own protocol.
//! Repositories are bare and lie in one folder, by names of their own and never by paths. An
//! [`Engine`] makes and takes packs; everything else is read by gix.
//!
//! # Who may do what
//!
//! | grant | what it allows |
//! |---|---|
//! | `git:read:NAME` | to fetch and to browse |
//! | `git:write:NAME` | to push to every ref, and what `read` allows |
//! | `git:write:NAME:REF` | to push to some refs, and what `read` allows |
//! | `git:create:NAME` | to make a repository, by pushing to it too |
//! | `git:admin:NAME` | to rename, delete, describe and protect |
//!
//! `git` is all of them. What nobody may see answers like what does not exist.
//!
//! Whoever may read a repository may fetch each of its objects by its id, also one that no ref
//! leads to any more, until a [`Keeper`] collects it: it does so each week, and what nothing has
//! led to for two weeks goes.

mod adapter;
mod admission;
pub mod browse;
mod bundle;
mod engine;
mod events;
pub mod hook;
pub mod http;
mod lfs;
mod mirror;
mod name;
mod push;
mod record;
mod repositories;
mod request;
mod rights;
mod server;
mod slots;

pub use adapter::GitAdapter;
pub use admission::Admitted;
pub use engine::{
    Bounds, Engine, EngineError, Exchange, Framing, InstalledGit, NoGit, Setup, SetupError, Traffic,
};
pub use events::{Event, EventKind, Events, Missed, Subscription};
pub use lfs::{InvalidOperation, LfsError, LfsOperation};
pub use mirror::{
    CredentialsFile, InvalidCredentialsFile, InvalidMirrorUrl, Mirror, MirrorError, MirrorPolicy,
    MirrorStatus, MirrorUrl, Nodes,
};
pub use name::{InvalidName, RepositoryName};
pub use push::{Certificate, Gate, OwnerHooks, Push, RefChange, Refused, Say, UntrustedHook};
pub use repositories::{
    Collected, Defaults, InvalidRefPattern, InvalidSettings, Keeper, KeeperConfig, KeeperError,
    Overview, RefPattern, Repositories, Repository, RepositoryError, RunError, Settings,
};
pub use request::{InvalidRequest, RemoteCommand, Request, Service};
pub use rights::Rights;
pub use server::{Caller, GitConfig, GitError, GitLimits, GitServer};
