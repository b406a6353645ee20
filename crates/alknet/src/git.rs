//! Git on the node.

pub(crate) mod admin;
pub(crate) mod http;
mod nodes;
pub(crate) mod remote_helper;
pub(crate) mod ssh;

use std::{error::Error, io, path::PathBuf, sync::Arc};

use alknet_core::{Audit, IdentityProvider, NodeIdentity};
use alknet_git::{
    Events, GitConfig, GitServer, InstalledGit, Keeper, KeeperConfig, OwnerHooks, Repositories,
    Setup, SetupError, hook,
};

pub(crate) use self::nodes::OtherNodes;
use crate::{config, failure::Failure, home::Home};

/// The folder of repositories in the state folder, unless another is configured.
const FOLDER: &str = "repos";
/// What the engine needs while the node runs, in the state folder.
const ENGINE: &str = "run/git";

/// What a node needs to host repositories.
pub(crate) struct Hosting {
    pub(crate) server: GitServer,
    /// Has to be run.
    pub(crate) keeper: Keeper,
}

/// The server of the repositories, after what a node before this one has left is taken away.
pub(crate) async fn host(
    home: &Home,
    config: &config::Git,
    audit: &Audit,
    identity: &Arc<NodeIdentity>,
    identities: &Arc<impl IdentityProvider>,
) -> Result<Hosting, Failure> {
    let repositories = repositories(home, config).await?;
    let mut setup = Setup::new(home.path(ENGINE), hook::program()?);
    setup.allowed_signers = config.allowed_signers.as_deref().map(PathBuf::from);
    let engine = tokio::task::spawn_blocking(move || engine(&setup));
    let engine = engine.await.map_err(io::Error::other)??;
    let events = Events::default();
    let mut kept =
        KeeperConfig::new(repositories.clone(), engine.clone(), events.clone(), audit.clone());
    kept.nodes = Some(Arc::new(OtherNodes::new(home, Some(identity.clone()))?));
    let mut parts = GitConfig::new(repositories, engine, audit.clone());
    parts.events = events;
    let hooks = |folder| OwnerHooks::new(folder).with_deadline(config.hook_deadline.into());
    parts.hooks = config.hooks.as_deref().map(hooks);
    parts.identities = Some(identities.clone());
    parts.limits = config.limits();
    let server = GitServer::new(parts);
    server.sweep().await?;
    Ok(Hosting { server, keeper: keeper(config, kept) })
}

/// The git of the machine; without one that can be used, none: repositories are still browsed.
fn engine(setup: &Setup) -> Result<InstalledGit, SetupError> {
    let unusable = |error: &dyn Error| {
        tracing::warn!(%error, "repositories can be neither fetched from nor pushed to");
        Ok(InstalledGit::none())
    };
    match InstalledGit::find().map(|git| git.set_up(setup)) {
        Ok(Err(error @ SetupError::Folder { .. })) => Err(error),
        Ok(Err(error)) => unusable(&error),
        Ok(Ok(git)) => Ok(git),
        Err(error) => unusable(&error),
    }
}

/// The repositories of a state folder.
pub(crate) async fn repositories(
    home: &Home,
    config: &config::Git,
) -> Result<Repositories, Failure> {
    let folder = match &config.folder {
        Some(folder) => folder.to_path_buf(),
        None => home.folder(FOLDER)?,
    };
    let defaults = config.defaults();
    let open = tokio::task::spawn_blocking(move || Repositories::open_with(&folder, defaults));
    Ok(open.await.map_err(io::Error::other)??)
}

/// What looks after them.
pub(crate) fn keeper(config: &config::Git, mut parts: KeeperConfig) -> Keeper {
    parts.mirrors = config.mirrors();
    parts.automatic = config.automatic_gc;
    parts.bundles = config.bundles;
    Keeper::new(parts)
}
