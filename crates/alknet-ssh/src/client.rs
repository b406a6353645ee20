//! The server's side of one client: logins, channels and their requests.

use std::collections::HashMap;

use alknet_host::{Size, network::Target};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty, Sig,
    keys::Certificate,
    server::{
        Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
    },
};

use crate::{
    auth::{Presented, Refusal},
    certificate::PERMIT_PTY,
    forward::{Bound, Listening},
    session::Slot,
    signal,
    start::{Asked, Change, Started},
    transport::Link,
    window::Windows,
};

/// The state of one client in the SSH session loop. Nothing here may wait for the client,
/// nor for the machine's accounts.
pub(crate) struct Client {
    link: Link,
    channels: HashMap<ChannelId, State>,
    listening: Listening,
    windows: Windows,
}

/// A channel before and after its one program or service was asked for.
enum State {
    Waiting {
        slot: Box<Slot>,
        /// Whether programs are to find the client's agent.
        agent: bool,
    },
    Started(Started),
}

impl State {
    fn is_gone(&self) -> bool {
        matches!(self, Self::Started(started) if started.is_gone())
    }
}

impl Client {
    pub(crate) fn new(link: Link) -> Self {
        let (channels, listening) = (HashMap::new(), Listening::default());
        let windows = Windows::new(&link.settings.limits);
        Self { link, channels, listening, windows }
    }

    /// Why no further channel may be opened, if so.
    async fn full(&mut self) -> Option<ChannelOpenFailure> {
        self.channels.retain(|_, state| !state.is_gone());
        if self.link.settings.draining.is_cancelled() || !self.link.authentication.holds().await {
            Some(ChannelOpenFailure::AdministrativelyProhibited)
        } else if self.channels.len() >= self.link.settings.limits.channels {
            Some(ChannelOpenFailure::ResourceShortage)
        } else {
            None
        }
    }

    async fn connect(&self, channel: Channel<Msg>, target: Target, reply: ChannelOpenHandle) {
        if self.link.settings.draining.is_cancelled() {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        } else {
            self.link.connect(channel, target, reply).await;
        }
    }

    fn waiting(&mut self, id: ChannelId) -> Option<&mut Slot> {
        match self.channels.get_mut(&id)? {
            State::Waiting { slot, .. } => Some(slot),
            State::Started(_) => None,
        }
    }

    fn tell(&self, id: ChannelId, change: Change) {
        if let Some(State::Started(started)) = self.channels.get(&id) {
            started.tell(change);
        }
    }

    /// Starts what is asked for on a channel that waits; the client is answered then.
    fn start(&mut self, id: ChannelId, asked: Asked, session: &mut Session) -> Answer {
        match self.channels.remove(&id) {
            Some(State::Waiting { slot, agent }) => {
                let started = self.link.start(*slot, asked, agent, session.handle());
                self.channels.insert(id, State::Started(started));
                Ok(())
            }
            other => {
                self.channels.extend(other.map(|state| (id, state)));
                session.channel_failure(id)
            }
        }
    }
}

type Answer = Result<(), russh::Error>;

fn answer(session: &mut Session, id: ChannelId, ok: bool) -> Answer {
    if ok { session.channel_success(id) } else { session.channel_failure(id) }
}

fn verdict(accepted: bool) -> Auth {
    if accepted { Auth::Accept } else { Auth::reject() }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        Ok(self.link.settings.banner.clone())
    }

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
            self.channels.insert(slot.id(), State::Waiting { slot, agent: false });
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        match u16::try_from(port) {
            Ok(port) => self.connect(channel, Target::Tcp { host: host.into(), port }, reply).await,
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.connect(channel, Target::Unix(path.into()), reply).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let bound = self.listening.tcp(&self.link, address, *port, session.handle()).await;
        *port = bound.unwrap_or(*port);
        Ok(bound.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listening.end(&Bound::Tcp(address.into(), port)).await)
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listening.unix(&self.link, path, session.handle()).await)
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listening.end(&Bound::Unix(path.into())).await)
    }

    async fn agent_request(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Some(State::Waiting { agent, .. }) = self.channels.get_mut(&id) else {
            return Ok(false);
        };
        // The socket is made once a program starts.
        *agent = self.link.may_forward_agent().await;
        Ok(*agent)
    }

    fn adjust_window(&mut self, id: ChannelId, _current: u32) -> u32 {
        let Self { windows, channels, link, .. } = self;
        windows.of(id, |id| {
            let session = channels.get(&id).is_some_and(|state| !state.is_gone());
            session || link.forwards.opened.contains(id)
        })
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.remove(&id) {
            Some(State::Started(started)) => started.hang_up(),
            Some(State::Waiting { .. }) => {}
            None => self.link.forwards.opened.close(id),
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
        let settings = self.link.settings.clone();
        let set = |slot: &mut Slot| {
            let for_programs = slot.set_variable(name, value, &settings.accept_env);
            slot.set_service_variable(name, value, &settings.services) || for_programs
        };
        let ok = self.waiting(id).is_some_and(set);
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
        let authentication = &self.link.authentication;
        let ok = authentication.has_account()
            && authentication.permits(PERMIT_PTY)
            && self.waiting(id).is_some_and(|slot| slot.open_terminal(term, size, modes));
        answer(session, id, ok)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Asked::Shell, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Asked::Command(command.to_vec()), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Asked::Subsystem(name.into()), session)
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
        self.tell(id, Change::Resize(Size { columns, rows, width, height }));
        Ok(())
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(signal) = signal::from_wire(&signal) {
            self.tell(id, Change::Signal(signal));
        }
        Ok(())
    }
}
