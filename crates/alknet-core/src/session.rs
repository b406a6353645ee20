//! The live sessions of a node, and who is logged in to them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;

use crate::{
    Audit, AuthContext, Connection, Credential, Identity, IdentityProvider, Limits, ProviderError,
    Refusal, TransportKind, addresses::Addresses, connection::Meter,
};

/// What the dispatchers of a node and everybody who authenticates share.
pub(crate) struct Sessions {
    pub(crate) limits: Limits,
    pub(crate) audit: Audit,
    pub(crate) addresses: Addresses,
    table: Mutex<Table>,
    next: AtomicU64,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<u64, Session>,
    /// Sessions that are QUIC connections.
    quic: usize,
    /// Sessions without an identity, by address.
    strangers: HashMap<IpAddr, usize>,
    /// In the order of the logins: a session's own comes before those inside it.
    logins: BTreeMap<u64, (Arc<Identity>, CancellationToken)>,
    /// By the id of the identity.
    usage: HashMap<String, Usage>,
}

/// What an identity has in use on the node.
struct Usage {
    logins: usize,
    streams: Meter,
}

/// A live session, for the owner to see.
#[derive(Debug, Clone)]
pub struct Session {
    /// Unique while the node runs.
    pub id: u64,
    /// Who, what, whence.
    pub auth: AuthContext,
    /// When it began.
    pub since: Instant,
    pub(crate) connection: Option<Connection>,
    /// Cancelled when the owner ends it.
    pub(crate) ended: CancellationToken,
}

/// A row in the session table; removed on drop.
pub(crate) struct Place {
    pub(crate) id: u64,
    pub(crate) sessions: Arc<Sessions>,
    /// Cancelled when the owner ends the session.
    pub(crate) ended: CancellationToken,
    quic: bool,
    /// What it counts as, if it has no identity.
    stranger: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        table.quic -= usize::from(self.quic);
        if let Some(address) = self.stranger
            && let Some(count) = table.strangers.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                table.strangers.remove(&address);
            }
        }
        let session = table.sessions.remove(&self.id);
        drop(table);
        // Closing its last connection must not happen under the lock.
        drop(session);
    }
}

impl Sessions {
    pub(crate) fn new(limits: Limits, audit: Audit) -> Self {
        let addresses = Addresses::new(&limits);
        Self { limits, audit, addresses, table: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a row for a session that is about to start.
    pub(crate) fn place(self: &Arc<Self>, auth: &AuthContext) -> Result<Place, Refusal> {
        let address = auth.remote_addr.filter(|_| auth.identity.is_none());
        let stranger = address.and_then(|address| self.addresses.key(address.ip()));
        let quic = auth.transport == TransportKind::Quic;
        let mut table = self.table();
        if table.sessions.len() >= self.limits.sessions {
            return Err(Refusal::NodeLimit);
        }
        if let Some(address) = stranger {
            let count = table.strangers.entry(address).or_default();
            if *count >= self.limits.sessions_per_address {
                return Err(Refusal::AddressLimit);
            }
            *count += 1;
        }
        table.quic += usize::from(quic);
        let id = self.next();
        let ended = CancellationToken::new();
        let (auth, since) = (auth.clone(), Instant::now());
        let session = Session { id, auth, since, connection: None, ended: ended.clone() };
        table.sessions.insert(id, session);
        drop(table);
        Ok(Place { id, sessions: self.clone(), ended, quic, stranger })
    }

    /// Notes the connection of a session that starts.
    pub(crate) fn started(&self, id: u64, connection: &Connection) {
        if let Some(session) = self.table().sessions.get_mut(&id) {
            session.connection = Some(connection.clone());
        }
    }

    pub(crate) fn list(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = self.table().sessions.values().cloned().collect();
        sessions.sort_by_key(|session| session.id);
        sessions
    }

    /// Ends one session; whether it is there.
    pub(crate) fn end_one(&self, id: u64) -> bool {
        self.table().sessions.get(&id).inspect(|session| session.ended.cancel()).is_some()
    }

    pub(crate) fn count(&self) -> usize {
        self.table().sessions.len()
    }

    pub(crate) fn quic(&self) -> usize {
        self.table().quic
    }

    fn login(self: &Arc<Self>, identity: Arc<Identity>) -> Result<Login, Refusal> {
        let mut table = self.table();
        let usage = table.usage.entry(identity.id.clone()).or_insert_with(|| Usage {
            logins: 0,
            streams: Meter::new(self.limits.streams_per_identity),
        });
        if usage.logins >= self.limits.sessions_per_identity {
            return Err(Refusal::IdentityLimit);
        }
        usage.logins += 1;
        let streams = usage.streams.clone();
        let id = self.next();
        let revoked = CancellationToken::new();
        table.logins.insert(id, (identity.clone(), revoked.clone()));
        drop(table);
        let place = Some(LoginPlace { id, sessions: self.clone() });
        Ok(Login { identity, revoked, streams: Some(streams), _place: place })
    }

    fn logout(&self, id: u64) {
        let mut table = self.table();
        let Some((identity, _)) = table.logins.remove(&id) else { return };
        if let Some(usage) = table.usage.get_mut(&identity.id) {
            usage.logins -= 1;
            if usage.logins == 0 {
                table.usage.remove(&identity.id);
            }
        }
    }

    fn logins(&self) -> Vec<(Arc<Identity>, CancellationToken)> {
        self.table()
            .logins
            .values()
            .filter(|(_, revoked)| !revoked.is_cancelled())
            .cloned()
            .collect()
    }

    /// Ends the logins that `over` picks; how many there were.
    pub(crate) fn end(&self, over: impl Fn(&Identity) -> bool) -> usize {
        let logins = self.logins();
        let ended = logins.iter().filter(|(identity, _)| over(identity));
        ended.map(|(_, revoked)| revoke(revoked)).count()
    }

    pub(crate) fn end_expired(&self, now: SystemTime) -> usize {
        self.end(|identity| identity.valid_until.is_some_and(|end| end <= now))
    }

    /// Ends the logins whose credential does not hold any more, or not for as much; how many
    /// there were, and whether all could be verified. Older logins end first: a session that
    /// has to end as a whole must not seem done because a login inside it has just ended.
    pub(crate) async fn recheck(&self, identities: &dyn IdentityProvider) -> (usize, bool) {
        let mut verdicts: HashMap<Credential, Option<Identity>> = HashMap::new();
        let (mut ended, mut whole) = (0, true);
        for (identity, revoked) in self.logins() {
            if !verdicts.contains_key(&identity.credential) {
                match identities.by_credential(&identity.credential).await {
                    Ok(now) => drop(verdicts.insert(identity.credential.clone(), now)),
                    Err(error) => {
                        unverified(&error);
                        whole = false;
                        continue;
                    }
                }
            }
            let now = verdicts.get(&identity.credential).and_then(Option::as_ref);
            if !now.is_some_and(|now| still(&identity, now)) {
                revoke(&revoked);
                ended += 1;
            }
        }
        (ended, whole)
    }
}

fn revoke(login: &CancellationToken) {
    metrics::counter!("alknet_revocations_total").increment(1);
    login.cancel();
}

/// Whether what a login stands on is still all there.
fn still(then: &Identity, now: &Identity) -> bool {
    then.id == now.id && then.scopes.within(&now.scopes)
}

fn unverified(error: &ProviderError) {
    tracing::error!(%error, cause = ?std::error::Error::source(error), "a live session could not be verified again");
}

/// The node's account of one session, for whoever authenticates inside it: a handler whose
/// protocol has logins of its own reports them here, so that limits and revocation hold for
/// them too.
///
/// Cheap to clone. The default one belongs to no node: every login is good for ever.
#[derive(Clone, Default)]
pub struct SessionHandle {
    sessions: Option<Arc<Sessions>>,
    id: Option<u64>,
}

impl SessionHandle {
    pub(crate) fn new(sessions: &Arc<Sessions>) -> Self {
        Self { sessions: Some(sessions.clone()), id: None }
    }

    /// The handle of the session with this number.
    pub(crate) fn of(self, id: u64) -> Self {
        Self { id: Some(id), ..self }
    }

    /// The number that [`Session::id`] shows, once the session has its place on the node.
    pub fn id(&self) -> Option<u64> {
        self.id
    }

    /// Registers somebody who has proven who they are, within the limits of their identity.
    pub fn login(&self, identity: Arc<Identity>) -> Result<Login, Refusal> {
        match &self.sessions {
            Some(sessions) => sessions.login(identity),
            None => Ok(Login {
                identity,
                revoked: CancellationToken::new(),
                streams: None,
                _place: None,
            }),
        }
    }

    /// Reports that somebody failed to authenticate: one wrong bearer token, one login that
    /// came to nothing. Too many, and their address is turned away for a while. The line in
    /// the log is the one that tools such as fail2ban read: the address stands before
    /// anything that the peer can choose.
    pub fn failed(&self, auth: &AuthContext, reason: &dyn fmt::Display) {
        let Some(peer) = auth.remote_addr.map(|addr| addr.ip().to_canonical()) else { return };
        let (alpn, transport) = (auth.alpn.as_str(), auth.transport.name());
        let reason = reason.to_string();
        tracing::warn!(target: "alknet::auth", alpn, transport, ?reason, "authentication failed from {peer}:");
        metrics::counter!("alknet_authentication_failures_total", "alpn" => auth.alpn.to_string(), "transport" => transport).increment(1);
        if let Some(sessions) = &self.sessions {
            sessions.addresses.failed(peer);
        }
    }

    /// Whether the caller's address is turned away for failures to authenticate: nothing
    /// it presents is looked at.
    pub fn is_banned(&self, auth: &AuthContext) -> bool {
        let (Some(sessions), Some(peer)) = (&self.sessions, auth.remote_addr) else { return false };
        sessions.addresses.is_banned(peer.ip())
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionHandle")
    }
}

/// Somebody's place on the node, from their login until this is dropped.
#[must_use = "a login that is dropped is over"]
pub struct Login {
    identity: Arc<Identity>,
    revoked: CancellationToken,
    streams: Option<Meter>,
    _place: Option<LoginPlace>,
}

struct LoginPlace {
    id: u64,
    sessions: Arc<Sessions>,
}

impl Drop for LoginPlace {
    fn drop(&mut self) {
        self.sessions.logout(self.id);
    }
}

impl Login {
    /// Who it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Waits until the credential does not hold any more: the session has to end, with
    /// [`Code::REVOKED`](crate::Code::REVOKED). Cancel safe.
    pub async fn revoked(&self) {
        self.revoked.cancelled().await;
    }

    /// Whether [`revoked`](Self::revoked) would return at once.
    pub fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    pub(crate) fn streams(&self) -> Option<&Meter> {
        self.streams.as_ref()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("identity", &self.identity).finish_non_exhaustive()
    }
}
