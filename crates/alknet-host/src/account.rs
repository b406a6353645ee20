//! The account that sessions run as.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{Group, User, geteuid, getgrouplist};
use rustix::process::{Gid, Uid};
use tokio::process::Command;

use crate::{Leader, sys};

/// How long the value of a variable may be that a client sets, and its name, in bytes.
const MAX_VALUE: usize = 4096;
const MAX_NAME: usize = 64;
/// Where accounts have their mail.
const MAIL: &str = "/var/mail";

/// An account of the machine: who sessions run as.
///
/// It is the account of this process, or of a process with the rights of root one that
/// [`Accounts`](crate::Accounts) found: programs give up those rights before they start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The login name.
    pub name: String,
    /// Where sessions start.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
    /// Whom programs become; `None`: nobody else.
    pub(crate) switch: Option<Switch>,
    /// How its programs start; `None`: they become the account between fork and exec.
    pub(crate) leader: Option<Leader>,
}

/// Whom a program becomes before it starts: all that the account database says is read
/// before the fork, after which nothing may allocate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    /// The group that may write messages to terminals, where there is one.
    pub(crate) messages: Option<Gid>,
    /// Entered as the account, whose home may be closed even to root (NFS).
    pub(crate) home: CString,
}

impl Switch {
    /// Reads the groups of a user. Blocks for the account database.
    pub(crate) fn to(user: &User) -> io::Result<Self> {
        let name = CString::new(user.name.as_str())?;
        let groups = getgrouplist(&name, user.gid)?;
        let home = CString::new(user.dir.as_os_str().as_bytes())?;
        let group = |id: nix::unistd::Gid| Gid::from_raw(id.as_raw());
        let groups = groups.into_iter().map(group).collect();
        let messages = Group::from_name("tty")?.map(|it| group(it.gid));
        let (uid, gid) = (Uid::from_raw(user.uid.as_raw()), group(user.gid));
        Ok(Self { uid, gid, groups, messages, home })
    }
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
    /// It has not the rights of root, so it serves its own account alone.
    #[error("a node that runs as {own} cannot become {other}: only root can")]
    Other {
        /// Its account.
        own: String,
        /// The one that somebody is mapped to.
        other: String,
    },
}

impl Account {
    /// The account that this process runs as.
    pub fn current() -> Result<Self, AccountError> {
        let id = geteuid();
        let user = User::from_uid(id)
            .map_err(|errno| AccountError::Database(errno.into()))?
            .ok_or(AccountError::Unknown(id.as_raw()))?;
        Ok(Self::from_user(user, None))
    }

    pub(crate) fn from_user(user: User, switch: Option<Switch>) -> Self {
        let shell = if user.shell.as_os_str().is_empty() { "/bin/sh".into() } else { user.shell };
        Self { name: user.name, home: user.dir, shell, switch, leader: None }
    }

    /// The login shell as it is at the start of a session.
    pub fn login_shell(&self) -> Command {
        let mut name = OsString::from("-");
        name.push(self.shell_name());
        self.program(self.shell.as_os_str(), &name)
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
        let mut command = self.program(program.as_ref(), program.as_ref());
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
    pub fn shell(&self, line: &OsStr) -> Command {
        let mut command = self.program(self.shell.as_os_str(), self.shell_name());
        command.arg("-c").arg(line);
        command
    }

    /// Whether it is the one that this process runs as.
    pub fn is_own(&self) -> bool {
        self.switch.is_none()
    }

    /// What the login shell is called.
    pub fn shell_name(&self) -> &OsStr {
        self.shell.file_name().unwrap_or(self.shell.as_os_str())
    }

    /// A program by the name `arg0`, in a session of the account.
    fn program(&self, program: &OsStr, arg0: &OsStr) -> Command {
        if let (Some(leader), Some(_)) = (&self.leader, &self.switch) {
            let mut command = leader.command(&self.name, arg0, program);
            self.surround(&mut command);
            return command;
        }
        let mut command = Command::new(program);
        command.arg0(arg0);
        self.settle(&mut command);
        command
    }

    /// A clean environment, the folder to start in, and the rights of the account: nothing
    /// of the node's own is passed on. There is no PAM session.
    pub fn settle(&self, command: &mut Command) {
        if let (Some(leader), Some(_)) = (&self.leader, &self.switch) {
            let given = command.as_std();
            let mut led = leader.plain(&self.name, given.get_program());
            led.args(given.get_args());
            *command = led;
            self.surround(command);
            return;
        }
        self.surround(command);
        if let Some(switch) = &self.switch {
            sys::switch(command, switch.clone());
        }
    }

    fn surround(&self, command: &mut Command) {
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .env("LOGNAME", &self.name)
            .env("SHELL", &self.shell)
            .env("PATH", self.search_path());
        if self.switch.is_some() {
            command.env("MAIL", Path::new(MAIL).join(&self.name));
            // A leader takes the folder for one to enter as the account; without one, that
            // goes on from the root folder to its home.
            let led = self.leader.is_some();
            command.current_dir(if led { self.home.as_path() } else { Path::new("/") });
        } else {
            let home = if self.home.is_dir() { self.home.as_path() } else { Path::new("/") };
            command.current_dir(home);
        }
    }

    /// The directories in which sessions look for programs.
    fn search_path(&self) -> &'static str {
        let uid = self.switch.as_ref().map_or_else(rustix::process::geteuid, |to| to.uid);
        if uid.is_root() {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin:/usr/bin:/bin:/usr/games"
        }
    }
}
