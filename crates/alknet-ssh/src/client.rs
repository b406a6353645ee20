//! The server's side of one client: logins, channels and their requests.

use std::collections::HashMap;

use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty, Sig,
    keys::Certificate,
    server::{
        Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Response, Session,
        VerifiedPublicKey,
    },
};

use crate::{
    auth::{Presented, Refusal},
    session::{Program, Remote, Slot},
    signal,
    terminal::Size,
    transport::Link,
};

/// What running anything takes.
const SHELL: &str = "ssh:shell";

/// The state of one client in the SSH session loop. Nothing here may wait for the client.
pub(crate) struct Client {
    link: Link,
    channels: HashMap<ChannelId, State>,
}

/// A channel before and after its one program has started.
enum State {
    Waiting(Box<Slot>),
    Running(Remote),
}

impl Client {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, channels: HashMap::new() }
    }

    /// Why no further channel may be opened, if so.
    async fn full(&mut self) -> Option<ChannelOpenFailure> {
        self.channels.retain(|_, state| !matches!(state, State::Running(r) if r.is_gone()));
        if self.link.settings.draining.is_cancelled() || !self.link.authentication.holds().await {
            Some(ChannelOpenFailure::AdministrativelyProhibited)
        } else if self.channels.len() >= self.link.settings.limits.channels {
            Some(ChannelOpenFailure::ResourceShortage)
        } else {
            None
        }
    }

    fn waiting(&mut self, id: ChannelId) -> Option<&mut Slot> {
        match self.channels.get_mut(&id)? {
            State::Waiting(slot) => Some(slot),
            State::Running(_) => None,
        }
    }

    fn running(&self, id: ChannelId) -> Option<&Remote> {
        match self.channels.get(&id)? {
            State::Running(remote) => Some(remote),
            State::Waiting(_) => None,
        }
    }

    /// Starts the channel's program, a shell where no command is asked for; whether it did.
    async fn start(&mut self, id: ChannelId, asked: Option<&[u8]>, handle: Handle) -> bool {
        let Some(State::Waiting(slot)) = self.channels.remove(&id) else {
            return false;
        };
        let authentication = self.link.authentication.clone();
        if !authentication.allows(SHELL).await {
            return false;
        }
        let program = match (authentication.forced_command(), asked) {
            (Some(command), asked) => Program::Forced { command, asked },
            (None, Some(command)) => Program::Command(command),
            (None, None) => Program::Shell,
        };
        match slot.start(program, handle, &self.link) {
            Ok(remote) => {
                self.channels.insert(id, State::Running(remote));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a program could not be started");
                false
            }
        }
    }
}

fn answer(session: &mut Session, id: ChannelId, ok: bool) -> Result<(), russh::Error> {
    if ok { session.channel_success(id) } else { session.channel_failure(id) }
}

fn verdict(accepted: bool) -> Auth {
    if accepted { Auth::Accept } else { Auth::reject() }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let presented = match offer.certificate {
            Some(certificate) => Presented::certificate(certificate),
            None => Presented::key(offer.public_key.key_data()),
        };
        let authentication = &self.link.authentication;
        Ok(verdict(authentication.offered(user, presented, offer.algorithm).await))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let presented = Presented::key(key.public_key.key_data());
        Ok(verdict(self.link.authentication.proven(user, presented).await))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        let presented = Presented::certificate(certificate);
        Ok(verdict(self.link.authentication.proven(user, presented).await))
    }

    async fn openssh_certificate_invalid(
        &mut self,
        _user: &str,
        certificate: &Certificate,
    ) -> Result<(), Self::Error> {
        self.link.authentication.invalid(certificate);
        Ok(())
    }

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        self.link.authentication.refused(None, &Refusal::Method("password"));
        Ok(Auth::reject())
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        self.link.authentication.refused(None, &Refusal::Method("keyboard-interactive"));
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(reason) = self.full().await {
            reply.reject(reason).await;
        } else {
            let slot = Box::new(Slot::new(channel));
            self.channels.insert(slot.id(), State::Waiting(slot));
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(State::Running(remote)) = self.channels.remove(&id) {
            remote.hang_up();
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let ok = self.waiting(id).is_some_and(|slot| slot.set_variable(name, value));
        answer(session, id, ok)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = Size { columns, rows, width, height };
        let ok = self.link.authentication.allows_terminal()
            && self.waiting(id).is_some_and(|slot| slot.open_terminal(term, size, modes));
        answer(session, id, ok)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let ok = self.start(id, None, session.handle()).await;
        answer(session, id, ok)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let ok = self.start(id, Some(command), session.handle()).await;
        answer(session, id, ok)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(remote) = self.running(id) {
            remote.resize(Size { columns, rows, width, height });
        }
        Ok(())
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let (Some(remote), Some(signal)) = (self.running(id), signal::from_wire(&signal)) {
            remote.signal(signal);
        }
        Ok(())
    }
}
