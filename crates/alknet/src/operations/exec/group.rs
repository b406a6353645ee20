//! A command and its process group.

use std::{
    io,
    process::{ExitStatus, Stdio},
};

use alknet_host::hand_over;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    signal::unix::{Signal, SignalKind, signal},
};

/// A running command that leads a process group. When it is dropped before it is finished,
/// everything in the group is killed.
///
/// The leader is not reaped before that, even after its exit, so that the group's number
/// cannot become another's.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    id: Pid,
    exits: Signal,
    finished: bool,
}

/// This end of a command's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Group {
    /// Starts a command that makes itself the leader of a group.
    pub(super) fn start(mut command: Command) -> io::Result<(Self, Pipes)> {
        // Before the command can exit.
        let exits = signal(SignalKind::child())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hand_over(&mut command)?;
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.ok_or(io::ErrorKind::NotFound)?;
        Ok((Self { child, id, exits, finished: false }, Pipes { stdin, stdout, stderr }))
    }

    /// Waits until the leader has exited. Cancel safe.
    pub(super) async fn exited(&mut self) -> io::Result<()> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(self.id), options)?.is_none() {
            self.exits.recv().await;
        }
        Ok(())
    }

    /// How the leader ended. What it has left in the background without a way to be heard is
    /// left alone, as a shell would.
    pub(super) async fn finish(mut self) -> io::Result<ExitStatus> {
        self.exited().await?;
        self.finished = true;
        self.child.wait().await
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = kill_process_group(self.id, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "a process group could not be killed");
        }
    }
}
