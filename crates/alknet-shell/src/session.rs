//! A program on a terminal that needs nobody to look at it.

mod program;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use alknet_core::{Credential, Identity, IdentityProvider};
use alknet_host::{Accounts, RecordError, Recording, WeakTerminal};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use program::{Launch, Started, start};

use crate::{
    clock::unix,
    hub::{Hub, Place},
    name::{Id, Name},
    wire::{Listed, Refusal, RefusalCode},
};

/// How much of a command a list shows, in characters: so that every list fits into its frame.
pub(crate) const SHOWN: usize = 200;
/// How many credentials a session remembers; the oldest make room.
const CREDENTIALS: usize = 32;

/// A session: what its program's task and its attachments share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Id,
    pub(crate) name: Name,
    pub(crate) command: Option<String>,
    pub(crate) account: String,
    created: SystemTime,
    hub: Mutex<Hub>,
    visits: Mutex<Visits>,
    /// Told whenever an attachment or the program may have something to do.
    pub(crate) changed: Notify,
    /// Cancelled when the program has to end.
    pub(crate) end: CancellationToken,
    /// Cancelled when its program is gone.
    pub(crate) done: CancellationToken,
    /// Cancelled when the end is no longer kept for anybody.
    pub(crate) forgotten: CancellationToken,
    terminal: WeakTerminal,
    /// Takes all that is shown, where the session is recorded.
    recording: Option<Recording>,
}

/// Who was here.
#[derive(Debug)]
struct Visits {
    /// When somebody last attached.
    attached: SystemTime,
    /// When somebody was last here.
    seen: Instant,
    /// What those who may type were recognised by.
    credentials: Vec<Arc<Identity>>,
}

impl Session {
    pub(crate) fn new(
        (id, name): (Id, Name),
        launch: &Launch<'_>,
        hub: Hub,
        terminal: WeakTerminal,
        recording: Option<Recording>,
    ) -> Self {
        let now = SystemTime::now();
        let visits = Visits { attached: now, seen: Instant::now(), credentials: Vec::new() };
        Self {
            id,
            name,
            command: launch.command.map(ToOwned::to_owned),
            account: launch.account.name.clone(),
            created: now,
            hub: Mutex::new(hub),
            visits: Mutex::new(visits),
            changed: Notify::new(),
            end: CancellationToken::new(),
            done: CancellationToken::new(),
            forgotten: CancellationToken::new(),
            terminal,
            recording,
        }
    }

    /// Ends it: it is recorded, and cannot be any more.
    pub(crate) fn unrecorded(&self, error: &RecordError) {
        tracing::error!(%error, "a session was ended");
        self.terminate(Refusal::new(RefusalCode::Failed, error.to_string()));
    }

    /// The session's state. The lock is never held over a wait.
    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn visits(&self) -> MutexGuard<'_, Visits> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the state has changed: the terminal gets its size, and whoever waits looks again.
    pub(crate) fn settle(&self) {
        let (resize, present) = {
            let mut hub = self.hub();
            (hub.take_resize(), hub.attached() > 0)
        };
        if present {
            self.visits().seen = Instant::now();
        }
        if let (Some(size), Some(terminal)) = (resize, self.terminal.upgrade())
            && let Err(error) = terminal.resize(size.into())
        {
            tracing::debug!(%error, "a terminal could not be resized");
        }
        if let (Some(size), Some(recording)) = (resize, &self.recording) {
            recording.resize(size.into());
        }
        self.changed.notify_waiters();
    }

    /// Somebody has attached, by a credential that the session lasts with if it may type. To
    /// be called under the lock of the hub: see [`Session::goes_on`].
    pub(crate) fn visited(&self, identity: &Arc<Identity>, types: bool) {
        let mut visits = self.visits();
        visits.attached = SystemTime::now();
        if !types || visits.credentials.iter().any(|known| known == identity) {
            return;
        }
        visits.credentials.retain(|known| known.credential != identity.credential);
        if visits.credentials.len() >= CREDENTIALS {
            visits.credentials.remove(0);
        }
        visits.credentials.push(identity.clone());
    }

    /// When somebody last attached.
    pub(crate) fn attached(&self) -> SystemTime {
        self.visits().attached
    }

    /// Since when nobody has been here; `None` if somebody is.
    pub(crate) fn deserted(&self) -> Option<Instant> {
        let nobody = self.hub().attached() == 0;
        nobody.then(|| self.visits().seen)
    }

    /// Ends it: viewers are told why, and the program is told to hang up.
    pub(crate) fn terminate(&self, refusal: Refusal) {
        self.hub().ended(refusal);
        self.end.cancel();
        self.changed.notify_waiters();
    }

    /// Whether its time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.hub().is_over()
    }

    /// Whether a credential that it lasts with has ended by itself.
    pub(crate) fn has_expired(&self) -> bool {
        let now = SystemTime::now();
        let visits = self.visits();
        visits.credentials.iter().any(|known| known.valid_until.is_some_and(|end| end <= now))
    }

    /// Ends it unless a credential that it lasts with still holds, and is good for as much.
    /// One that could not be asked for stays. Whether it goes on.
    pub(crate) async fn goes_on(
        &self,
        identities: &dyn IdentityProvider,
        accounts: &Accounts,
    ) -> bool {
        let asked = self.visits().credentials.clone();
        let mut gone: Vec<Credential> = Vec::new();
        for then in asked {
            match identities.by_credential(&then.credential).await {
                Ok(Some(now)) if self.suffices(&then, &now, accounts) => {}
                Ok(_) => gone.push(then.credential.clone()),
                Err(error) => tracing::error!(%error, "a shell's credential could not be verified"),
            }
        }
        // Whoever attaches meanwhile either keeps it, or finds that it is over.
        let mut hub = self.hub();
        let mut visits = self.visits();
        visits.credentials.retain(|known| !gone.contains(&known.credential));
        if !visits.credentials.is_empty() {
            return true;
        }
        let message = "the credentials of the session were revoked or have expired";
        hub.ended(Refusal::new(RefusalCode::Ended, message));
        drop((visits, hub));
        self.end.cancel();
        self.changed.notify_waiters();
        false
    }

    fn suffices(&self, then: &Identity, now: &Identity, accounts: &Accounts) -> bool {
        let ended = now.valid_until.is_some_and(|end| end <= SystemTime::now());
        let types = crate::handler::may_type(&now.scopes);
        then.id == now.id && !ended && types && accounts.names(now).contains(&self.account)
    }

    /// As a list shows it.
    pub(crate) fn listed(&self) -> Listed {
        let hub = self.hub();
        let size = hub.size();
        Listed {
            session: self.id,
            name: self.name.clone(),
            command: self.command.as_ref().map(|line| line.chars().take(SHOWN).collect()),
            created: unix(self.created),
            attached: unix(self.attached()),
            columns: size.columns,
            rows: size.rows,
            viewers: hub.list(),
        }
    }
}

/// An attachment's seat; left when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) session: Arc<Session>,
    pub(crate) place: Place,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.session.hub().lost(self.place);
        self.session.settle();
    }
}
