//! How a session starts: its name is kept for it, what records it begins, and only then does
//! its program run.

use std::{fmt, sync::Arc};

use alknet_core::{AuditEvent, AuthContext, Identity};
use alknet_host::{Account, RecordError, Recording, Session as RecordedSession};
use tokio_util::sync::CancellationToken;

use super::{Run, Shells, forget_most, refused};
use crate::{
    hub::Hub,
    name::{Id, Name},
    session::{Launch, Session, start},
    wire::{Attach, Refusal, RefusalCode},
};

/// How many times the sessions of an identity its programs may be, with those that have been
/// told to hang up and have not.
const HANGING: usize = 2;
/// The longest type of a terminal, in bytes.
const MAX_TERM: usize = 64;

/// A session that is about to start, as the table of all has it.
pub(super) struct Starting {
    id: Id,
    name: Name,
    account: String,
    /// Cancelled when it has started, or will not.
    settled: CancellationToken,
}

impl Starting {
    pub(super) fn is(&self, id: Id) -> bool {
        self.id == id
    }
}

/// A place among the sessions of an identity, kept until this is dropped.
struct Place {
    shells: Shells,
    identity: Arc<Identity>,
    id: Id,
    name: Name,
    settled: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shells.table().free(&self.identity.id, self.id);
        self.settled.cancel();
    }
}

/// What there is under a name.
enum Found {
    /// A session.
    Session(Arc<Session>),
    /// One that is about to start: this is cancelled when that is decided.
    Starting(CancellationToken),
    /// Nothing but a place that is kept for whoever asked.
    Place(Place),
}

fn failed(error: &dyn fmt::Display) -> Refusal {
    tracing::warn!(%error, "a shell could not be started");
    Refusal::new(RefusalCode::Failed, "the program could not be started")
}

impl Shells {
    /// Starts a session, unless another attachment was quicker; whether this one did. Cancel
    /// safe: what was not decided leaves nothing behind.
    pub(super) async fn create(
        &self,
        auth: &AuthContext,
        identity: &Arc<Identity>,
        account: &Account,
        attach: &Attach,
    ) -> Result<(Arc<Session>, bool), Refusal> {
        let launch = launch(account, attach)?;
        let name = attach.which.name.clone().unwrap_or_else(Name::main);
        let place = loop {
            match self.reserve(identity, &name, &account.name)? {
                Found::Session(session) => return Ok((session, false)),
                Found::Starting(settled) => settled.cancelled().await,
                Found::Place(place) => break place,
            }
        };
        let recording = self.begin_recording(auth, &place, &launch).await?;
        Ok((self.begin(auth, &place, &launch, recording)?, true))
    }

    /// Keeps a name for a session that is about to start, if it is free and there is room.
    fn reserve(
        &self,
        identity: &Arc<Identity>,
        name: &Name,
        account: &str,
    ) -> Result<Found, Refusal> {
        let id = Id::random().map_err(|error| failed(&error))?;
        let mut table = self.table();
        if self.0.closing.is_cancelled() {
            return refused(RefusalCode::ShuttingDown, "the node is shutting down");
        }
        let others = || refused(RefusalCode::NotFound, "the name is another account's session");
        let sessions = table.of(&identity.id);
        let live = sessions.iter().filter(|session| !session.is_over());
        if let Some(there) = live.clone().find(|session| session.name == *name) {
            let same = there.account == account;
            return if same { Ok(Found::Session(there.clone())) } else { others() };
        }
        let starting = table.starting(&identity.id);
        if let Some(there) = starting.iter().find(|starting| starting.name == *name) {
            let same = there.account == account;
            return if same { Ok(Found::Starting(there.settled.clone())) } else { others() };
        }
        let most = self.limits().sessions;
        let programs = sessions.iter().filter(|session| !session.done.is_cancelled()).count();
        let more = starting.len();
        if live.count() + more >= most || programs + more >= most.saturating_mul(HANGING) {
            return refused(RefusalCode::Limit, "this identity has too many sessions");
        }
        let (name, settled) = (name.clone(), CancellationToken::new());
        let (account, kept) = (account.to_owned(), settled.clone());
        let starting = Starting { id, name: name.clone(), account, settled: kept };
        table.starting.entry(identity.id.clone()).or_default().push(starting);
        let (shells, identity) = (self.clone(), identity.clone());
        Ok(Found::Place(Place { shells, identity, id, name, settled }))
    }

    /// Has the session recorded, where that is what the node does. Its program must not start
    /// where that fails.
    async fn begin_recording(
        &self,
        auth: &AuthContext,
        place: &Place,
        launch: &Launch<'_>,
    ) -> Result<Option<Recording>, Refusal> {
        let Some(recorder) = &self.0.config.recorder else { return Ok(None) };
        let (account, alpn) = (&launch.account.name, auth.alpn.to_string());
        let identity = place.identity.clone();
        let mut about = RecordedSession::new(identity, account, &alpn, launch.size.into());
        about.peer = auth.remote_addr;
        match self.0.closing.run_until_cancelled(recorder.begin(about)).await {
            Some(Ok(recording)) => Ok(recording),
            Some(Err(error)) => Err(self.unrecorded(auth, place, &error)),
            None => refused(RefusalCode::ShuttingDown, "the node is shutting down"),
        }
    }

    fn unrecorded(&self, auth: &AuthContext, place: &Place, error: &RecordError) -> Refusal {
        tracing::error!(%error, "a session was refused");
        let event = AuditEvent::about(AuditEvent::REFUSED, auth);
        let name = Some(place.name.to_string());
        self.0.refusals.record(AuditEvent { name, ..event }.because(error));
        Refusal::new(RefusalCode::Failed, error)
    }

    /// Starts the program of a session in the place that is kept for it.
    fn begin(
        &self,
        auth: &AuthContext,
        place: &Place,
        launch: &Launch<'_>,
        recording: Option<Recording>,
    ) -> Result<Arc<Session>, Refusal> {
        let mut table = self.table();
        if self.0.closing.is_cancelled() {
            return refused(RefusalCode::ShuttingDown, "the node is shutting down");
        }
        let started = start(launch).map_err(|error| failed(&error))?;
        let hub = Hub::new(launch.size, self.limits().viewers);
        let (name, terminal) = ((place.id, place.name.clone()), started.terminal.downgrade());
        let session = Arc::new(Session::new(name, launch, hub, terminal, recording));
        session.visited(&place.identity, true);
        table.free(&place.identity.id, place.id);
        let sessions = table.sessions.entry(place.identity.id.clone()).or_default();
        sessions.push(session.clone());
        forget_most(sessions);
        let run = Run { shells: self.clone(), session: session.clone(), auth: auth.clone() };
        // A shutdown, which looks at the table, waits for every task of what it finds there.
        self.0.tasks.spawn(run.serve(started));
        drop(table);
        Ok(session)
    }
}

/// What a new session begins with.
fn launch<'a>(account: &'a Account, attach: &'a Attach) -> Result<Launch<'a>, Refusal> {
    let term = &attach.terminal.term;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if term.len() > MAX_TERM || !term.chars().all(plain) {
        return refused(RefusalCode::Protocol, "the terminal's type is none");
    }
    if attach.command.as_ref().is_some_and(|line| line.contains('\0')) {
        return refused(RefusalCode::Protocol, "a command has no zero byte");
    }
    let permitted = attach.env.iter().filter(|(name, value)| Account::may_be_set(name, value));
    let mut variables: Vec<_> =
        permitted.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !term.is_empty() {
        variables.push(("TERM".into(), term.clone()));
    }
    let command = attach.command.as_deref();
    Ok(Launch { account, command, size: attach.terminal.size(), variables })
}
