//! Which repositories there are.

use schemars::JsonSchema;
use serde::Serialize;

use super::{BrowseError, bounds::Brake};
use crate::{
    name::RepositoryName,
    repositories::{Repositories, Repository},
    server::Caller,
};

/// The most repositories in one answer.
const MAX_LISTED: usize = 1000;

/// Which repositories are asked for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListQuery {
    /// What their names begin with.
    pub prefix: String,
    /// Only those behind this one, in order of their names.
    pub after: String,
}

/// The repositories that somebody may know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct List {
    /// In order of their names.
    pub repositories: Vec<Listed>,
    /// Whether there are more.
    pub truncated: bool,
}

/// A repository in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// What it is, in a line.
    pub description: String,
    /// Whether it may be read without any grant.
    pub public: bool,
    /// The branch that is checked out by who clones it.
    pub default_branch: Option<String>,
    /// Whether nothing was pushed to it yet.
    pub empty: bool,
    /// How much it takes on the disk, in bytes.
    pub size: u64,
    /// When it has changed for the last time, in seconds since 1970.
    pub updated: Option<i64>,
    /// What the caller may do with it, beside reading.
    pub rights: ListedRights,
}

/// What somebody may do with a repository, beside reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct ListedRights {
    /// Whether they may push to some ref.
    pub push: bool,
    /// Whether they may rename, delete, describe and protect it.
    pub admin: bool,
}

/// What the caller may know of.
pub(super) fn list(
    repositories: &Repositories,
    caller: &Caller,
    query: &ListQuery,
    brake: &Brake,
) -> Result<List, BrowseError> {
    let mut list = List { repositories: Vec::new(), truncated: false };
    for name in repositories.names()? {
        let text = name.as_str();
        if !text.starts_with(&query.prefix) || text <= query.after.as_str() {
            continue;
        }
        match brake.check() {
            // What was found in time is worth something.
            Err(BrowseError::Late) => {
                list.truncated = true;
                break;
            }
            other => other?,
        }
        let Some(repository) = visible(repositories, caller, &name) else { continue };
        if list.repositories.len() >= MAX_LISTED {
            list.truncated = true;
            break;
        }
        list.repositories.push(row(repositories, caller, &repository));
    }
    Ok(list)
}

/// A repository, if it can be read and the caller may know of it.
fn visible(
    repositories: &Repositories,
    caller: &Caller,
    name: &RepositoryName,
) -> Option<Repository> {
    let found = repositories.get(name).unwrap_or_else(|error| {
        tracing::warn!(%name, %error, "a repository cannot be read");
        None
    })?;
    (found.settings.public || caller.rights().read(name)).then_some(found)
}

/// A repository in the list: a damaged one as far as it can be told about.
fn row(repositories: &Repositories, caller: &Caller, repository: &Repository) -> Listed {
    let (name, rights) = (&repository.name, caller.rights());
    let overview = repositories.overview(repository).inspect_err(|error| {
        tracing::warn!(%name, %error, "a repository cannot be looked into");
    });
    let overview = overview.ok();
    Listed {
        name: name.to_string(),
        description: repository.settings.description.clone(),
        public: repository.settings.public,
        default_branch: overview.as_ref().and_then(|it| it.default_branch.clone()),
        empty: overview.as_ref().is_none_or(|it| it.empty),
        size: overview.as_ref().map_or(0, |it| it.size),
        updated: overview.as_ref().map(|it| it.updated),
        rights: ListedRights { push: rights.push(name), admin: rights.admin(name) },
    }
}
