//! How looking into a repository fails.

use std::io;

use gix::ObjectId;

use super::{InvalidPath, InvalidRevision};
use crate::{name::RepositoryName, repositories::RepositoryError};

/// Nothing can be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrowseError {
    /// There is no such repository that the caller may know of.
    #[error("there is no repository {0}, or it is not yours to see")]
    NoRepository(RepositoryName),
    /// The text names no revision.
    #[error(transparent)]
    InvalidRevision(#[from] InvalidRevision),
    /// The text is no path in a repository.
    #[error(transparent)]
    InvalidPath(#[from] InvalidPath),
    /// No ref leads there.
    #[error("there is no commit {0}")]
    NoRevision(String),
    /// Several commits have ids that begin so.
    #[error("several commits have an id that begins with {0}")]
    Ambiguous(String),
    /// The revision has no such file or folder.
    #[error("there is no {0} in this revision")]
    NoPath(String),
    /// It is a folder or a submodule.
    #[error("{0} is no file")]
    NotAFile(String),
    /// It is a file or a submodule.
    #[error("{0} is no folder")]
    NotAFolder(String),
    /// It is larger than what is shown.
    #[error("{size} bytes are too many: {limit} are shown at most")]
    TooLarge {
        /// What it has, in bytes.
        size: u64,
        /// What it may have, in bytes.
        limit: u64,
    },
    /// An object is larger than what is read.
    #[error("an object has more than {0} bytes")]
    LargeObject(usize),
    /// There is more in the archive than there may be.
    #[error("an archive has {0} entries and 32 MiB of paths at most")]
    ManyEntries(usize),
    /// A pattern in a file of attributes takes too long to match.
    #[error("line {line} of {path} has a pattern with more than {limit} times **")]
    Stars {
        /// Where the file is.
        path: String,
        /// The line, from one on.
        line: usize,
        /// How many a pattern may have.
        limit: usize,
    },
    /// A folder is deeper than it may be.
    #[error("folders are {0} deep at most")]
    Deep(usize),
    /// A folder has an entry that no file can be called.
    #[error("a folder has an entry called {0:?}")]
    OddName(String),
    /// An object is not there, or of another kind than it has to be.
    #[error("the object {0} is missing, or not what it has to be")]
    Missing(ObjectId),
    /// Something in the repository cannot be read.
    #[error("the repository is damaged")]
    Damaged(#[source] gix::Error),
    /// It took too long.
    #[error("it took too long")]
    Late,
    /// Nobody waits for it any more.
    #[error("interrupted")]
    Interrupted,
    /// Too many others are at it.
    #[error("too many look into repositories right now")]
    Busy,
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// An archive cannot be written.
    #[error("the archive cannot be written")]
    Archive(#[source] io::Error),
    /// The work itself has failed.
    #[error("looking into the repository failed")]
    Failed(#[source] tokio::task::JoinError),
}

impl BrowseError {
    /// Whether what is in the repository is to blame.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Damaged(_) | Self::OddName(_))
    }

    /// Whether there is more of something than may be shown.
    pub fn is_size(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::LargeObject(_)
                | Self::ManyEntries(_)
                | Self::Stars { .. }
                | Self::Deep(_)
        )
    }
}
