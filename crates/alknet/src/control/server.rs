//! The node's end.

use std::{fs, io, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};

use super::{Answer, Outcome, Request, line};
use crate::{
    failure::Failure,
    home::{Home, HomeError, ServeLock, is_own},
};

/// Connections at once; more wait until one is done.
const CONNECTIONS: usize = 8;
/// How long a peer may take to ask, and to take its answer.
const PEER: Duration = Duration::from_secs(10);
/// How long an answer may take to be found.
const WORK: Duration = Duration::from_secs(60);

/// The socket of a node that serves; gone with the value.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    home: Home,
}

impl Listener {
    /// Makes the socket. That of a node that was killed is removed: the lock says that
    /// nobody else has the folder.
    pub(crate) fn bind(home: &Home, _lock: &ServeLock) -> Result<Self, HomeError> {
        let at = |source| HomeError::File { path: home.path(super::SOCKET), source };
        let socket = home.listen(super::SOCKET).map_err(at)?;
        Ok(Self { socket, home: home.clone() })
    }

    /// Answers requests; never ends. What is being answered ends with the future.
    pub(crate) async fn serve<F, A>(&self, answer: F)
    where
        F: Fn(Request) -> A + Clone + Send + 'static,
        A: Future<Output = Outcome> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, answer.clone()));
                }
                Err(error) => {
                    // Out of descriptors, say: others may be freed.
                    tracing::warn!(%error, "accepting on the control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // What is left behind is removed by the next node.
        let _ = fs::remove_file(self.home.path(super::SOCKET));
    }
}

/// One connection. Its peer going away is its own affair.
async fn converse<A: Future<Output = Outcome>>(
    mut stream: UnixStream,
    answer: impl Fn(Request) -> A,
) {
    if let Err(error) = exchange(&mut stream, answer).await {
        tracing::debug!(%error, "a connection to the control socket");
    }
}

async fn exchange<A: Future<Output = Outcome>>(
    stream: &mut UnixStream,
    answer: impl Fn(Request) -> A,
) -> io::Result<()> {
    if !is_own(stream)? {
        let uid = stream.peer_cred()?.uid();
        tracing::warn!(uid, "refused another user at the control socket");
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let asked = timeout(PEER, line(&mut *stream, super::MAX_REQUEST)).await??;
    let outcome = match serde_json::from_str(&asked) {
        Ok(request) => match timeout(WORK, answer(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new("the node did not find an answer in time")),
        },
        Err(error) => Err(Failure::from(error).context("the node does not know this request")),
    };
    let mut text = serde_json::to_vec(&Answer::from(outcome))?;
    text.push(b'\n');
    timeout(PEER, stream.write_all(&text)).await??;
    stream.shutdown().await
}
