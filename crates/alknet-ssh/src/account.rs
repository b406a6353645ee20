//! The account that sessions run as.

use std::{io, path::PathBuf};

use nix::unistd::{User, geteuid};

/// An account of the machine: who sessions run as.
///
/// The node does not change users: sessions run as the account of the node's own process,
/// and the login name of every client must be this account's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// Where sessions start.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// The account of the process is not to be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The account database could not be read.
    #[error("the account database could not be read")]
    Database(#[source] io::Error),
    /// The process runs under a user id that has no account.
    #[error("no account has the user id {0}")]
    Unknown(u32),
}

impl Account {
    /// The account that this process runs as.
    pub fn current() -> Result<Self, AccountError> {
        let id = geteuid();
        let user = User::from_uid(id)
            .map_err(|errno| AccountError::Database(errno.into()))?
            .ok_or(AccountError::Unknown(id.as_raw()))?;
        let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
        Ok(Self { name: user.name, home: user.dir, shell })
    }

    /// The directories in which sessions look for programs.
    pub(crate) fn search_path(&self) -> &'static str {
        if self.name == "root" {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin:/usr/bin:/bin:/usr/games"
        }
    }
}
