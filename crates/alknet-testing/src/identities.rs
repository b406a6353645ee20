//! An [`IdentityProvider`] in memory, with everything a test wants to arrange.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use alknet_core::{
    Alpn, BoxFuture, Credential, Identity, IdentityProvider, KeyFingerprint, ProviderError, Scopes,
    Secret, TicketRefusal,
};

/// An identity called `name` with these scopes.
pub fn identity(name: &str, scopes: &[&str]) -> Identity {
    let key = KeyFingerprint::of_openssh_blob(name.as_bytes());
    Identity::new(
        format!("id-{name}"),
        name,
        scopes.iter().copied().collect::<Scopes>(),
        Credential::Key(key),
    )
}

/// Keys, tokens and tickets in maps. Every change holds for the next look-up.
#[derive(Default)]
pub struct Identities {
    state: Mutex<State>,
    next_ticket: AtomicU64,
}

#[derive(Default)]
struct State {
    keys: HashMap<KeyFingerprint, Identity>,
    authorities: HashMap<(KeyFingerprint, String), Identity>,
    tokens: HashMap<[u8; 32], Identity>,
    tickets: HashMap<[u8; 32], Ticket>,
    broken: bool,
    version: u64,
}

struct Ticket {
    identity: Identity,
    alpn: Alpn,
    used: bool,
    expired: bool,
    revoked: bool,
}

impl Identities {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the holder of a key.
    #[must_use]
    pub fn with_key(self, key: KeyFingerprint, identity: Identity) -> Self {
        self.add_key(key, identity);
        self
    }

    /// With the holder of a bearer token (or of a session cookie).
    #[must_use]
    pub fn with_token(self, token: &str, identity: Identity) -> Self {
        self.add_token(token, identity);
        self
    }

    /// Adds the holder of a key.
    pub fn add_key(&self, key: KeyFingerprint, identity: Identity) {
        self.changed().keys.insert(key, identity);
    }

    /// Adds whom certificates by an authority stand for when they name a principal.
    pub fn add_authority(&self, key: KeyFingerprint, principal: &str, identity: Identity) {
        let credential = Credential::Authority { key, principal: principal.into() };
        let identity = Identity { credential, ..identity };
        self.changed().authorities.insert((key, principal.into()), identity);
    }

    /// Forgets an authority of a principal.
    pub fn revoke_authority(&self, key: &KeyFingerprint, principal: &str) {
        let mut state = self.changed();
        let gone = state.authorities.remove(&(*key, principal.to_owned()));
        state.forget(gone);
    }

    /// Adds the holder of a bearer token.
    pub fn add_token(&self, token: &str, identity: Identity) {
        self.changed().tokens.insert(Secret::new(token).hash(), identity);
    }

    /// Forgets a key.
    pub fn revoke_key(&self, key: &KeyFingerprint) {
        let mut state = self.changed();
        let gone = state.keys.remove(key);
        state.forget(gone);
    }

    /// Forgets a bearer token.
    pub fn revoke_token(&self, token: &str) {
        let mut state = self.changed();
        let gone = state.tokens.remove(&Secret::new(token).hash());
        state.forget(gone);
    }

    /// Issues a ticket at once.
    pub fn ticket(&self, identity: &Identity, alpn: &Alpn) -> Secret {
        let number = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let secret = Secret::new(format!("ticket-{number:032}"));
        let (identity, alpn) = (identity.clone(), alpn.clone());
        let ticket = Ticket { identity, alpn, used: false, expired: false, revoked: false };
        self.state().tickets.insert(secret.hash(), ticket);
        secret
    }

    /// Makes a ticket too old.
    pub fn expire_ticket(&self, ticket: &Secret) {
        if let Some(ticket) = self.state().tickets.get_mut(&ticket.hash()) {
            ticket.expired = true;
        }
    }

    /// Makes every look-up fail from now on, or work again.
    pub fn set_broken(&self, broken: bool) {
        self.state().broken = broken;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.version += 1;
        state
    }

    fn look_up<T>(&self, f: impl FnOnce(&mut State) -> T) -> Result<T, ProviderError> {
        let mut state = self.state();
        if state.broken {
            return Err(ProviderError::new("the test broke the store"));
        }
        Ok(f(&mut state))
    }
}

impl State {
    /// Whoever was recognised by this, if a key or a token of theirs is still there.
    fn current(&self, credential: &Credential) -> Option<Identity> {
        let others = self.tokens.values().chain(self.authorities.values());
        let mut all = self.keys.values().chain(others);
        all.find(|identity| identity.credential == *credential).cloned()
    }

    /// The tickets of a credential end with it.
    fn forget(&mut self, gone: Option<Identity>) {
        let Some(gone) = gone else { return };
        let of = |ticket: &&mut Ticket| ticket.identity.credential == gone.credential;
        self.tickets.values_mut().filter(of).for_each(|ticket| ticket.revoked = true);
    }

    fn redeem(&mut self, ticket: &Secret, alpn: &Alpn) -> Result<Identity, TicketRefusal> {
        let ticket = self.tickets.get_mut(&ticket.hash()).ok_or(TicketRefusal::Unknown)?;
        if ticket.used {
            return Err(TicketRefusal::Used);
        }
        ticket.used = true;
        if ticket.expired {
            return Err(TicketRefusal::Expired);
        }
        if ticket.alpn != *alpn {
            return Err(TicketRefusal::WrongAlpn);
        }
        if ticket.revoked {
            return Err(TicketRefusal::Revoked);
        }
        let issued = ticket.identity.clone();
        // Tests issue tickets to people of whom nothing else is known.
        let Some(now) = self.current(&issued.credential) else { return Ok(issued) };
        Ok(Identity { scopes: issued.scopes.common(&now.scopes), ..now })
    }
}

impl IdentityProvider for Identities {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { self.look_up(|state| state.keys.get(key).cloned()) })
    }

    fn by_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
        principals: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            self.look_up(|state| {
                let found = |it: &String| state.authorities.get(&(*authority, it.clone()));
                principals.iter().find_map(found).cloned()
            })
        })
    }

    fn knows_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async move {
            self.look_up(|state| state.authorities.keys().any(|(key, _)| key == authority))
        })
    }

    fn by_token<'a>(
        &'a self,
        token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { self.look_up(|state| state.tokens.get(&token.hash()).cloned()) })
    }

    fn by_credential<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { self.look_up(|state| state.current(credential)) })
    }

    fn version(&self) -> BoxFuture<'_, Result<u64, ProviderError>> {
        Box::pin(async { self.look_up(|state| state.version) })
    }

    fn redeem_ticket<'a>(
        &'a self,
        ticket: &'a Secret,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async move { self.look_up(|state| state.redeem(ticket, alpn)) })
    }

    fn issue_ticket<'a>(
        &'a self,
        identity: &'a Identity,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
        Box::pin(async move {
            self.look_up(|_| ())?;
            Ok(self.ticket(identity, alpn))
        })
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities")
    }
}
