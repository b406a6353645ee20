//! Services beside programs: what a session channel may carry instead of a process.

use std::{fmt, sync::Arc};

use alknet_core::{AuthContext, BoxFuture, Identity, Stream};
use alknet_host::Account;
use russh::{ChannelId, server::Handle};
use tokio::{io::AsyncWrite, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{channel::Finished, run::UNKNOWN};

/// What a client asks for on a session channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// A shell.
    Shell,
    /// A subsystem, by its name (RFC 4254, section 6.5).
    Subsystem(&'a str),
    /// A command.
    Command(&'a [u8]),
}

/// Who asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Who has logged in.
    pub identity: &'a Identity,
    /// The login name.
    pub login_name: &'a str,
    /// The account of that name; `None` where the name is a service's and no account of
    /// theirs, or where they have no account at all.
    pub account: Option<&'a Account>,
}

/// A service that answers a subsystem or a command in place of a process: SFTP, git.
///
/// The crate of its protocol does not know SSH; whoever assembles a node joins the two.
pub trait ChannelService: fmt::Debug + Send + Sync + 'static {
    /// The service as grants name it. Who has a grant within it may log in, without any for
    /// `ssh` itself.
    fn name(&self) -> &'static str;

    /// A login name that everybody may use for this service, whatever accounts they have.
    /// Who has no account of that name is offered this service there, and neither programs
    /// nor a terminal nor another service.
    fn login_name(&self) -> Option<&'static str> {
        None
    }

    /// Whether all that this service has for an identity needs no account. Who has none at all
    /// may log in for that, under any name but another service's, and is offered such
    /// services there: neither programs, a terminal, forwarding nor another service.
    fn needs_no_account(&self, _identity: &Identity) -> bool {
        false
    }

    /// Variables that clients may set for this service. Programs do not get them.
    fn variables(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether it answers this request. The first service that does gets the channel; where
    /// none does, a command runs as a process, and a subsystem is refused.
    fn takes(&self, request: Request<'_>, asker: Asker<'_>) -> bool;

    /// Serves the channel to its end and gives the exit status, which the client gets after
    /// all that was written. Dropped when the channel, its transport or the login ends.
    fn serve(&self, channel: ServiceChannel) -> BoxFuture<'static, u32>;
}

/// A channel that a service has taken.
#[non_exhaustive]
pub struct ServiceChannel {
    /// The bytes: reading ends with the client's EOF, shutting down sends ours. A service
    /// that is about to end leaves that to its end: some clients close a channel on EOF, and
    /// then its exit status cannot be told.
    pub stream: Stream,
    /// What the client shows as an error. It need not be shut down.
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
    /// The command, if it was one.
    pub command: Option<Vec<u8>>,
    /// Those of the service's [`variables`](ChannelService::variables) that the client has
    /// set: printable ASCII of up to 256 bytes.
    pub variables: Vec<(String, String)>,
    /// Who has logged in.
    pub caller: Arc<Identity>,
    /// Under which name.
    pub login_name: String,
    /// As which account; `None` where the name is a service's and no account of theirs, or
    /// where they have no account at all.
    pub account: Option<Account>,
    /// Where they come from, with what they proved before SSH.
    pub auth: AuthContext,
}

impl fmt::Debug for ServiceChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceChannel")
            .field("stream", &self.stream)
            .field("caller", &self.caller.id)
            .field("login_name", &self.login_name)
            .finish_non_exhaustive()
    }
}

/// A service at work on a channel.
pub(crate) struct Serving {
    pub(crate) service: BoxFuture<'static, u32>,
    pub(crate) id: ChannelId,
    pub(crate) finished: Finished,
    pub(crate) handle: Handle,
    /// Cancelled when the channel is closed or its transport is gone, and by the end of the
    /// service.
    pub(crate) gone: CancellationToken,
}

impl Serving {
    /// Serves the channel until the service or the channel ends.
    pub(crate) async fn run(self) {
        let Self { service, id, finished, handle, gone } = self;
        let _gone = gone.clone().drop_guard();
        // In a task of its own, so that a panic still ends the channel in order.
        let mut task = JoinSet::new();
        task.spawn(service);
        let ended = tokio::select! {
            ended = task.join_next() => ended,
            () = gone.cancelled() => return,
        };
        let status = match ended {
            Some(Ok(status)) => status,
            Some(Err(error)) => {
                tracing::error!(%error, "a service on an SSH channel panicked");
                UNKNOWN
            }
            None => UNKNOWN,
        };
        if !finished.is_set() {
            let _ = handle.eof(id).await;
        }
        let _ = handle.exit_status_request(id, status).await;
        let _ = handle.close(id).await;
    }
}
