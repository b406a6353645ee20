//! One SSH transport over one stream, from its first byte to the end of its processes.

use std::{convert::Infallible, future::pending, io, sync::Arc, time::Duration};

use alknet_core::{AuthContext, SendStream, Stream};
use russh::{Disconnect, server};
use tokio::{sync::OnceCell, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Authentication, Refusal},
    chunks::Chunks,
    client::Client,
    forward::Forwards,
    greeting::Greeted,
    handler::Settings,
    queue::{self, Backlog},
    tasks::Tasks,
};

/// The most that waits to be written: see [`queue`].
const QUEUE: usize = 64 * 1024 * 1024;
/// How long the peer has to take what is left once the transport is shut down, and to close
/// its own end.
const LINGER: Duration = Duration::from_secs(10);
/// How long the client gets to hear that its login is over.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a client gets, once its last process has ended, to leave by itself: a farewell
/// that comes with the exit status would make it report a lost connection instead.
const PARTING: Duration = Duration::from_secs(1);

/// Serves one transport. Its processes have ended when this returns; when it is dropped,
/// they are killed.
pub(crate) async fn serve(settings: Arc<Settings>, stream: Stream, auth: AuthContext) {
    let (send, recv) = stream.split();
    let (stream, drain, backlog) = queue::queued(Chunks::new(recv), send, QUEUE);
    let link = Link {
        settings: settings.clone(),
        auth: auth.clone(),
        forwards: Forwards::new(settings.limits.forwards),
        agent: Arc::default(),
        backlog,
        authentication: Arc::new(Authentication::new(settings, auth)),
        over: CancellationToken::new(),
        gone: CancellationToken::new(),
        tasks: Tasks::default(),
    };
    let _kill = link.tasks.abort_on_drop();
    let client = Client::new(link.clone());
    let session = session(&link, Greeted::new(stream), client);
    let (ended, written) = tokio::select! {
        both = async { tokio::join!(session, drain.run()) } => both,
        never = deadlines(&link) => match never {},
    };
    if let Err(error) = written {
        tracing::debug!(%error, "the stream of an SSH transport failed");
    }
    if let Err(error) = ended {
        tracing::debug!(%error, "the SSH transport ended");
    }
    link.authentication.ended();
    link.gone.cancel();
    link.tasks.ended().await;
}

/// What the parts of a transport share.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) settings: Arc<Settings>,
    pub(crate) auth: AuthContext,
    pub(crate) forwards: Forwards,
    /// The socket of the client's agent, once that is forwarded.
    pub(crate) agent: Arc<OnceCell<String>>,
    pub(crate) backlog: Backlog,
    pub(crate) authentication: Arc<Authentication>,
    /// Cancelled when the login does not hold any more: the client has to leave.
    pub(crate) over: CancellationToken,
    /// Cancelled when the transport is over: its processes have to end.
    pub(crate) gone: CancellationToken,
    pub(crate) tasks: Tasks,
}

impl Link {
    /// Where the client comes from, in the variables that shells look for.
    pub(crate) fn origin(&self) -> Vec<(&'static str, String)> {
        let client = match self.auth.remote_addr {
            Some(peer) => format!("{} {}", peer.ip().to_canonical(), peer.port()),
            None => "UNKNOWN 65535".into(),
        };
        // As OpenSSH writes it when it does not know an address.
        let connection = format!("{client} UNKNOWN 65535");
        vec![("SSH_CLIENT", format!("{client} 65535")), ("SSH_CONNECTION", connection)]
    }
}

async fn session(
    link: &Link,
    stream: Greeted<queue::QueuedWriter<Chunks, SendStream>>,
    client: Client,
) -> Result<(), russh::Error> {
    let session = server::run_stream(link.settings.russh.clone(), stream, client).await?;
    let handle = session.handle();
    tokio::select! {
        ended = session => ended,
        never = farewell(link, handle.clone()) => match never {},
        never = dismissal(link, handle) => match never {},
    }
}

/// Says goodbye once the node is shutting down and the last process has ended.
async fn farewell(link: &Link, handle: server::Handle) -> Infallible {
    link.settings.draining.cancelled().await;
    link.tasks.idle().await;
    sleep(PARTING).await;
    let reason = String::from("the node is shutting down");
    let _ = handle.disconnect(Disconnect::ByApplication, reason, String::new()).await;
    pending().await
}

/// Sends the client away once its login is over.
async fn dismissal(link: &Link, handle: server::Handle) -> Infallible {
    link.over.cancelled().await;
    let reason = String::from("the login is over");
    let _ = handle.disconnect(Disconnect::ByApplication, reason, String::new()).await;
    pending().await
}

/// Ends a transport whose client does not log in or does not go away, or whose login is
/// over.
async fn deadlines(link: &Link) -> Infallible {
    let timeout = link.settings.limits.login_timeout;
    tokio::select! {
        () = link.authentication.done() => {}
        () = link.backlog.closing() => {}
        () = sleep(timeout) => {
            link.authentication.refused(None, &Refusal::TooLate(timeout.as_secs()));
            link.backlog.end(io::ErrorKind::TimedOut);
        }
    }
    tokio::select! {
        () = link.backlog.closing() => sleep(LINGER).await,
        () = link.authentication.over() => {
            link.over.cancel();
            link.gone.cancel();
            sleep(LAST_WORDS).await;
        }
    }
    link.backlog.end(io::ErrorKind::TimedOut);
    pending().await
}
