//! The sessions of clients that still have them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use alknet_core::{AuthContext, Credential, Identity};
use futures_util::Stream;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::{
        WorkerTransport,
        streamable_http_server::session::{
            ServerSseMessage, SessionId, SessionManager,
            local::{LocalSessionManager, LocalSessionManagerError, LocalSessionWorker},
        },
    },
};
use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// How many there are in all, and for each identity.
const MAX: usize = 1024;
const MAX_OF_IDENTITY: usize = 32;
/// How long one lasts in which nothing happens.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// All sessions of a server.
pub(super) struct Sessions {
    inner: LocalSessionManager,
    table: Mutex<HashMap<SessionId, Session>>,
    tasks: TaskTracker,
}

struct Session {
    owner: Owner,
    used: Instant,
    /// Ends the task that waits for the end of the credential.
    _over: DropGuard,
}

/// Whom a session belongs to: a credential, not all that its holder may have.
#[derive(Clone, PartialEq, Eq)]
struct Owner {
    id: String,
    credential: Credential,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut inner = LocalSessionManager::default();
        inner.session_config.keep_alive = Some(IDLE);
        inner.session_config.sse_retry = None;
        Self { inner, table: Mutex::default(), tasks: TaskTracker::new() }
    }
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.table().len()
    }

    async fn end(&self, id: &SessionId) -> Result<(), LocalSessionManagerError> {
        self.table().remove(id);
        self.inner.close_session(id).await
    }

    /// The session that has to make room for one more of this owner's identity: of their own,
    /// where they have many, or of all.
    fn in_the_way_of(&self, owner: &Owner) -> Option<SessionId> {
        let table = self.table();
        let of_owner = table.values().filter(|session| session.owner.id == owner.id).count();
        let own_only = of_owner >= MAX_OF_IDENTITY;
        if !own_only && table.len() < MAX {
            return None;
        }
        let all = table.iter().filter(|(_, session)| !own_only || session.owner.id == owner.id);
        all.min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("count", &self.table().len()).finish()
    }
}

/// The sessions as the sender of one request sees them: there are no others than their own.
pub(super) struct Owned {
    sessions: Arc<Sessions>,
    owner: Owner,
    auth: AuthContext,
    identity: Arc<Identity>,
}

impl Owned {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        auth: &AuthContext,
        identity: Arc<Identity>,
    ) -> Self {
        let owner = Owner { id: identity.id.clone(), credential: identity.credential.clone() };
        Self { sessions, owner, auth: auth.clone(), identity }
    }

    /// The session, if it is the caller's; it has been used now.
    fn own(&self, id: &SessionId) -> Result<(), LocalSessionManagerError> {
        let mut table = self.sessions.table();
        let own = table.get_mut(id).filter(|session| session.owner == self.owner);
        let session = own.ok_or_else(|| LocalSessionManagerError::SessionNotFound(id.clone()))?;
        session.used = Instant::now();
        Ok(())
    }

    /// Ends the session with the credential that it belongs to.
    fn watch(&self, id: SessionId) -> DropGuard {
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        let login = self.auth.session.login(self.identity.clone());
        let sessions: Weak<Sessions> = Arc::downgrade(&self.sessions);
        let watch = async move {
            // Beyond the limit of logins there is none.
            if let Ok(login) = login {
                login.revoked().await;
            }
            if let Some(sessions) = sessions.upgrade() {
                let _ = sessions.end(&id).await;
            }
        };
        self.sessions.tasks.spawn(over.run_until_cancelled_owned(watch));
        guard
    }
}

impl SessionManager for Owned {
    type Error = LocalSessionManagerError;
    type Transport = WorkerTransport<LocalSessionWorker>;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        if let Some(oldest) = self.sessions.in_the_way_of(&self.owner) {
            self.sessions.end(&oldest).await?;
        }
        let (id, transport) = self.sessions.inner.create_session().await?;
        let session = Session {
            owner: self.owner.clone(),
            used: Instant::now(),
            _over: self.watch(id.clone()),
        };
        self.sessions.table().insert(id.clone(), session);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.own(id)?;
        self.sessions.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        Ok(self.own(id).is_ok())
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        match self.own(id) {
            Ok(()) => self.sessions.end(id).await,
            Err(_not_theirs) => Ok(()),
        }
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.own(id)?;
        self.sessions.inner.create_stream(id, message).await
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Self::Error> {
        self.own(id)?;
        self.sessions.inner.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.own(id)?;
        self.sessions.inner.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.own(id)?;
        self.sessions.inner.resume(id, last_event_id).await
    }
}
