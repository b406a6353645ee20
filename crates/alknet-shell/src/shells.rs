//! All sessions of a node.

mod starting;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alknet_core::{Audit, AuditEvent, AuthContext, Identity, IdentityProvider, Refusals};
use alknet_host::{Accounts, Recorder};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::starting::Starting;
use crate::{
    ENDED, STARTED,
    handler::may_type,
    hub::{Beginning, INPUT_WINDOW, OUTPUT_WINDOW},
    name::{Id, Name},
    session::{Seat, Session, Started},
    wire::{Attach, Attached, Listed, Refusal, RefusalCode, Which},
};

/// How often a session looks whether it may go on.
const LOOK: Duration = Duration::from_secs(1);
/// Sessions of an identity whose end is kept.
const LINGERING: usize = 8;

/// Bounds of surviving shells, each with a default that suits a small node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShellLimits {
    /// Sessions of one identity.
    pub sessions: usize,
    /// Viewers of one session, those that are away among them.
    pub viewers: usize,
    /// Streams in progress on one connection.
    pub streams: usize,
    /// How long a session goes on without a viewer; `None`: for ever.
    pub detached: Option<Duration>,
    /// How long the end of a session is kept for viewers that were away.
    pub linger: Duration,
    /// How long a program that was told to hang up gets to end before it is killed.
    pub hangup_grace: Duration,
}

impl Default for ShellLimits {
    fn default() -> Self {
        Self {
            sessions: 16,
            viewers: 16,
            streams: 64,
            detached: None,
            linger: Duration::from_secs(600),
            hangup_grace: Duration::from_secs(5),
        }
    }
}

/// What [`Shells`] are made from.
#[derive(Debug)]
pub struct ShellConfig {
    /// Who may use which account.
    pub accounts: Accounts,
    /// Who is asked whether a credential still holds.
    pub identities: Arc<dyn IdentityProvider>,
    /// Where the beginning and the end of sessions are recorded.
    pub audit: Audit,
    /// What records sessions, if anything does.
    pub recorder: Option<Arc<dyn Recorder>>,
    /// Bounds.
    pub limits: ShellLimits,
}

/// The sessions of a node. Cheap to clone.
#[derive(Clone)]
pub struct Shells(Arc<Inner>);

struct Inner {
    config: ShellConfig,
    table: Mutex<Table>,
    /// What those are refused who were let in.
    refusals: Refusals,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// All that there is, by the id of the identity.
#[derive(Default)]
struct Table {
    sessions: HashMap<String, Vec<Arc<Session>>>,
    starting: HashMap<String, Vec<Starting>>,
}

impl Table {
    fn of(&self, identity: &str) -> &[Arc<Session>] {
        self.sessions.get(identity).map(Vec::as_slice).unwrap_or_default()
    }

    fn starting(&self, identity: &str) -> &[Starting] {
        self.starting.get(identity).map(Vec::as_slice).unwrap_or_default()
    }

    /// Keeps no place for a session any more.
    fn free(&mut self, identity: &str, session: Id) {
        if let Some(starting) = self.starting.get_mut(identity) {
            starting.retain(|other| !other.is(session));
            if starting.is_empty() {
                self.starting.remove(identity);
            }
        }
    }
}

impl fmt::Debug for Shells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shells").field("config", &self.0.config).finish_non_exhaustive()
    }
}

fn refused<T>(code: RefusalCode, message: &str) -> Result<T, Refusal> {
    Err(Refusal::new(code, message))
}

impl Shells {
    /// None yet.
    pub fn new(config: ShellConfig) -> Self {
        Self(Arc::new(Inner {
            refusals: Refusals::new(config.audit.clone()),
            config,
            table: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }))
    }

    pub(crate) fn limits(&self) -> &ShellLimits {
        &self.0.config.limits
    }

    /// Cancelled when the node goes down.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    /// At the end of a connection: the audit log gets to know what it was not told yet.
    pub(crate) fn settle(&self, auth: &AuthContext) {
        self.0.refusals.settle(AuditEvent::about(AuditEvent::REFUSED, auth));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions of an identity that it may use, those that are over among them.
    fn of(&self, identity: &Identity) -> Vec<Arc<Session>> {
        let accounts = self.0.config.accounts.names(identity);
        let mut sessions = self.table().of(&identity.id).to_vec();
        sessions.retain(|session| accounts.contains(&session.account));
        sessions
    }

    /// The sessions of an identity.
    pub(crate) fn list(&self, identity: &Identity) -> Vec<Listed> {
        let live = self.of(identity).into_iter().filter(|session| !session.is_over());
        live.map(|session| session.listed()).collect()
    }

    /// One that is over is found by its id alone, and by anything else only those of the
    /// account that is asked for.
    fn find(
        &self,
        identity: &Identity,
        which: &Which,
        account: Option<&str>,
    ) -> Option<Arc<Session>> {
        let mut sessions = self.of(identity);
        if let Some(id) = which.session {
            return sessions.into_iter().find(|session| session.id == id);
        }
        sessions.retain(|session| {
            !session.is_over() && account.is_none_or(|account| session.account == account)
        });
        match &which.name {
            Some(name) => sessions.into_iter().find(|session| session.name == *name),
            None => sessions.into_iter().max_by_key(|session| session.attached()),
        }
    }

    /// Ends a session of an identity.
    pub(crate) fn end(&self, identity: &Identity, which: &Which) -> Result<Name, Refusal> {
        if *which == Which::default() {
            return refused(RefusalCode::Protocol, "which session is to be ended?");
        }
        match self.find(identity, which, None).filter(|session| !session.is_over()) {
            Some(session) => {
                session.terminate(Refusal::new(RefusalCode::Ended, "the session was ended"));
                Ok(session.name.clone())
            }
            None => refused(RefusalCode::NotFound, "there is no such session"),
        }
    }

    /// Attaches a viewer, to a session that is started if need be.
    pub(crate) async fn attach(
        &self,
        auth: &AuthContext,
        identity: &Arc<Identity>,
        attach: &Attach,
    ) -> Result<(Seat, Attached), Refusal> {
        let types = may_type(&identity.scopes);
        if !types && !attach.read_only {
            return refused(RefusalCode::NotFound, "this credential is for looking on only");
        }
        if let Some(session) = self.find(identity, &attach.which, attach.account.as_deref()) {
            let seated = self.seat(&session, auth, identity, attach, false);
            // One that ended just now is as good as none, unless it is the one that is meant.
            if seated.is_ok() || attach.which.session.is_some() || !session.is_over() {
                return seated;
            }
        }
        if attach.which.session.is_some() {
            return refused(RefusalCode::Gone, "the session is over");
        }
        if !attach.create || !types || attach.read_only {
            return refused(RefusalCode::NotFound, "there is no such session");
        }
        let account = self.0.config.accounts.of(identity, attach.account.as_deref()).await;
        let account = account.map_err(|error| {
            tracing::warn!(%error, identity = identity.id, "a shell was refused");
            Refusal::new(RefusalCode::Failed, "the node has no account for this identity")
        })?;
        let (session, created) = self.create(auth, identity, &account, attach).await?;
        let seated = self.seat(&session, auth, identity, attach, created);
        if let (Err(refusal), true) = (&seated, created) {
            // Nobody would ever look at it.
            session.terminate(refusal.clone());
        }
        seated
    }

    fn seat(
        &self,
        session: &Arc<Session>,
        auth: &AuthContext,
        identity: &Arc<Identity>,
        attach: &Attach,
        created: bool,
    ) -> Result<(Seat, Attached), Refusal> {
        let address = auth.remote_addr.map(|address| address.ip().to_canonical());
        let mut hub = session.hub();
        let begun = hub.attach(attach, created, address, Instant::now());
        let (size, viewers) = (hub.size(), hub.attached());
        if begun.is_ok() {
            session.visited(identity, may_type(&identity.scopes));
        }
        drop(hub);
        let (place, Beginning { resumed, input, output }) = begun?;
        let seat = Seat { session: session.clone(), place };
        session.settle();
        let attached = Attached {
            session: session.id,
            name: session.name.clone(),
            created,
            resumed,
            read_only: attach.read_only,
            input,
            output,
            input_window: INPUT_WINDOW,
            output_window: OUTPUT_WINDOW,
            columns: size.columns,
            rows: size.rows,
            viewers,
            account: session.account.clone(),
        };
        Ok((seat, attached))
    }

    fn record(
        &self,
        auth: &AuthContext,
        event: &'static str,
        session: &Session,
        reason: Option<String>,
    ) {
        self.0.config.audit.record(AuditEvent {
            subject: Some(session.id.to_string()),
            name: Some(session.name.to_string()),
            reason,
            ..AuditEvent::about(event, auth)
        });
    }

    fn forget(&self, identity: &str, session: &Arc<Session>) {
        let mut table = self.table();
        if let Some(sessions) = table.sessions.get_mut(identity) {
            sessions.retain(|other| !Arc::ptr_eq(other, session));
            if sessions.is_empty() {
                table.sessions.remove(identity);
            }
        }
    }

    /// Ends all sessions, and waits until their programs are gone. None starts any more.
    pub async fn shutdown(&self) {
        self.0.closing.cancel();
        let all: Vec<_> = self.table().sessions.values().flatten().cloned().collect();
        for session in all {
            let refusal = Refusal::new(RefusalCode::ShuttingDown, "the node is shutting down");
            session.terminate(refusal);
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Of the sessions that are over the last few are kept.
fn forget_most(sessions: &[Arc<Session>]) {
    let over = sessions.iter().rev().filter(|session| session.is_over());
    over.skip(LINGERING).for_each(|session| session.forgotten.cancel());
}

/// The task of a session.
struct Run {
    shells: Shells,
    session: Arc<Session>,
    /// Who started it.
    auth: AuthContext,
}

impl Run {
    async fn serve(self, started: Started) {
        let Self { shells, session, auth } = self;
        let grace = shells.limits().hangup_grace;
        let identity = auth.identity.as_ref().map(|it| it.id.clone()).unwrap_or_default();
        shells.record(&auth, STARTED, &session, None);
        tokio::select! {
            () = session.serve(started, grace) => {}
            never = shells.watch(&session) => match never {},
        }
        session.done.cancel();
        shells.record(&auth, ENDED, &session, None);
        shells.linger(&session).await;
        shells.forget(&identity, &session);
    }
}

impl Shells {
    /// Looks again and again whether a session may go on.
    async fn watch(&self, session: &Session) -> std::convert::Infallible {
        let ShellConfig { identities, accounts, limits, .. } = &self.0.config;
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            ticks.tick().await;
            let end = |message| session.terminate(Refusal::new(RefusalCode::Ended, message));
            if let (Some(most), Some(since)) = (limits.detached, session.deserted())
                && since.elapsed() > most
            {
                end("nobody has looked at the session for too long");
            }
            let version = match identities.version().await {
                Ok(version) => Some(version),
                Err(error) => {
                    tracing::error!(%error, "a shell's credentials could not be verified");
                    continue;
                }
            };
            if version == seen && !session.has_expired() {
                continue;
            }
            if session.goes_on(&**identities, accounts).await {
                seen = version;
            }
        }
    }

    /// Keeps the end of a session for viewers that have yet to hear of it.
    async fn linger(&self, session: &Session) {
        let heard = async {
            loop {
                let changed = session.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if session.hub().is_abandoned() {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            () = heard => {}
            () = tokio::time::sleep(self.limits().linger) => {}
            () = session.forgotten.cancelled() => {}
            () = self.0.closing.cancelled() => {}
        }
    }
}
