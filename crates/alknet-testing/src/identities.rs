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
    Alpn, BoxFuture, Identity, IdentityProvider, KeyFingerprint, ProviderError, Scopes, Secret,
    TicketRefusal,
};

/// An identity called `name` with these scopes.
pub fn identity(name: &str, scopes: &[&str]) -> Identity {
    Identity {
        id: format!("id-{name}"),
        name: name.into(),
        scopes: scopes.iter().copied().collect::<Scopes>(),
    }
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
    tokens: HashMap<[u8; 32], Identity>,
    tickets: HashMap<[u8; 32], Ticket>,
    broken: bool,
}

struct Ticket {
    identity: Identity,
    alpn: Alpn,
    used: bool,
    expired: bool,
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
        self.state().keys.insert(key, identity);
    }

    /// Adds the holder of a bearer token.
    pub fn add_token(&self, token: &str, identity: Identity) {
        self.state().tokens.insert(Secret::new(token).hash(), identity);
    }

    /// Forgets a key.
    pub fn revoke_key(&self, key: &KeyFingerprint) {
        self.state().keys.remove(key);
    }

    /// Issues a ticket at once.
    pub fn ticket(&self, identity: &Identity, alpn: &Alpn) -> Secret {
        let number = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let secret = Secret::new(format!("ticket-{number:032}"));
        let ticket =
            Ticket { identity: identity.clone(), alpn: alpn.clone(), used: false, expired: false };
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

    fn look_up<T>(&self, f: impl FnOnce(&mut State) -> T) -> Result<T, ProviderError> {
        let mut state = self.state();
        if state.broken {
            return Err(ProviderError::new("the test broke the store"));
        }
        Ok(f(&mut state))
    }
}

impl State {
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
        Ok(ticket.identity.clone())
    }
}

impl IdentityProvider for Identities {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { self.look_up(|state| state.keys.get(key).cloned()) })
    }

    fn by_token<'a>(
        &'a self,
        token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { self.look_up(|state| state.tokens.get(&token.hash()).cloned()) })
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
