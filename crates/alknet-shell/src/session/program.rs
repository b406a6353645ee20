//! The program of a session, from its start to its end.

use std::{
    ffi::OsStr, io, os::unix::process::ExitStatusExt as _, pin::pin, process::ExitStatus,
    time::Duration,
};

use alknet_host::{Account, Process, Rest, Terminal};
use bytes::BytesMut;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Session;
use crate::{
    hub::Hold,
    wire::{Exit, Size},
};

/// How much of the program's output is read at once, in bytes.
const READ: usize = 8 * 1024;
/// How much of it the emulator takes before others get a turn, in bytes.
const TURN: usize = 1024;

/// What a session begins with.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) account: &'a Account,
    /// `None` for the login shell.
    pub(crate) command: Option<&'a str>,
    pub(crate) size: Size,
    pub(crate) variables: Vec<(String, String)>,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) terminal: Terminal,
}

/// Starts the program on a terminal of its own.
pub(crate) fn start(launch: &Launch<'_>) -> io::Result<Started> {
    let (terminal, child) = Terminal::open(launch.size.into(), |_| {})?;
    terminal.give_to(launch.account)?;
    let mut command = match launch.command {
        None => launch.account.login_shell(),
        Some(line) => launch.account.shell(OsStr::new(line)),
    };
    command.envs(launch.variables.iter().map(|(name, value)| (name, value)));
    command.stdin(child.try_clone()?).stdout(child.try_clone()?).stderr(child);
    // The command holds the child's end too; the terminal ends when nobody does.
    Ok(Started { process: Process::on_terminal(command)?, terminal })
}

impl Session {
    /// Serves the program until it has ended and its output is taken in, or the session's
    /// time is over.
    pub(crate) async fn serve(&self, started: Started, grace: Duration) {
        let Started { mut process, terminal } = started;
        let exit = tokio::select! {
            exit = self.supervise(&mut process, &terminal) => Some(exit),
            () = self.end.cancelled() => None,
        };
        if exit.is_none() {
            // The line of the terminal is cut first, as a modem would do it.
            drop(terminal);
            process.hang_up(grace).await;
        }
        if let Some(recording) = &self.recording {
            recording.clone().finish(None).await;
        }
        if let Some(exit) = exit {
            self.hub().exited(exit);
        }
        self.changed.notify_waiters();
    }

    async fn supervise(&self, process: &mut Process, terminal: &Terminal) -> Exit {
        let exited = CancellationToken::new();
        let mut output = pin!(self.read(terminal.clone(), &exited));
        let mut input = pin!(self.write(terminal.clone()));
        let (mut read, mut written) = (false, false);
        let mut exit = None;
        loop {
            tokio::select! {
                ended = process.exited(), if exit.is_none() => {
                    exit = Some(ended.map_or_else(|_| Exit::default(), exit_of));
                    exited.cancel();
                }
                () = &mut output, if !read => read = true,
                () = &mut input, if !written => written = true,
            }
            if read && let Some(exit) = exit.take() {
                return exit;
            }
        }
    }

    /// Takes in what the program writes, as fast as its viewers allow. All that anybody
    /// will ever see of it passes here.
    async fn read(&self, mut terminal: Terminal, exited: &CancellationToken) {
        let mut buffer = BytesMut::with_capacity(READ);
        let mut rest: Option<Rest> = None;
        loop {
            self.ready().await;
            buffer.reserve(READ);
            let reading = terminal.read_buf(&mut buffer);
            let read = match &mut rest {
                Some(rest) => rest.read(reading).await,
                None => tokio::select! {
                    biased;
                    () = exited.cancelled() => {
                        rest = Some(Rest::default());
                        continue;
                    }
                    read = reading => read,
                },
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
            let data = buffer.split();
            // Nobody sees what is not recorded.
            if let Some(recording) = &self.recording
                && let Err(error) = recording.output(&data).await
            {
                return self.unrecorded(&error);
            }
            for piece in data.chunks(TURN) {
                self.hub().output(piece);
                self.changed.notify_waiters();
                tokio::task::coop::consume_budget().await;
            }
        }
    }

    /// Waits while a viewer holds the program back.
    async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            let mut changed = pin!(changed);
            changed.as_mut().enable();
            let hold = self.hub().hold(Instant::now());
            match hold {
                Hold::No => return,
                Hold::UntilRead => changed.await,
                Hold::Until(moment) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(moment) => {}
                },
            }
        }
    }

    /// Gives the program what its viewers type, in the order in which it came.
    async fn write(&self, mut terminal: Terminal) {
        loop {
            let changed = self.changed.notified();
            let mut changed = pin!(changed);
            changed.as_mut().enable();
            let next = self.hub().take_input();
            let Some((viewer, mut bytes)) = next else {
                changed.await;
                continue;
            };
            if let Some(recording) = &self.recording
                && let Err(error) = recording.input(&bytes).await
            {
                return self.unrecorded(&error);
            }
            while !bytes.is_empty() {
                let Ok(count) = terminal.write(&bytes).await else { return };
                drop(bytes.split_to(count));
                self.hub().taken(viewer, count);
                self.changed.notify_waiters();
            }
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match status.signal() {
        Some(number) => Exit { status: None, signal: Some(signal_name(number)) },
        None => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Exit { status: code, signal: None }
        }
    }
}

/// As RFC 4254, section 6.10, names it.
fn signal_name(number: i32) -> String {
    let name = match Signal::from_named_raw(number) {
        Some(Signal::ABORT) => "ABRT",
        Some(Signal::ALARM) => "ALRM",
        Some(Signal::FPE) => "FPE",
        Some(Signal::HUP) => "HUP",
        Some(Signal::ILL) => "ILL",
        Some(Signal::INT) => "INT",
        Some(Signal::KILL) => "KILL",
        Some(Signal::PIPE) => "PIPE",
        Some(Signal::QUIT) => "QUIT",
        Some(Signal::SEGV) => "SEGV",
        Some(Signal::TERM) => "TERM",
        Some(Signal::USR1) => "USR1",
        Some(Signal::USR2) => "USR2",
        _ => return number.to_string(),
    };
    name.into()
}
