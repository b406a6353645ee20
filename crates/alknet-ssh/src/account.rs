//! The account that sessions run as.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use nix::unistd::{User, geteuid};
use tokio::process::Command;

use crate::sys;

/// How long the value of a variable may be that a client sets, and its name, in bytes.
const MAX_VALUE: usize = 4096;
const MAX_NAME: usize = 64;

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

    /// A command line for the login shell to interpret, as a session runs it: in the home
    /// folder, with a clean environment and default signals, as the leader of a session and
    /// a process group of its own. Nothing of this process is passed on but its standard
    /// streams, unless they are replaced.
    pub fn shell_command(&self, line: impl AsRef<OsStr>) -> Command {
        let mut command = self.shell(line.as_ref());
        sys::isolate(&mut command, false);
        command
    }

    /// A program, looked for where sessions look for theirs; otherwise like
    /// [`shell_command`](Self::shell_command).
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.settle(&mut command);
        sys::isolate(&mut command, false);
        command
    }

    /// Whether a client may set this variable for what it runs: the languages, and whether
    /// its terminal has colours.
    pub fn may_be_set(name: &str, value: &str) -> bool {
        let known = name == "LANG" || name.starts_with("LC_") || name == "COLORTERM";
        let sane =
            name.len() <= MAX_NAME && value.len() <= MAX_VALUE && !name.contains(['=', '\0']);
        known && sane && !value.contains('\0')
    }

    /// The login shell with a command line.
    pub(crate) fn shell(&self, line: &OsStr) -> Command {
        let mut command = Command::new(&self.shell);
        command.arg0(self.shell_name()).arg("-c").arg(line);
        self.settle(&mut command);
        command
    }

    /// What the login shell is called.
    pub(crate) fn shell_name(&self) -> &OsStr {
        self.shell.file_name().unwrap_or(self.shell.as_os_str())
    }

    /// A clean environment and the folder to start in: nothing of the node's own is passed on.
    pub(crate) fn settle(&self, command: &mut Command) {
        let home = if self.home.is_dir() { self.home.as_path() } else { Path::new("/") };
        command
            .current_dir(home)
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .env("LOGNAME", &self.name)
            .env("SHELL", &self.shell)
            .env("PATH", self.search_path());
    }

    /// The directories in which sessions look for programs.
    fn search_path(&self) -> &'static str {
        if self.name == "root" {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin:/usr/bin:/bin:/usr/games"
        }
    }
}
