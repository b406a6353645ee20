//! Whom the node knows: peers, their keys and authorities, tokens, sessions and tickets.
//!
//! The rest of the program holds a [`Store`], behind which is an [`IdentityStore`]: SQLite
//! in the state folder. All SQL of the program is below [`sqlite`], and but for the opening
//! and the watching it is portable.
//!
//! The command line and a running node share the database: what one changes holds for the
//! next look-up of the other, and [`IdentityProvider::version`] tells when live sessions have to
//! be looked at again. Secrets are kept as hashes.
//!
//! Changes that somebody was told of (a peer, a token) are on the disk when the call
//! returns. Tickets and the times of last use survive the end of the process, not a loss of
//! power.

mod model;
pub(crate) mod sqlite;

use std::{
    ops::Deref,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alknet_core::{
    Alpn, BoxFuture, Identity, IdentityProvider, KeyFingerprint, ProviderError, Secret,
    TicketRefusal,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

pub(crate) use self::model::{
    Added, Authority, By, NewToken, Peer, PeerChange, PeerError, Revocation, Revoked, SignIn,
    SignInRefusal, StoredAuthority, Token, TokenError,
};
use crate::{
    home::{Home, HomeError},
    keys::KeyError,
};

/// The identity of whoever has the state folder.
pub(crate) const OWNER: &str = "owner";
/// What every bearer token of ours begins with, so that secret scanners find them.
pub(crate) const TOKEN_PREFIX: &str = "alk_";

/// What a store answers, sooner or later.
pub(crate) type Answer<'a, T, E = StoreError> = BoxFuture<'a, Result<T, E>>;

/// One of the identity providers of a node.
pub(crate) trait Source: IdentityProvider {
    /// Uses up a ticket and gives the identity as it was when the ticket was issued, of
    /// whichever provider. Whether its credential still holds is for the caller to ask.
    fn take_ticket<'a>(
        &'a self,
        _ticket: &'a Secret,
        _alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async { Ok(Err(TicketRefusal::Unknown)) })
    }
}

/// A store of identities with everything that manages it.
pub(crate) trait IdentityStore: Source {
    /// Every peer, by name.
    fn peers(&self) -> Answer<'_, Vec<Peer>>;

    /// The peer of this name or id.
    fn peer<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Peer>>;

    /// Adds a peer, or keys and authorities to one that is there.
    fn add_peer<'a>(
        &'a self,
        name: &'a str,
        change: PeerChange<'a>,
    ) -> Answer<'a, Added, PeerError>;

    /// Adds a key to whoever is signed in, with what they may do at this moment and for as
    /// long as their session lasts. Tells whether it was not there before, or was there for
    /// another session. A key that the owner added stays as it is.
    fn add_session_key<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a crate::peer_key::PeerKey,
    ) -> Answer<'a, bool, PeerError>;

    /// Removes a peer with its keys, authorities and tokens.
    fn remove_peer<'a>(&'a self, by: By<'a>, name: &'a str) -> Answer<'a, (), PeerError>;

    /// Removes one key of a peer.
    fn remove_key<'a>(
        &'a self,
        by: By<'a>,
        name: &'a str,
        key: &'a KeyFingerprint,
    ) -> Answer<'a, (), PeerError>;

    /// Ends the trust of a peer in an authority: for one principal, or for all of its.
    fn remove_authority<'a>(
        &'a self,
        by: By<'a>,
        name: &'a str,
        authority: &'a KeyFingerprint,
        principal: Option<&'a str>,
    ) -> Answer<'a, (), PeerError>;

    /// The tokens and sessions that are not over, the oldest first.
    fn tokens(&self) -> Answer<'_, Vec<Token>>;

    /// The tokens that have expired, and the tokens and sessions that were revoked, as far
    /// back as the store remembers; the oldest first.
    fn ended_tokens(&self) -> Answer<'_, Vec<Token>>;

    /// Makes a token. The secret is returned this once: the store keeps its hash.
    fn create_token<'a>(&'a self, new: NewToken<'a>) -> Answer<'a, (Secret, Token), TokenError>;

    /// Ends a token or a session at once, and the keys that a session authorised.
    fn revoke<'a>(&'a self, by: By<'a>, id: &'a str) -> Answer<'a, (), TokenError>;

    /// When the peer, the key, the authority, the token or the session of this name or id
    /// was revoked last, if the store remembers it.
    fn revocation<'a>(&'a self, of: &'a str) -> Answer<'a, Option<Revocation>>;

    /// Makes the secret of a link that signs in as the owner: once, for 15 minutes.
    fn create_signin(&self) -> Answer<'_, Secret>;

    /// Uses up the secret of a link and begins a session: the second try is refused, even
    /// at the same moment.
    fn signin<'a>(&'a self, link: &'a Secret) -> Answer<'a, Result<SignIn, SignInRefusal>>;

    /// Ends a session, and with it the keys that it authorised; `false` where there was none.
    fn signout<'a>(&'a self, session: &'a Secret) -> Answer<'a, bool>;

    /// Ends the connections, so that the files are tidy. Without it nothing is lost.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// It could not be opened.
    #[error("the database {path} could not be opened")]
    Open {
        /// Its file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// A later version of this program made it.
    #[error("the database was made by a newer version of alknet")]
    Newer,
    /// No key could be derived, or there is no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Somebody asks for tickets faster than they can be used.
    #[error("there are too many open tickets of this identity")]
    TooManyTickets,
}

impl StoreError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::Newer => Some("update alknet, or give it another folder with --home".into()),
            _ => None,
        }
    }
}

/// The store of a state folder. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<dyn IdentityStore>);

impl Store {
    /// Opens it; makes it and brings it up to date if need be.
    pub(crate) async fn open(home: &Home) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(sqlite::Sqlite::open(home).await?)))
    }

    /// It as a provider of identities.
    pub(crate) fn source(&self) -> Arc<dyn Source> {
        self.0.clone()
    }
}

impl Deref for Store {
    type Target = dyn IdentityStore;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// Whom a ticket admits, given whom its credential stands for now: a ticket ends with what
/// it was issued to, and grants no more than that does.
pub(crate) fn redeemed(
    issued: &Identity,
    now: Option<Identity>,
) -> Result<Identity, TicketRefusal> {
    match now {
        Some(now) if now.id == issued.id => {
            let scopes = issued.scopes.common(&now.scopes);
            Ok(Identity { scopes, ..now })
        }
        _ => Err(TicketRefusal::Revoked),
    }
}

/// A new token of 256 random bits, which no store knows.
pub(crate) fn fresh_token() -> Result<Secret, KeyError> {
    fresh(TOKEN_PREFIX)
}

/// A secret of 256 random bits, in base64url after the prefix.
fn fresh(prefix: &str) -> Result<Secret, KeyError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| KeyError::Crypto)?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    Ok(Secret::new([prefix, &text].concat()))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// The moment so many seconds after the start of 1970.
fn moment(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// When something ends that lasts so long from now.
fn after(lifetime: Duration) -> i64 {
    now().saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(crate) mod tests;
