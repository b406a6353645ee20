//! Agent forwarding: programs of the node ask the client's agent (OpenSSH's
//! `auth-agent-req@openssh.com`, draft-ietf-sshm-ssh-agent).

use alknet_core::Action;
use alknet_host::{Account, PrivateSocket};
use russh::server::Handle;
use tokio::net::UnixStream;

use crate::{auth::Refusal, carry::carry, certificate::PERMIT_AGENT_FORWARDING, transport::Link};

/// What forwarding an agent takes.
const AGENT: &str = "forward:agent";

impl Link {
    /// Whether whoever has logged in may have their agent forwarded.
    pub(crate) async fn may_forward_agent(&self) -> bool {
        // It is for programs, and those are for who has an account.
        if !self.authentication.has_account()
            || !self.authentication.permits(PERMIT_AGENT_FORWARDING)
        {
            return false;
        }
        let Some(caller) = self.authentication.caller().await else { return false };
        let allowed = caller.scopes.allow(Action::from(AGENT));
        if !allowed {
            self.authentication.denied(&Refusal::NotAllowed(AGENT.into()));
        }
        allowed
    }

    /// The path of a socket for the client's agent: one for the transport, with which it goes.
    pub(crate) async fn forward_agent(&self, account: &Account, handle: &Handle) -> Option<String> {
        let listen = async { self.listen_for_agent(account, handle.clone()).ok_or(()) };
        self.agent.get_or_try_init(|| listen).await.ok().cloned()
    }

    fn listen_for_agent(&self, account: &Account, handle: Handle) -> Option<String> {
        let socket = PrivateSocket::listen(account);
        let socket = socket
            .inspect_err(|error| tracing::warn!(%error, "no socket for a forwarded agent"))
            .ok()?;
        let path = socket.path().to_str()?.to_owned();
        let link = self.clone();
        self.tasks.spawn(async move {
            let draining = link.settings.draining.clone();
            tokio::select! {
                () = link.accept_for_agent(socket, &handle) => {}
                () = link.gone.cancelled() => {}
                // Nothing that runs then is waited for on account of the agent.
                () = draining.cancelled() => {}
            }
        });
        Some(path)
    }

    async fn accept_for_agent(&self, socket: PrivateSocket, handle: &Handle) {
        loop {
            let program = socket.accept().await;
            let Some(room) = self.forwards.room() else { continue };
            let (link, handle) = (self.clone(), handle.clone());
            self.tasks.spawn(async move {
                let _room = room;
                link.gone.run_until_cancelled(link.ask_agent(program, &handle)).await;
            });
        }
    }

    async fn ask_agent(&self, mut program: UnixStream, handle: &Handle) {
        let opening = self.forwards.opened.opening();
        match handle.channel_open_agent().await {
            Ok(channel) => {
                let place = opening.done(channel.id());
                carry(channel, &mut program, &self.backlog, &place.closed).await;
            }
            Err(error) => tracing::debug!(%error, "the client opens no channel to its agent"),
        }
    }
}
