//! How what a client asks for on a session channel starts. That takes the machine's
//! accounts and whatever records, and neither may hold up the other channels: it happens in a
//! task of the channel, which answers the request.

use std::sync::Arc;

use alknet_host::Size;
use russh::server::Handle;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    ChannelService, Request,
    auth::{Holder, Refusal},
    certificate::cut,
    session::{Program, Remote, Slot},
    transport::Link,
};

/// What running a program takes.
const SHELL: &str = "ssh:shell";
/// Sizes and signals that wait for a program to start.
const CHANGES: usize = 64;

/// What a client asks for on a channel.
#[derive(Debug)]
pub(crate) enum Asked {
    Shell,
    Command(Vec<u8>),
    Subsystem(String),
}

/// What a client wants of what runs.
#[derive(Debug)]
pub(crate) enum Change {
    Resize(Size),
    Signal(Signal),
}

/// The session loop's view of a channel on which something starts or runs.
#[derive(Debug)]
pub(crate) struct Started {
    changes: mpsc::Sender<Change>,
    closed: CancellationToken,
}

/// A channel on its way to a program or service.
struct Starting {
    link: Link,
    asked: Asked,
    /// Whether programs are to find the client's agent.
    agent: bool,
    handle: Handle,
}

impl Asked {
    fn request(&self) -> Request<'_> {
        match self {
            Self::Shell => Request::Shell,
            Self::Command(command) => Request::Command(command),
            Self::Subsystem(name) => Request::Subsystem(name),
        }
    }

    /// As a forced command sees it.
    fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Shell => None,
            Self::Command(command) => Some(command),
            Self::Subsystem(name) => Some(name.as_bytes()),
        }
    }
}

impl Started {
    /// Whether what ran has ended, was told to, or never started.
    pub(crate) fn is_gone(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Ends it: the client does not want it any more.
    pub(crate) fn hang_up(&self) {
        self.closed.cancel();
    }

    /// Passes something on, after the start.
    pub(crate) fn tell(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            tracing::debug!("a size or signal came too late or too often");
        }
    }
}

impl Link {
    /// Starts what is asked for, and answers the client.
    pub(crate) fn start(&self, slot: Slot, asked: Asked, agent: bool, handle: Handle) -> Started {
        let (changes, received) = mpsc::channel(CHANGES);
        let closed = self.gone.child_token();
        let starting = Starting { link: self.clone(), asked, agent, handle };
        self.tasks.spawn(starting.run(slot, received, closed.clone()));
        Started { changes, closed }
    }

    fn service_for(
        &self,
        request: Request<'_>,
        holder: &Holder,
    ) -> Option<Arc<dyn ChannelService>> {
        let asker = holder.asker();
        // A service's name that is no account of theirs is good for that service alone, and
        // any other for what needs no account.
        let of_service = self.authentication.is_of_service(asker.login_name);
        let offered = |it: &&Arc<dyn ChannelService>| match asker.account {
            Some(_) => true,
            None if of_service => it.login_name() == Some(asker.login_name),
            None => it.needs_no_account(asker.identity),
        };
        let mut services = self.settings.services.iter().filter(offered);
        services.find(|it| it.takes(request, asker)).cloned()
    }
}

impl Starting {
    async fn run(self, slot: Slot, mut changes: mpsc::Receiver<Change>, closed: CancellationToken) {
        let _closed = closed.clone().drop_guard();
        let id = slot.id();
        // Nothing is sent ahead of the answer.
        let answered = slot.answered().drop_guard();
        let started = closed.run_until_cancelled(self.start(slot)).await;
        let Some(remote) = started.flatten() else {
            closed.run_until_cancelled(self.handle.channel_failure(id)).await;
            return;
        };
        closed.run_until_cancelled(self.handle.channel_success(id)).await;
        drop(answered);
        loop {
            tokio::select! {
                Some(change) = changes.recv() => match change {
                    Change::Resize(size) => remote.resize(size),
                    Change::Signal(signal) => remote.signal(signal),
                },
                () = remote.ended() => return,
                () = closed.cancelled() => return remote.hang_up(),
            }
        }
    }

    /// Starts a service, a command or a shell, if the client may have it.
    async fn start(&self, slot: Slot) -> Option<Remote> {
        let authentication = &self.link.authentication;
        let holder = authentication.holder().await?;
        let forced = authentication.forced_command();
        // What a forced command stands in the place of is not even offered.
        let request = match forced {
            Some(command) => Request::Command(command.as_bytes()),
            None => self.asked.request(),
        };
        if let Some(service) = self.link.service_for(request, &holder) {
            return Some(slot.serve(&*service, request, holder, self.handle.clone(), &self.link));
        }
        self.start_program(slot, &holder, forced).await
    }

    async fn start_program(
        &self,
        mut slot: Slot,
        holder: &Holder,
        forced: Option<&str>,
    ) -> Option<Remote> {
        let Self { link, asked, agent, handle } = self;
        let program = match (forced, asked) {
            (Some(command), _) => Program::Forced { command, asked: asked.text() },
            (None, Asked::Command(command)) => Program::Command(command),
            (None, Asked::Shell) => Program::Shell,
            (None, Asked::Subsystem(name)) => {
                link.authentication.denied(&Refusal::Subsystem(cut(name)));
                return None;
            }
        };
        let Holder { identity, account: Some(account), .. } = holder else {
            link.authentication.denied_without_account(&holder.login_name);
            return None;
        };
        if !identity.scopes.allow(SHELL) {
            link.authentication.denied(&Refusal::NotAllowed(SHELL.into()));
            return None;
        }
        if *agent && let Some(path) = link.forward_agent(account, handle).await {
            slot.set_agent(path);
        }
        if let Err(error) = slot.record(identity, account, link).await {
            tracing::error!(%error, "a session was refused");
            link.authentication.denied(&error.into());
            return None;
        }
        let started = slot.start(program, account, handle.clone(), link);
        started.inspect_err(|error| tracing::warn!(%error, "a program could not be started")).ok()
    }
}
