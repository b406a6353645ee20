//! Running git for work that nobody waits for at the other end of a stream.

use std::{io, process::ExitStatus, time::Duration};

use alknet_host::{Pipes, Process};
use rustix::process::{Resource, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How much is kept of what git says or complains of, in bytes.
const SAID: u64 = 64 << 10;
/// How long a command that is told to end may take to put its files in order.
const GRACE: Duration = Duration::from_secs(5);

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
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    // A task of its own: it is still there when nobody waits any more.
    let done = TaskTracker::new().spawn(attend(command, allowance, stop)).await;
    done.map_err(|error| RunError::Start(io::Error::other(error)))?
}

async fn attend(
    command: Command,
    allowance: Allowance,
    stop: CancellationToken,
) -> Result<String, RunError> {
    let (mut process, pipes) = Process::with_pipes(command).map_err(RunError::Start)?;
    bound(&process, allowance.file).map_err(RunError::Start)?;
    process.yield_to_others();
    tokio::select! {
        done = finish(&mut process, pipes) => return done,
        () = sleep(allowance.time) => {}
        () = stop.cancelled() => {}
    }
    process.signal(Signal::TERM);
    // What does not end by then is killed as it is dropped.
    let _ = timeout(GRACE, process.exited()).await;
    Err(RunError::Late(allowance.time))
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
        let allowance = Allowance { time: Duration::from_secs(30), file: 1 << 20 };
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
}
