//! Copies of repositories of other nodes.
//!
//! This process connects, with the identity of the node that it is, and opens the exchange. Git
//! gets a stream that is open already, one end of a pair of sockets, by its own remote helper
//! `fd`: neither an argument, a variable nor a file tells it who the node is, and nothing of the
//! network is left to it.

use std::{fmt, io, os::unix::net::UnixStream as Pair, path::Path, pin::pin, time::Duration};

use alknet_core::{BoxFuture, Code, Connection, RecvStream, Stream};
use alknet_host::Process;
use gix_packetline::{PacketLineRef, decode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::UnixStream,
    time::{Instant, timeout},
};

use super::{
    MirrorError, MirrorPolicy, MirrorUrl,
    fetch::{everything, is_followed},
};
use crate::{
    engine::InstalledGit,
    name::RepositoryName,
    repositories::{Allowance, RunError, run_with},
    request::{Request, Service},
};

/// How long it may take to reach a node.
const REACH: Duration = Duration::from_secs(60);
/// How long a node may take to begin an exchange, and to answer a question about its refs.
const ANSWER: Duration = Duration::from_secs(60);
/// How long the end of an exchange, and that of its connection, may take to arrive.
const PARTING: Duration = Duration::from_secs(1);
/// How much is read from a node at once, in bytes.
const BUFFER: usize = 64 << 10;
/// The most lines of what a node can do and of its refs that are looked at.
const MAX_LINES: usize = 100;
/// Which refs there are, of version 2 of the protocol: `HEAD` alone, and what it points to.
const ASK_HEAD: &[u8] = b"0014command=ls-refs\n0001000csymrefs\n0014ref-prefix HEAD\n0000";
/// The same of all branches and tags.
const ASK_ANY: &[u8] =
    b"0014command=ls-refs\n0001001bref-prefix refs/heads/\n001aref-prefix refs/tags/\n0000";
/// The end of what is asked.
const FLUSH: &[u8] = b"0000";

/// Reaches other nodes, as the node that this is.
pub trait Nodes: fmt::Debug + Send + Sync + 'static {
    /// Connects for `alknet/git` to the node that is called this: `HOST[:PORT]`, or a saved
    /// name. It has to be who it is known as, and no address is dialled that the policy does not
    /// [allow](MirrorPolicy::allows).
    fn connect<'a>(
        &'a self,
        node: &'a str,
        policy: &'a MirrorPolicy,
    ) -> BoxFuture<'a, Result<Connection, MirrorError>>;
}

/// A repository of another node, and the way there.
pub(super) struct Remote<'a> {
    nodes: &'a dyn Nodes,
    policy: &'a MirrorPolicy,
    node: String,
    repository: RepositoryName,
}

impl<'a> Remote<'a> {
    /// What an address leads to, if it is one of a node.
    pub(super) fn of(
        url: &MirrorUrl,
        policy: &'a MirrorPolicy,
        nodes: Option<&'a dyn Nodes>,
    ) -> Result<Option<Self>, MirrorError> {
        let Some((node, repository)) = url.of_node() else { return Ok(None) };
        let nodes = nodes.ok_or(MirrorError::NoNodes)?;
        Ok(Some(Self { nodes, policy, node, repository }))
    }

    /// Lets git fetch all branches and tags.
    pub(super) async fn update(
        &self,
        git: &InstalledGit,
        path: &Path,
        allowance: Allowance,
        known: Option<&str>,
    ) -> Result<(), MirrorError> {
        let begun = Instant::now();
        let connection = self.connect().await?;
        let opened = in_time(ANSWER, self.open(&connection)).await;
        let stream = opened.map_err(|source| self.lost(source))?;
        let (near, far) = pair().map_err(|source| self.lost(source))?;
        let mut command = git.command(path);
        command.env("GIT_ALLOW_PROTOCOL", "fd");
        everything(&mut command, &format!("fd::{}", Process::PASSED), known);
        let time = allowance.time.saturating_sub(begun.elapsed());
        let mut ran = pin!(run_with(command, far.into(), Allowance { time, ..allowance }));
        let mut carried = pin!(carry(stream, near));
        let (ran, lost) = tokio::select! {
            ran = &mut ran => {
                // What git has said at last is on its way.
                let _ = timeout(PARTING, carried).await;
                (ran, None)
            }
            carried = &mut carried => (ran.await, carried.err()),
        };
        leave(&connection).await;
        match (ran, lost) {
            (Ok(_), _) => Ok(()),
            // Git only says that it was cut off.
            (Err(_), Some(source)) => Err(self.lost(source)),
            (Err(RunError::Late(_)), None) => Err(RunError::Late(allowance.time).into()),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// The branch that `HEAD` points to there.
    pub(super) async fn head(&self) -> Result<Option<String>, MirrorError> {
        self.ask(ASK_HEAD, head_of).await
    }

    /// Some branch or tag that is there, if there is any.
    pub(super) async fn any(&self) -> Result<Option<String>, MirrorError> {
        self.ask(ASK_ANY, followed).await
    }

    /// What is found first in a list of refs.
    async fn ask(
        &self,
        question: &[u8],
        find: fn(&[u8]) -> Option<String>,
    ) -> Result<Option<String>, MirrorError> {
        // Not every transport has a second stream.
        let connection = self.connect().await?;
        let asked = async { ask(self.open(&connection).await?, question, find).await };
        let answered = in_time(ANSWER, asked).await;
        leave(&connection).await;
        answered.map_err(|source| self.lost(source))
    }

    async fn connect(&self) -> Result<Connection, MirrorError> {
        let connecting = timeout(REACH, self.nodes.connect(&self.node, self.policy)).await;
        connecting.unwrap_or_else(|_| Err(self.lost(io::ErrorKind::TimedOut.into())))
    }

    /// Opens the exchange of a fetch.
    async fn open(&self, connection: &Connection) -> io::Result<Stream> {
        let request = Request::new(Service::UploadPack, self.repository.clone());
        let mut stream = connection.open_bi().await.map_err(io::Error::other)?;
        stream.write_all(&request.to_line(&self.node)).await?;
        stream.flush().await?;
        Ok(stream)
    }

    fn lost(&self, source: io::Error) -> MirrorError {
        MirrorError::Node { node: self.node.clone(), source: source.into() }
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// This process's end and that of git, which expects one that blocks.
fn pair() -> io::Result<(UnixStream, Pair)> {
    let (near, far) = Pair::pair()?;
    near.set_nonblocking(true)?;
    Ok((UnixStream::from_std(near)?, far))
}

/// Carries between a node and git until the node has said all. An error is the node's: where
/// git is gone, it has said why.
async fn carry(stream: Stream, git: UnixStream) -> io::Result<()> {
    let (mut send, mut recv) = stream.split();
    let (mut from_git, mut to_git) = git.into_split();
    let up = async {
        if copy(&mut from_git, &mut send).await.is_ok() {
            let _ = send.shutdown().await;
        }
    };
    let down = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = recv.read(&mut buffer).await?;
            let piece = buffer.get(..count).unwrap_or_default();
            if piece.is_empty() || to_git.write_all(piece).await.is_err() {
                let _ = to_git.shutdown().await;
                return Ok(());
            }
        }
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        done = &mut down => done,
        () = &mut up => down.await,
    }
}

async fn ask(
    stream: Stream,
    question: &[u8],
    find: fn(&[u8]) -> Option<String>,
) -> io::Result<Option<String>> {
    let (mut send, mut recv) = stream.split();
    send.write_all(question).await?;
    send.write_all(FLUSH).await?;
    send.shutdown().await?;
    // What the node can do, and what was asked for.
    let mut lists = 2;
    for _ in 0..MAX_LINES {
        match packet(&mut recv).await? {
            Some(line) if lists == 1 => match find(&line) {
                None => {}
                found => return Ok(found),
            },
            Some(_) => {}
            None if lists == 1 => break,
            None => lists -= 1,
        }
    }
    Ok(None)
}

/// The branch or tag in a line such as `ID refs/heads/main`.
fn followed(line: &[u8]) -> Option<String> {
    let name = str::from_utf8(line).ok()?.trim_end().split(' ').nth(1)?;
    is_followed(name).then(|| name.to_owned())
}

/// The branch in a line such as `ID HEAD symref-target:refs/heads/main`.
fn head_of(line: &[u8]) -> Option<String> {
    let mut words = str::from_utf8(line).ok()?.trim_end().split(' ').skip(1);
    (words.next()? == "HEAD").then_some(())?;
    let target = words.find_map(|word| word.strip_prefix("symref-target:refs/heads/"))?;
    Some(target.to_owned())
}

/// The next packet line; `None` where it ends a list. Not cancel safe.
async fn packet(recv: &mut RecvStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    recv.read_exact(&mut length).await?;
    match decode::hex_prefix(&length) {
        Ok(decode::PacketLineOrWantedSize::Wanted(length)) => {
            let mut line = vec![0; length.into()];
            recv.read_exact(&mut line).await?;
            Ok(Some(line))
        }
        Ok(decode::PacketLineOrWantedSize::Line(PacketLineRef::Flush)) => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Says that it was all; the process may end now.
async fn leave(connection: &Connection) {
    connection.close(Code::NORMAL, "");
    let _ = timeout(PARTING, connection.drained()).await;
}

#[cfg(test)]
mod tests;
