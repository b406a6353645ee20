//! One process of git and the stream that it serves.

use std::{
    future::pending,
    io,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use alknet_host::{Pipes, PrivateSocket, Process};
use rustix::process::Resource;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Bounds, EngineError, Exchange, Traffic,
    pump::{Broken, discard, pump, widen},
};
use crate::{hook, push::Gate};

/// How much of git's complaints is kept, in bytes.
const COMPLAINT: u64 = 4096;
/// How long git may take to end once it has said all, or when it is told to: it takes away then
/// what it had begun.
const GRACE: Duration = Duration::from_secs(5);
/// How long a client whose request git has refused may go on sending before it has read why.
const LINGER: Duration = Duration::from_secs(5);

/// Where the hooks of a push ask, and who answers.
pub(super) struct Hooks {
    pub(super) socket: PrivateSocket,
    pub(super) gate: Arc<dyn Gate>,
    /// Whether one has asked.
    pub(super) asked: Arc<AtomicBool>,
}

/// Runs git for an exchange. Each of its files may have `file` bytes.
pub(super) async fn run(
    command: Command,
    exchange: Exchange,
    file: u64,
    hooks: Option<Hooks>,
) -> Result<(), EngineError> {
    let Exchange { input, output, bounds, traffic, stop, repository, .. } = exchange;
    let (mut process, pipes) = Process::with_pipes(command).map_err(EngineError::Run)?;
    let Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) } = pipes else {
        return Err(EngineError::Run(io::ErrorKind::BrokenPipe.into()));
    };
    // It reads nothing of the client's before this.
    bound(&process, &bounds, file).map_err(EngineError::Run)?;
    widen(&stdin);
    widen(&stdout);
    let talk = Talk { input, output, stdin, stdout, stderr, traffic: traffic.clone() };
    let ended = tokio::select! {
        ended = talk.run(&mut process) => ended,
        () = stop.cancelled() => Err(EngineError::Interrupted),
        () = idle(&traffic, bounds.idle) => Err(EngineError::Idle(bounds.idle)),
        () = sleep(bounds.total) => Err(EngineError::Late(bounds.total)),
        () = answer(hooks, repository) => Ok(()),
    };
    if ended.is_err() {
        process.hang_up(GRACE).await;
    }
    ended
}

fn bound(process: &Process, bounds: &Bounds, file: u64) -> io::Result<()> {
    process.limit(Resource::Data, bounds.memory)?;
    process.limit(Resource::Cpu, bounds.processor.as_secs().max(1))?;
    process.limit(Resource::Fsize, file)?;
    process.limit(Resource::Core, 0)
}

/// Never ends.
async fn answer(hooks: Option<Hooks>, repository: PathBuf) {
    match hooks {
        Some(Hooks { socket, gate, asked }) => {
            hook::serve(socket, &repository, gate, &asked).await;
        }
        None => pending().await,
    }
}

/// Ends when nothing was carried for so long, or up to twice as long.
async fn idle(traffic: &Traffic, limit: Duration) {
    let carried = || traffic.received().wrapping_add(traffic.sent());
    let mut before = carried();
    loop {
        sleep(limit).await;
        let now = carried();
        if now == before {
            return;
        }
        before = now;
    }
}

/// A stream and the pipes of the process that serves it.
struct Talk<I, O> {
    input: I,
    output: O,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    traffic: Arc<Traffic>,
}

impl<I: AsyncRead + Unpin, O: AsyncWrite + Unpin> Talk<I, O> {
    async fn run(self, process: &mut Process) -> Result<(), EngineError> {
        let Self { mut input, mut output, stdin, mut stdout, stderr, traffic } = self;
        let said = CancellationToken::new();
        let feed = feed(&mut input, stdin, &traffic, &said);
        let drain = async {
            let copied = async {
                let pumped = pump(&mut stdout, &mut output, |bytes| traffic.add_sent(bytes)).await;
                pumped.map_err(|broken| match broken {
                    Broken::From(error) => EngineError::Run(error),
                    Broken::To(error) => EngineError::Gone(error),
                })
            };
            let complaint = async { Ok(complaint(stderr).await) };
            let ((), complaint) = tokio::try_join!(copied, complaint)?;
            let status = exited(process).await.map_err(EngineError::Run)?;
            // A client that has what it wants may be gone by now.
            let _ = timeout(LINGER, output.shutdown()).await;
            if status.success() {
                return Ok(());
            }
            // A stream that ends while its client sends may take along what it has to read.
            let _ = timeout(LINGER, said.cancelled()).await;
            Err(EngineError::Failed { status, complaint })
        };
        tokio::select! {
            ended = drain => ended,
            error = feed => Err(EngineError::Gone(error)),
        }
    }
}

/// Carries what the client sends to git, and ends only when the client is gone. `said` tells
/// that it has sent all.
async fn feed(
    input: &mut (impl AsyncRead + Unpin),
    mut stdin: ChildStdin,
    traffic: &Traffic,
    said: &CancellationToken,
) -> io::Error {
    let pumped = pump(input, &mut stdin, |bytes| traffic.add_received(bytes)).await;
    drop(stdin);
    let ended = match pumped {
        Ok(()) => Ok(()),
        Err(Broken::From(error)) => Err(error),
        // A git that has enough closes its end; what a client sends further is of no use.
        Err(Broken::To(_)) => discard(input).await,
    };
    match ended {
        Ok(()) => {
            said.cancel();
            pending().await
        }
        Err(error) => error,
    }
}

async fn exited(process: &mut Process) -> io::Result<ExitStatus> {
    timeout(GRACE, process.exited()).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The beginning of what git complains of; the rest is read and forgotten.
async fn complaint(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let _ = (&mut stderr).take(COMPLAINT).read_to_end(&mut text).await;
    let _ = discard(&mut stderr).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}
