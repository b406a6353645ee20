//! The agent: a process that holds the key of an unlocked vault for a time, as ssh-agent
//! does, and gives it to processes of the same user.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use alknet_vault::{Expiring, SealingKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};
use zeroize::Zeroizing;

use crate::home::{Home, is_own};

/// Where it listens, in the state folder.
const SOCKET: &str = "run/vault.sock";
/// How long the agent waits for a question, and for its answer to be taken.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long who asks waits: others who keep the agent busy come to their deadline first.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many are served at once; the others wait.
const MAX_ASKING: usize = 16;
/// What it says on its output once it listens.
const READY: &[u8] = b"ready\n";

/// A question is one byte; the answer ends with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// The key: 32 bytes, or none.
    Key,
    /// How long it is unlocked: seconds (8 bytes, big-endian), or none.
    Remaining,
    /// To forget the key and end: one byte when that is done.
    Lock,
}

impl Question {
    fn byte(self) -> u8 {
        match self {
            Self::Key => b'k',
            Self::Remaining => b'r',
            Self::Lock => b'l',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Key, Self::Remaining, Self::Lock].into_iter().find(|it| it.byte() == byte)
    }
}

/// The key that the agent holds, if there is an agent.
pub(crate) async fn key(home: &Home) -> io::Result<Option<SealingKey>> {
    let mut answer = Zeroizing::new([0; 33]);
    let length = ask(home, Question::Key, &mut *answer).await?;
    Ok(length.and_then(|length| SealingKey::from_bytes(answer.get(..length)?)))
}

/// How long the vault stays unlocked; `None` if there is no agent.
pub(crate) async fn remaining(home: &Home) -> io::Result<Option<Duration>> {
    let mut answer = [0; 9];
    let length = ask(home, Question::Remaining, &mut answer).await?;
    let seconds = length.and_then(|length| <[u8; 8]>::try_from(answer.get(..length)?).ok());
    Ok(seconds.map(|seconds| Duration::from_secs(u64::from_be_bytes(seconds))))
}

/// Ends the agent; whether there was one. After an error it may still hold the key.
pub(crate) async fn lock(home: &Home) -> io::Result<bool> {
    let mut was = false;
    // One that ends just then hangs up, and is gone the next time.
    for _ in 0..2 {
        match ask(home, Question::Lock, &mut [0; 2]).await? {
            None => return Ok(was),
            Some(1) => return Ok(true),
            Some(_) => was = true,
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it does not do as it is told"))
}

/// Fills `answer` as far as the agent's goes; `None` if there is no agent.
async fn ask(home: &Home, question: Question, answer: &mut [u8]) -> io::Result<Option<usize>> {
    let asked = async {
        let Some(mut stream) = home.connect(SOCKET).await? else { return Ok(None) };
        if !is_own(&stream)? {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's"));
        }
        match converse(&mut stream, question, answer).await {
            Err(error) if is_hangup(&error) => Ok(Some(0)),
            length => length.map(Some),
        }
    };
    timeout(PATIENCE, asked).await?
}

async fn converse(
    stream: &mut UnixStream,
    question: Question,
    answer: &mut [u8],
) -> io::Result<usize> {
    stream.write_all(&[question.byte()]).await?;
    let mut length = 0;
    while let Some(rest) = answer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Starts an agent that holds `key` for `lifetime`, in the place of one that is there.
/// It is ready when this returns.
pub(crate) async fn start(home: &Home, key: &SealingKey, lifetime: Duration) -> io::Result<()> {
    let _lock = home.lock("vault-agent").map_err(io::Error::other)?;
    lock(home).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--home").arg(home.root()).args(["vault", "agent"]);
    command.arg(lifetime.as_secs().max(1).to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // It outlives this process on purpose, unless it does not get ready.
    let mut child = command.spawn()?;
    if timeout(DEADLINE, hand_over(&mut child, key)).await.is_ok_and(|done| done.is_ok()) {
        return Ok(());
    }
    child.kill().await?;
    Err(io::Error::other("it did not start"))
}

async fn hand_over(child: &mut Child, key: &SealingKey) -> io::Result<()> {
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    stdin.write_all(key.expose()).await?;
    let mut ready = [0; READY.len()];
    stdout.read_exact(&mut ready).await?;
    if ready == READY { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The agent itself: reads the key from stdin, and ends when its time has passed or it is
/// told to.
pub(crate) async fn run(home: &Home, lifetime: Duration) -> io::Result<()> {
    close_inherited()?;
    alone()?;
    let mut bytes = Zeroizing::new([0; 32]);
    // Past the buffer of `Stdin`, where it would stay.
    File::from(io::stdin().as_fd().try_clone_to_owned()?).read_exact(&mut *bytes)?;
    let key = SealingKey::from_bytes(&*bytes).ok_or(io::ErrorKind::InvalidData)?;
    drop(bytes);
    let key = Arc::new(Expiring::new(key, lifetime)?);
    let socket = Arc::new(Socket::bind(home)?);
    io::stdout().lock().write_all(READY)?;
    io::stdout().lock().flush()?;
    let ended = key.clone();
    let end = tokio::task::spawn_blocking(move || ended.wait());
    let mut asking = JoinSet::new();
    tokio::select! {
        () = serve(&socket, &key, &mut asking) => {}
        _ = end => {}
    }
    socket.remove();
    // Who has asked still gets an answer; each has a deadline.
    while asking.join_next().await.is_some() {}
    Ok(())
}

/// Closes what else the caller had open: a lock or a pipe of its would be held for days.
/// Whatever this process has opened itself closes on exec, and nothing that came through an
/// exec does.
fn close_inherited() -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?.collect::<io::Result<Vec<_>>>()?;
    let open = open.iter().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    for number in open.filter(|number| *number > nix::libc::STDERR_FILENO) {
        // What was only open for the listing is gone by now.
        let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| nix::libc::c_int::from_str_radix(flags.trim(), 8).ok());
        if flags.is_some_and(|flags| flags & nix::libc::O_CLOEXEC == 0) {
            nix::unistd::close(number)?;
        }
    }
    Ok(())
}

/// Cut off from the terminal and the folder it was started in; no debugger of the same user
/// reads its memory, and no core is written.
fn alone() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    // A leader of a process group keeps its session, and has no terminal of this one's.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")
}

/// The socket and the name under which it is found.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Takes the place of an agent that is gone.
    fn bind(home: &Home) -> io::Result<Self> {
        let listener = home.listen(SOCKET)?;
        let path = home.path(SOCKET);
        let inode = fs::metadata(&path)?.ino();
        Ok(Self { listener, path, inode })
    }

    /// Removes the name, unless it already is the next agent's.
    fn remove(&self) {
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Nobody listens any more, whether the name is there or not.
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn serve(socket: &Arc<Socket>, key: &Arc<Expiring<SealingKey>>, asking: &mut JoinSet<()>) {
    loop {
        while asking.len() >= MAX_ASKING {
            asking.join_next().await;
        }
        match socket.listener.accept().await {
            Ok((stream, _)) if is_own(&stream).unwrap_or(false) => {
                let (key, socket) = (key.clone(), socket.clone());
                asking.spawn(async move {
                    // Who does not read the answer has asked in vain.
                    let _ = timeout(DEADLINE, answer(stream, &key, &socket)).await;
                });
            }
            Ok(_) => {}
            // Too many open files: those who ask now are soon done.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        while asking.try_join_next().is_some() {}
    }
}

async fn answer(
    mut stream: UnixStream,
    key: &Expiring<SealingKey>,
    socket: &Socket,
) -> io::Result<()> {
    match Question::of(stream.read_u8().await?) {
        Some(Question::Key) => {
            let copy = key.with(|key| Zeroizing::new(*key.expose()));
            if let Ok(copy) = copy {
                stream.write_all(&*copy).await?;
            }
        }
        Some(Question::Remaining) => {
            if let Some(left) = key.remaining() {
                stream.write_all(&left.as_secs().to_be_bytes()).await?;
            }
        }
        Some(Question::Lock) => {
            // Whoever has the answer finds neither the key nor the agent any more.
            socket.remove();
            key.lock();
            stream.write_all(&[1]).await?;
        }
        None => {}
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests;
