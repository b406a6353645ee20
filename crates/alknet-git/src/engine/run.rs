//! One process of git and the stream that it serves.

use std::{
    future::pending,
    io,
    path::PathBuf,
    pin::pin,
    process::ExitStatus,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use alknet_host::{Pipes, PrivateSocket, Process};
use rustix::process::Resource;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, sink},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Bounds, EngineError, Exchange, Traffic,
    complaint::{Answer, Complaint},
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
    pub(super) course: Arc<hook::Course>,
    /// What git says of the push.
    pub(super) complaint: Arc<Complaint>,
    /// What whoever pushes too large a pack is told.
    pub(super) remark: String,
}

/// The client of an exchange. A push whose refs may have changed goes on without it: it is not
/// for the client to say whether what its owner has do afterwards is done.
struct Client {
    course: Arc<hook::Course>,
    /// It is gone, or as good as gone, and not needed.
    left: CancellationToken,
}

impl Client {
    fn of(hooks: Option<&Hooks>) -> Self {
        let course = hooks.map(|hooks| hooks.course.clone()).unwrap_or_default();
        Self { course, left: CancellationToken::new() }
    }

    /// Lets it go; whether the exchange has to end with it.
    fn is_missed(&self) -> bool {
        let decided = self.course.decided.load(Ordering::Relaxed);
        if decided {
            self.left.cancel();
        }
        !decided
    }

    /// Ends when nobody waits for an exchange that has to end then.
    async fn gives_up(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        if !self.is_missed() {
            pending::<()>().await;
        }
    }

    /// Ends when nothing is carried for too long, and it is not the client alone that takes
    /// nothing.
    async fn is_idle(&self, traffic: &Traffic, limit: Duration) {
        loop {
            idle(traffic, limit).await;
            if self.left.is_cancelled() || self.is_missed() {
                return;
            }
        }
    }
}

/// Runs git for an exchange, and gives the beginning of what it complains of. Each of its files
/// may have `file` bytes.
pub(super) async fn run(
    command: Command,
    exchange: Exchange,
    file: u64,
    hooks: Option<Hooks>,
) -> Result<String, EngineError> {
    let Exchange { input, output, bounds, traffic, stop, ending, repository, .. } = exchange;
    let (mut process, pipes) = Process::with_pipes(command).map_err(EngineError::Run)?;
    let Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) } = pipes else {
        return Err(EngineError::Run(io::ErrorKind::BrokenPipe.into()));
    };
    // It reads nothing of the client's before this.
    bound(&process, &bounds, file).map_err(EngineError::Run)?;
    widen(&stdin);
    widen(&stdout);
    let client = Client::of(hooks.as_ref());
    let (complaint, remark) = match &hooks {
        Some(hooks) => (hooks.complaint.clone(), Some(hooks.remark.clone())),
        None => Default::default(),
    };
    let stdout = Answer::new(stdout, complaint, remark);
    let talk = Talk { input, output, stdin, stdout, stderr, traffic: traffic.clone() };
    let ended = tokio::select! {
        ended = talk.run(&mut process, &client) => ended,
        () = ending.cancelled() => Err(EngineError::Interrupted),
        () = client.gives_up(&stop) => Err(EngineError::Interrupted),
        () = client.is_idle(&traffic, bounds.idle) => Err(EngineError::Idle(bounds.idle)),
        () = sleep(bounds.total) => Err(EngineError::Late(bounds.total)),
        () = answer(hooks, repository) => Ok(String::new()),
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
        Some(Hooks { socket, gate, course, .. }) => {
            hook::serve(socket, &repository, gate, &course).await;
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
    stdout: Answer<ChildStdout>,
    stderr: ChildStderr,
    traffic: Arc<Traffic>,
}

impl<I: AsyncRead + Unpin, O: AsyncWrite + Unpin> Talk<I, O> {
    async fn run(self, process: &mut Process, client: &Client) -> Result<String, EngineError> {
        let Self { mut input, mut output, stdin, mut stdout, stderr, traffic } = self;
        let said = CancellationToken::new();
        let feed = feed(&mut input, stdin, &traffic, &said);
        let drain = async {
            let copied = answer_to(client, &mut stdout, &mut output, &traffic);
            let complaint = async { Ok(complaint(stderr).await) };
            let ((), complaint) = tokio::try_join!(copied, complaint)?;
            let status = exited(process).await.map_err(EngineError::Run)?;
            // A client that has what it wants may be gone by now.
            let _ = timeout(LINGER, output.shutdown()).await;
            if status.success() {
                return Ok(complaint);
            }
            // A stream that ends while its client sends may take along what it has to read.
            let _ = timeout(LINGER, said.cancelled()).await;
            Err(EngineError::Failed { status, complaint })
        };
        let mut drain = pin!(drain);
        tokio::select! {
            ended = &mut drain => ended,
            error = feed => match client.is_missed() {
                true => Err(EngineError::Gone(error)),
                false => drain.await,
            },
        }
    }
}

/// Carries what git says to the client, and to nobody once it has left: git waits for whoever
/// does not read.
async fn answer_to(
    client: &Client,
    stdout: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
    traffic: &Traffic,
) -> Result<(), EngineError> {
    let carried = |bytes| traffic.add_sent(bytes);
    let pumped = tokio::select! {
        pumped = pump(stdout, output, carried) => pumped,
        () = client.left.cancelled() => Err(Broken::To(io::ErrorKind::BrokenPipe.into())),
    };
    let pumped = match pumped {
        Err(Broken::To(error)) if client.is_missed() => return Err(EngineError::Gone(error)),
        Err(Broken::To(_)) => pump(stdout, &mut sink(), carried).await,
        pumped => pumped,
    };
    pumped.map_err(|broken| match broken {
        Broken::From(error) | Broken::To(error) => EngineError::Run(error),
    })
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

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, time::Instant};

    use super::*;
    use crate::{engine::Framing, push::testing::Agrees, request::Service};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_before_a_push_that_is_decided() {
        let (limit, begun) = (Duration::from_secs(60), Instant::now());
        let (client, traffic) = (Client::of(None), Traffic::default());
        client.is_idle(&traffic, limit).await;
        assert!(begun.elapsed() == limit && !client.left.is_cancelled());

        client.course.decided.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        // Nobody reads what git says from then on, which counts as carried.
        let goes_on = async {
            client.left.cancelled().await;
            assert_eq!(begun.elapsed(), limit);
            sleep(limit / 2).await;
            traffic.add_sent(1);
        };
        tokio::join!(client.is_idle(&traffic, limit), goes_on);
        assert_eq!(begun.elapsed(), 3 * limit);
    }

    /// A git that says more than anybody takes; how it ends, and whether that was its own end.
    async fn served(decided: bool, stopped: bool, ending: bool) -> (Result<(), EngineError>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut git = Command::new("sh");
        let script = "cat >/dev/null; head -c 4000000 /dev/zero && touch done";
        git.args(["-c", script]).current_dir(folder.path());
        let (output, _takes_nothing) = duplex(1);
        let (stop, ends) = (CancellationToken::new(), CancellationToken::new());
        for (token, _) in [(&stop, stopped), (&ends, ending)].into_iter().filter(|it| it.1) {
            token.cancel();
        }
        let exchange = Exchange {
            service: Service::ReceivePack,
            framing: Framing::Stateful,
            version: 0,
            repository: folder.path().into(),
            input: Box::new(tokio::io::empty()),
            output: Box::new(output),
            gate: None,
            bounds: Bounds { idle: Duration::from_secs(1), ..Bounds::default() },
            traffic: Arc::default(),
            stop,
            ending: ends,
        };
        let course = hook::Course { decided: decided.into(), ..hook::Course::default() };
        let (socket, gate) = (PrivateSocket::own().unwrap(), Arc::new(Agrees::default()));
        let hooks = Hooks {
            socket,
            gate,
            course: Arc::new(course),
            complaint: Arc::default(),
            remark: String::new(),
        };
        let ended = run(git, exchange, u64::MAX, Some(hooks)).await.map(drop);
        (ended, folder.path().join("done").exists())
    }

    #[tokio::test]
    async fn only_the_end_of_the_node_interrupts_a_push_that_is_decided() {
        for stopped in [false, true] {
            let (ended, done) = served(true, stopped, false).await;
            assert!(ended.is_ok() && done, "{stopped} {ended:?}");
        }
        let (ended, done) = served(true, true, true).await;
        assert!(matches!(ended, Err(EngineError::Interrupted)) && !done, "{ended:?}");
    }

    #[tokio::test]
    async fn a_push_that_is_not_decided_ends_with_its_client() {
        let (ended, done) = served(false, false, false).await;
        assert!(matches!(ended, Err(EngineError::Idle(_))) && !done, "{ended:?}");
        let (ended, done) = served(false, true, false).await;
        assert!(matches!(ended, Err(EngineError::Interrupted)) && !done, "{ended:?}");
    }
}
