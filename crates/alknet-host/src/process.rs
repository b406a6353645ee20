//! A child process and its process group.

mod activity;

use std::{
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, prlimit, setpriority_pgrp,
    test_kill_process_group,
};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

pub use self::activity::Activity;
use crate::{leader, sys};

/// How often a group that was told to hang up is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A running child that leads a process group. When it is dropped before it has exited, its
/// group is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
}

/// The parent's ends of a child's pipes.
#[derive(Debug)]
pub struct Pipes {
    /// Where the child reads from.
    pub stdin: Option<ChildStdin>,
    /// What the child writes.
    pub stdout: Option<ChildStdout>,
    /// What the child complains of.
    pub stderr: Option<ChildStderr>,
}

impl Process {
    /// The number of the [descriptor](Self::with_descriptor) behind the standard streams.
    pub const PASSED: i32 = sys::PASSED;

    /// Starts a command with pipes.
    pub fn with_pipes(command: Command) -> io::Result<(Self, Pipes)> {
        Self::piped(command, None)
    }

    /// The same with one descriptor more, which the program finds open as number
    /// [`PASSED`](Self::PASSED). Not for programs of other accounts, which get none.
    pub fn with_descriptor(command: Command, descriptor: OwnedFd) -> io::Result<(Self, Pipes)> {
        Self::piped(command, Some(descriptor))
    }

    fn piped(mut command: Command, descriptor: Option<OwnedFd>) -> io::Result<(Self, Pipes)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Self::spawn(command, false, descriptor)?;
        let child = &mut process.child;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok((process, Pipes { stdin, stdout, stderr }))
    }

    /// Starts a command whose standard streams already are a terminal.
    pub fn on_terminal(command: Command) -> io::Result<Self> {
        Self::spawn(command, true, None)
    }

    fn spawn(
        mut command: Command,
        terminal: bool,
        descriptor: Option<OwnedFd>,
    ) -> io::Result<Self> {
        sys::isolate(&mut command, terminal);
        if let Some(descriptor) = descriptor {
            // After the others are marked to be closed, and before a leader's takes its place.
            sys::pass(&mut command, descriptor);
        }
        leader::hand_over(&mut command)?;
        let child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group: group.ok_or(io::ErrorKind::NotFound)? })
    }

    /// Waits for the leader of the group to exit. Cancel safe.
    pub async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Signals the group while its leader runs: later the number may be another's.
    pub fn signal(&self, signal: Signal) {
        if self.child.id().is_some()
            && let Err(error) = kill_process_group(self.group, signal)
        {
            tracing::debug!(%error, "a process group could not be signalled");
        }
    }

    /// Bounds what the leader may use of a resource, and with it what it starts from then on
    /// (setrlimit(2)). It keeps a bound that is lower.
    pub fn limit(&self, resource: Resource, most: u64) -> io::Result<()> {
        let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        if self.child.id().is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(Some(self.group), resource, limit)?;
        Ok(())
    }

    /// Lets everything else on the machine come before the group, as it is now and grows. Only
    /// a wish: where the system does not grant it, nothing happens.
    pub fn yield_to_others(&self) {
        const LAST: i32 = 19;
        if self.child.id().is_some()
            && let Err(error) = setpriority_pgrp(Some(self.group), LAST)
        {
            tracing::debug!(%error, "a process group keeps its priority");
        }
    }

    /// Tells the group to hang up and kills what is left of it after `grace`. When the
    /// leader has exited already, does nothing: the number may be another group's by now.
    pub async fn hang_up(mut self, grace: Duration) {
        if self.child.id().is_none() {
            return;
        }
        let deadline = Instant::now() + grace;
        self.signal(Signal::HUP);
        // A stopped process sees the hangup only when it is continued.
        self.signal(Signal::CONT);
        if timeout(grace, self.exited()).await.is_err() {
            self.signal(Signal::KILL);
            // What waits for a file system in the kernel may not end even then.
            let _ = timeout(grace, self.exited()).await;
            return;
        }
        // The members that are left keep the group's number theirs.
        while test_kill_process_group(self.group).is_ok() {
            if Instant::now() >= deadline {
                let _ = kill_process_group(self.group, Signal::KILL);
                return;
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::Account;

    #[tokio::test]
    async fn a_descriptor_is_there_for_the_program_and_no_other_is() {
        let (mut near, far) = tokio::net::UnixStream::pair().unwrap();
        let far = far.into_std().unwrap();
        far.set_nonblocking(false).unwrap();
        let script = "ls -x /proc/$$/fd; echo hello >&3";
        let command = Account::current().unwrap().shell(script.as_ref());
        let (mut process, pipes) = Process::with_descriptor(command, far.into()).unwrap();
        let mut said = String::new();
        pipes.stdout.unwrap().read_to_string(&mut said).await.unwrap();
        process.exited().await.unwrap();
        let open: Vec<_> = said.split_whitespace().filter(|it| it.len() == 1).collect();
        assert!(open.starts_with(&["0", "1", "2", "3"]) && !open.contains(&"4"), "{said}");
        // Nobody else has the other end open: there is an end.
        let mut heard = String::new();
        near.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello\n");
    }

    #[tokio::test]
    async fn a_limit_holds_for_a_process_and_what_it_starts_and_only_ever_lowers() {
        let script = "read go; ulimit -c; sh -c 'ulimit -H -d'";
        let command = Account::current().unwrap().shell(script.as_ref());
        let (mut process, mut pipes) = Process::with_pipes(command).unwrap();
        process.limit(Resource::Core, 0).unwrap();
        let hard = getrlimit(Resource::Data).maximum;
        process.limit(Resource::Data, 1 << 30).unwrap();
        pipes.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        let mut said = String::new();
        pipes.stdout.unwrap().read_to_string(&mut said).await.unwrap();
        process.exited().await.unwrap();
        let data = hard.unwrap_or(u64::MAX).min(1 << 30) >> 10;
        assert_eq!(said, format!("0\n{data}\n"));
        assert!(process.limit(Resource::Core, 0).is_err(), "it has ended");
    }
}
