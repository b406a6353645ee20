//! Running git for work that nobody waits for at the other end of a stream.

use std::{future::pending, io, os::fd::OwnedFd, process::ExitStatus, time::Duration};

use alknet_host::{Activity, Pipes, Process};
use rustix::process::{Resource, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How much is kept of what git says or complains of, in bytes.
const SAID: u64 = 64 << 10;
/// How long a command that is told to end may take to put its files in order.
const GRACE: Duration = Duration::from_secs(5);
/// How many times it is looked, in the time that a command may do nothing, whether it does.
const LOOKS: u32 = 8;

/// Memory of each process, in bytes, without files that are mapped: more than a thread for
/// each of [`THREADS`] needs, whatever the objects are.
const MEMORY: u64 = 4 << 30;
/// How many threads look for deltas, each with memory of its own.
pub(crate) const THREADS: &str = "pack.threads=4";

/// What a command may use of the machine. Somebody else has made what it works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// How long it may take.
    pub(crate) time: Duration,
    /// The largest file that it may write, in bytes.
    pub(crate) file: u64,
    /// How long it may do nothing: wait for somebody else.
    pub(crate) idle: Option<Duration>,
}

/// A command of git was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It could not be started, or lost its pipes.
    #[error("git could not be run")]
    Start(#[source] io::Error),
    /// It took too long.
    #[error("git was not done in {}s", .0.as_secs())]
    Late(Duration),
    /// It waited too long for the other side.
    #[error("git has waited in vain for {}s", .0.as_secs())]
    Idle(Duration),
    /// It ended with a failure.
    #[error("git ended with {status}: {complaint}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The first lines that it wrote to standard error.
        complaint: String,
    },
}

/// Runs a command to its end, with all that it has started, behind everything else that the
/// machine has to do. Gives the beginning of its output. Dropped before that, or late, it is
/// told to end, so that it takes its locks away, and killed if it does not.
pub(crate) async fn run(command: Command, allowance: Allowance) -> Result<String, RunError> {
    started(command, None, allowance).await
}

/// The same for one that finds a [descriptor](Process::with_descriptor) more.
pub(crate) async fn run_with(
    command: Command,
    descriptor: OwnedFd,
    allowance: Allowance,
) -> Result<String, RunError> {
    started(command, Some(descriptor), allowance).await
}

async fn started(
    command: Command,
    descriptor: Option<OwnedFd>,
    allowance: Allowance,
) -> Result<String, RunError> {
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    // A task of its own: it is still there when nobody waits any more.
    let done = TaskTracker::new().spawn(attend(command, descriptor, allowance, stop)).await;
    done.map_err(|error| RunError::Start(io::Error::other(error)))?
}

async fn attend(
    command: Command,
    descriptor: Option<OwnedFd>,
    allowance: Allowance,
    stop: CancellationToken,
) -> Result<String, RunError> {
    let started = match descriptor {
        Some(descriptor) => Process::with_descriptor(command, descriptor),
        None => Process::with_pipes(command),
    };
    let (mut process, pipes) = started.map_err(RunError::Start)?;
    bound(&process, allowance.file).map_err(RunError::Start)?;
    process.yield_to_others();
    let activity = process.activity();
    let ended = tokio::select! {
        done = finish(&mut process, pipes) => return done,
        () = sleep(allowance.time) => RunError::Late(allowance.time),
        limit = idle(activity, allowance.idle) => RunError::Idle(limit),
        () = stop.cancelled() => RunError::Late(allowance.time),
    };
    process.signal(Signal::TERM);
    // What does not end by then is killed as it is dropped.
    let _ = timeout(GRACE, process.exited()).await;
    Err(ended)
}

/// Ends when processes have done nothing for so long, if there is such a limit.
async fn idle(activity: Activity, limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else { return pending().await };
    let (mut before, mut since) = (None, Instant::now());
    loop {
        sleep(limit / LOOKS).await;
        let now = match spawn_blocking(move || activity.read()).await {
            Ok(Ok(now)) => Some(now),
            // Where nobody can see it, the deadline alone holds.
            Ok(Err(_)) | Err(_) => return pending().await,
        };
        if now != before {
            (before, since) = (now, Instant::now());
        } else if since.elapsed() >= limit {
            return limit;
        }
    }
}

/// Time of processors is bounded by how long all may take.
fn bound(process: &Process, file: u64) -> io::Result<()> {
    let limit = |resource, most| match process.limit(resource, most) {
        // Some of these commands have ended by now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        bounded => bounded,
    };
    limit(Resource::Data, MEMORY)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, file)
}

async fn finish(process: &mut Process, pipes: Pipes) -> Result<String, RunError> {
    drop(pipes.stdin);
    let (Some(stdout), Some(stderr)) = (pipes.stdout, pipes.stderr) else {
        return Err(RunError::Start(io::ErrorKind::BrokenPipe.into()));
    };
    let (said, complaint) = tokio::join!(beginning(stdout), beginning(stderr));
    let status = process.exited().await.map_err(RunError::Start)?;
    match status.success() {
        true => Ok(said),
        false => Err(RunError::Failed { status, complaint: first(&complaint) }),
    }
}

/// The beginning of a text; the rest is read and forgotten.
async fn beginning(mut from: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let _ = (&mut from).take(SAID).read_to_end(&mut text).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The first lines, on one: after them git explains itself.
fn first(text: &str) -> String {
    const LINES: usize = 4;
    const LONGEST: usize = 1000;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let joined = lines.take(LINES).collect::<Vec<_>>().join("; ");
    joined.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that goes on when it has its bounds.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("until [ $(ulimit -H -f) = 2048 ]; do :; done; {script}")]);
        command
    }

    #[tokio::test]
    async fn a_command_has_bounds_and_so_has_what_it_starts() {
        let allowance = Allowance { time: Duration::from_secs(30), file: 1 << 20, idle: None };
        let said = run(shell("sh -c 'ulimit -H -d; ulimit -H -c'"), allowance).await;
        let said = said.unwrap();
        let [data, core] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        assert!(data.parse::<u64>().unwrap() <= MEMORY >> 10 && core == "0", "{said}");

        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        let script = format!("head -c 2000000 /dev/zero > '{}'", large.display());
        assert!(run(shell(&script), allowance).await.is_err());
        assert_eq!(large.metadata().unwrap().len(), 1 << 20);
    }

    #[tokio::test]
    async fn a_command_that_only_waits_is_ended() {
        let idle = Duration::from_millis(400);
        let allowance =
            Allowance { time: Duration::from_secs(600), file: 1 << 20, idle: Some(idle) };
        // It is another process that waits.
        let waited = run(shell("sleep 600; :"), allowance).await;
        assert!(matches!(waited, Err(RunError::Idle(limit)) if limit == idle), "{waited:?}");
    }
}
