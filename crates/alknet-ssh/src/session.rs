//! A session channel: what is prepared on it, and the program that then runs on it
//! (RFC 4254, section 6).

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use russh::{
    Channel, ChannelId, Pty,
    server::{Handle, Msg},
};
use rustix::process::Signal;
use tokio::{process::Command, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    Account,
    process::Process,
    run::{Output, Run},
    terminal::{Size, Terminal, WeakTerminal},
    transport::Link,
};

/// How many variables a client may set.
const VARIABLES: usize = 64;
/// Signals that wait to be passed on.
const SIGNALS: usize = 16;

/// A channel on which no program runs yet.
pub(crate) struct Slot {
    channel: Channel<Msg>,
    variables: Vec<(String, String)>,
    terminal: Option<(Terminal, OwnedFd)>,
}

/// What a client asks to run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program<'a> {
    /// The login shell.
    Shell,
    /// A command, for the login shell to interpret.
    Command(&'a [u8]),
    /// The one command that the login is good for, whatever the client asked for.
    Forced {
        command: &'a str,
        /// The command that the client asked for, if it was not a shell.
        asked: Option<&'a [u8]>,
    },
}

/// The session loop's view of a running program.
#[derive(Debug)]
pub(crate) struct Remote {
    terminal: Option<WeakTerminal>,
    signals: mpsc::Sender<Signal>,
    gone: CancellationToken,
}

impl Slot {
    pub(crate) fn new(channel: Channel<Msg>) -> Self {
        Self { channel, variables: Vec::new(), terminal: None }
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.channel.id()
    }

    /// Takes a variable of the client's environment over; whether it is one that may be set.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) -> bool {
        let ok = Account::may_be_set(name, value) && self.variables.len() < VARIABLES;
        if ok {
            self.variables.push((name.into(), value.into()));
        }
        ok
    }

    /// Gives the program a terminal; whether it will have one.
    pub(crate) fn open_terminal(&mut self, term: &str, size: Size, modes: &[(Pty, u32)]) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if self.terminal.is_some() || term.len() > 64 || !term.chars().all(plain) {
            return false;
        }
        match Terminal::open(size, modes) {
            Ok((terminal, child)) => {
                let path = terminal.path().to_string_lossy().into_owned();
                self.variables.push(("SSH_TTY".into(), path));
                if !term.is_empty() {
                    self.variables.push(("TERM".into(), term.into()));
                }
                self.terminal = Some((terminal, child));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a terminal could not be opened");
                false
            }
        }
    }

    /// Starts the program; it runs in a task of the transport from then on.
    pub(crate) fn start(
        self,
        program: Program<'_>,
        handle: Handle,
        link: &Link,
    ) -> io::Result<Remote> {
        let mut command = program.command(&link.settings.account);
        command.envs(link.origin()).envs(self.variables);
        let terminal = self.terminal.as_ref().map(|(terminal, _)| terminal.downgrade());
        let (process, output) = spawn(command, self.terminal)?;
        let (signals, received) = mpsc::channel(SIGNALS);
        let gone = link.gone.child_token();
        let run = Run {
            process,
            output,
            channel: self.channel,
            handle,
            signals: received,
            gone: gone.clone(),
            backlog: link.backlog.clone(),
            grace: link.settings.limits.hangup_grace,
        };
        link.tasks.spawn(run.serve());
        Ok(Remote { terminal, signals, gone })
    }
}

fn spawn(
    mut command: Command,
    terminal: Option<(Terminal, OwnedFd)>,
) -> io::Result<(Process, Output)> {
    let Some((terminal, child)) = terminal else {
        let (process, pipes) = Process::with_pipes(command)?;
        return Ok((process, Output::Pipes(pipes)));
    };
    command.stdin(child.try_clone()?).stdout(child.try_clone()?).stderr(child);
    // The command holds the child's end too; the terminal ends when nobody does.
    Ok((Process::on_terminal(command)?, Output::Terminal(terminal)))
}

impl Program<'_> {
    /// The command with a clean environment: nothing of the node's own is passed on.
    fn command(self, account: &Account) -> Command {
        match self {
            Self::Shell => {
                let mut name = OsString::from("-");
                name.push(account.shell_name());
                let mut command = Command::new(&account.shell);
                command.arg0(name);
                account.settle(&mut command);
                command
            }
            Self::Command(line) => account.shell(OsStr::from_bytes(line)),
            Self::Forced { command: line, asked } => {
                let mut command = account.shell(line.as_ref());
                if let Some(asked) = asked {
                    command.env("SSH_ORIGINAL_COMMAND", OsStr::from_bytes(asked));
                }
                command
            }
        }
    }
}

impl Remote {
    /// Whether the program has ended or was told to.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Ends the program: the client does not want it any more.
    pub(crate) fn hang_up(&self) {
        self.gone.cancel();
    }

    /// Passes a signal on to the program's process group.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.signals.try_send(signal).is_err() {
            tracing::debug!("a signal came too late or too often");
        }
    }

    /// Passes a new size on to the program's terminal.
    pub(crate) fn resize(&self, size: Size) {
        if let Some(terminal) = self.terminal.as_ref().and_then(WeakTerminal::upgrade)
            && let Err(error) = terminal.resize(size)
        {
            tracing::debug!(%error, "a terminal could not be resized");
        }
    }
}
