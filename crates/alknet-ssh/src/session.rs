//! A session channel: what is prepared on it, and the program that then runs on it
//! (RFC 4254, section 6).

use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    sync::Arc,
};

use alknet_core::Identity;
use alknet_host::{
    Account, Process, RecordError, Recording, Session as RecordedSession, Size, Terminal,
    WeakTerminal,
};
use russh::{
    Channel, ChannelId, Pty,
    server::{Handle, Msg},
};
use rustix::process::Signal;
use tokio::{process::Command, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    ChannelService, Request, ServiceChannel,
    auth::Holder,
    channel::{self, Parts},
    modes,
    run::{Output, Run},
    service::Serving,
    transport::Link,
};

/// How many variables a client may set.
const VARIABLES: usize = 64;
/// How long the name and the value of one that the owner lists may be, in bytes.
const NAME: usize = 64;
const VALUE: usize = 4096;
/// How long the value of one that a service takes may be, in bytes.
const SERVICE_VALUE: usize = 256;
/// Signals that wait to be passed on.
const SIGNALS: usize = 16;

/// A channel on which no program runs yet.
pub(crate) struct Slot {
    channel: Channel<Msg>,
    variables: Vec<(String, String)>,
    /// Those that no program gets.
    for_services: Vec<(String, String)>,
    terminal: Option<(Terminal, OwnedFd)>,
    size: Size,
    recording: Option<Recording>,
    answered: CancellationToken,
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

/// The session loop's view of what runs on a channel: a program or a service.
#[derive(Debug)]
pub(crate) struct Remote {
    terminal: Option<WeakTerminal>,
    recording: Option<Recording>,
    signals: mpsc::Sender<Signal>,
    gone: CancellationToken,
}

impl Slot {
    pub(crate) fn new(channel: Channel<Msg>) -> Self {
        Self {
            channel,
            variables: Vec::new(),
            for_services: Vec::new(),
            terminal: None,
            size: Size::UNKNOWN,
            recording: None,
            answered: CancellationToken::new(),
        }
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.channel.id()
    }

    /// To be cancelled once the client knows of the start: what runs sends nothing before.
    pub(crate) fn answered(&self) -> CancellationToken {
        self.answered.clone()
    }

    /// Takes a variable of the client's environment over; whether it is one that may be set.
    /// `accepted` are those of the node's owner.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str, accepted: &[String]) -> bool {
        let listed = accepted.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        });
        let sane = listed && name.len() <= NAME && value.len() <= VALUE;
        let whole = !name.contains(['=', '\0']) && !value.contains('\0');
        let ok = (Account::may_be_set(name, value) || (sane && whole))
            && self.variables.len() < VARIABLES;
        if ok {
            self.variables.push((name.into(), value.into()));
        }
        ok
    }

    /// Takes a variable over for the service that gets the channel, if one does; whether any
    /// of them might take it.
    pub(crate) fn set_service_variable(
        &mut self,
        name: &str,
        value: &str,
        services: &[Arc<dyn ChannelService>],
    ) -> bool {
        let known = services.iter().any(|service| service.variables().contains(&name));
        let plain = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let ok =
            known && plain && value.len() <= SERVICE_VALUE && self.for_services.len() < VARIABLES;
        if ok {
            self.for_services.push((name.into(), value.into()));
        }
        ok
    }

    /// Tells the program where the client's agent is.
    pub(crate) fn set_agent(&mut self, path: String) {
        self.variables.push(("SSH_AUTH_SOCK".into(), path));
    }

    /// Gives the program a terminal; whether it will have one.
    pub(crate) fn open_terminal(&mut self, term: &str, size: Size, modes: &[(Pty, u32)]) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if self.terminal.is_some() || term.len() > 64 || !term.chars().all(plain) {
            return false;
        }
        match Terminal::open(size, |settings| modes::apply(settings, modes)) {
            Ok((terminal, child)) => {
                let path = terminal.path().to_string_lossy().into_owned();
                self.variables.push(("SSH_TTY".into(), path));
                if !term.is_empty() {
                    self.variables.push(("TERM".into(), term.into()));
                }
                self.terminal = Some((terminal, child));
                self.size = size;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a terminal could not be opened");
                false
            }
        }
    }

    /// Has the terminal recorded, where there is one and that is what the node does. The
    /// program must not start if it fails.
    pub(crate) async fn record(
        &mut self,
        identity: &Arc<Identity>,
        account: &Account,
        link: &Link,
    ) -> Result<(), RecordError> {
        if let (Some(recorder), Some(_)) = (&link.settings.recorder, &self.terminal) {
            let alpn = link.auth.alpn.to_string();
            let mut session =
                RecordedSession::new(identity.clone(), &account.name, &alpn, self.size);
            session.peer = link.auth.remote_addr;
            let term = self.variables.iter().find(|(name, _)| name == "TERM");
            session.term = term.map(|(_, value)| value.clone());
            self.recording = recorder.begin(session).await?;
        }
        Ok(())
    }

    /// Gives the channel to a service; it runs in a task of the transport from then on.
    pub(crate) fn serve(
        self,
        service: &dyn ChannelService,
        request: Request<'_>,
        holder: Holder,
        handle: Handle,
        link: &Link,
    ) -> Remote {
        let id = self.channel.id();
        let Parts { stream, stderr, finished } = channel::parts(self.channel, link.backlog.clone());
        let command = match request {
            Request::Command(command) => Some(command.to_vec()),
            Request::Subsystem(_) | Request::Shell => None,
        };
        let mut variables = self.for_services;
        variables.retain(|(name, _)| service.variables().contains(&name.as_str()));
        let Holder { identity: caller, login_name, account } = holder;
        let auth = link.auth.clone();
        let service = service.serve(ServiceChannel {
            stream,
            stderr,
            command,
            variables,
            caller,
            login_name,
            account,
            auth,
        });
        let gone = link.gone.child_token();
        let serving = Serving { service, id, finished, handle, gone: gone.clone() };
        link.tasks.spawn(after(self.answered, serving.run()));
        // There is nothing that takes signals.
        let (signals, _) = mpsc::channel(1);
        Remote { terminal: None, recording: None, signals, gone }
    }

    /// Starts the program; it runs in a task of the transport from then on.
    pub(crate) fn start(
        self,
        program: Program<'_>,
        account: &Account,
        handle: Handle,
        link: &Link,
    ) -> io::Result<Remote> {
        let mut command = program.command(account);
        // Where a client is from it does not say itself.
        let of_node = link.settings.set_env.iter().map(|(name, value)| (name, value));
        command.envs(self.variables).envs(of_node).envs(link.origin());
        let terminal = self.terminal.as_ref().map(|(terminal, _)| terminal.downgrade());
        let (process, output) = spawn(command, self.terminal, account)?;
        let (signals, received) = mpsc::channel(SIGNALS);
        let gone = link.gone.child_token();
        let run = Run {
            process,
            output,
            recording: self.recording.clone(),
            channel: self.channel,
            handle,
            signals: received,
            gone: gone.clone(),
            backlog: link.backlog.clone(),
            grace: link.settings.limits.hangup_grace,
        };
        link.tasks.spawn(after(self.answered, run.serve()));
        Ok(Remote { terminal, recording: self.recording, signals, gone })
    }
}

async fn after(answered: CancellationToken, task: impl Future<Output = ()>) {
    answered.cancelled().await;
    task.await;
}

fn spawn(
    mut command: Command,
    terminal: Option<(Terminal, OwnedFd)>,
    account: &Account,
) -> io::Result<(Process, Output)> {
    let Some((terminal, child)) = terminal else {
        let (process, pipes) = Process::with_pipes(command)?;
        return Ok((process, Output::Pipes(pipes)));
    };
    terminal.give_to(account)?;
    command.stdin(child.try_clone()?).stdout(child.try_clone()?).stderr(child);
    // The command holds the child's end too; the terminal ends when nobody does.
    Ok((Process::on_terminal(command)?, Output::Terminal(terminal)))
}

impl Program<'_> {
    /// The command with a clean environment: nothing of the node's own is passed on.
    fn command(self, account: &Account) -> Command {
        match self {
            Self::Shell => account.login_shell(),
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
    /// Waits until the program has ended or was told to. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.gone.cancelled().await;
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
        if let Some(recording) = &self.recording {
            recording.resize(size);
        }
    }
}
