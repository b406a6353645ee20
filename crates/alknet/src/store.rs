//! Peers, their keys, tokens and tickets, in SQLite.
//!
//! The command line and a running node share the file: what one changes holds for the next
//! look-up of the other. Secrets are kept as hashes. All SQL of the program is in this
//! module, and but for the opening it is portable.
//!
//! Changes that somebody was told of (a peer, a token) are on the disk when the call
//! returns. Tickets and the times of last use survive the end of the process, not a loss of
//! power.

mod peers;
mod provider;
mod schema;
mod signin;
mod tickets;
mod tokens;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alknet_core::{Scopes, Secret};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use zeroize::Zeroizing;

use crate::{
    home::{Home, HomeError},
    keys::KeyError,
};

pub(crate) use self::{
    peers::{Added, Peer, PeerError},
    tokens::{NewToken, Token, TokenError},
};

/// The name of the database in the state folder.
const FILE: &str = "node.db";
/// How long a writer waits for another one.
const BUSY: Duration = Duration::from_secs(10);
/// The identity of whoever has the state folder.
pub(crate) const OWNER: &str = "owner";
/// What every bearer token of ours begins with, so that secret scanners find them.
pub(crate) const TOKEN_PREFIX: &str = "alk_";

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// Its writes survive the end of the process.
    pool: SqlitePool,
    /// Its writes survive a loss of power.
    durable: SqlitePool,
}

/// The database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// SQLite failed.
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
    /// An identity of another provider, of which nothing is kept here.
    #[error("the identity is not in the database")]
    UnknownIdentity,
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

impl Store {
    /// Opens the database of a state folder; makes it and brings it up to date if need be.
    pub(crate) async fn open(home: &Home) -> Result<Self, StoreError> {
        let path = home.path(FILE);
        // SQLite gives its other files the mode of this one.
        home.create(FILE, b"")?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .journal_mode(SqliteJournalMode::Wal);
        let store = Self {
            pool: pool(4, options.clone().synchronous(SqliteSynchronous::Normal)),
            durable: pool(1, options.synchronous(SqliteSynchronous::Full)),
        };
        // Two processes that make the tables or switch the journal get in each other's way
        // where SQLite's own waiting does not help.
        let _lock = home.lock(FILE)?;
        match schema::migrate(&store.durable).await {
            Err(StoreError::Database(source)) => Err(StoreError::Open { path, source }),
            done => done.map(|()| store),
        }
    }

    /// Ends the connections, so that the files are tidy. Without it nothing is lost.
    pub(crate) async fn close(&self) {
        self.durable.close().await;
        self.pool.close().await;
    }
}

fn pool(size: u32, options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new().max_connections(size).acquire_timeout(BUSY).connect_lazy_with(options)
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// When something ends that lasts so long from now.
fn after(lifetime: Duration) -> i64 {
    now().saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

/// A secret of 256 random bits, in base64url after the prefix.
fn fresh(prefix: &str) -> Result<Secret, StoreError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| KeyError::Crypto)?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    Ok(Secret::new([prefix, &text].concat()))
}

/// An id of 48 random bits.
fn fresh_id() -> Result<String, StoreError> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::Crypto)?;
    Ok(hex::encode(bytes))
}

/// What the store keeps of a secret.
fn hash(secret: &Secret) -> String {
    hex::encode(secret.hash())
}

fn scopes(text: &str) -> Scopes {
    text.split(',').collect()
}

/// What both grant.
fn common(a: &Scopes, b: &Scopes) -> Scopes {
    let in_b = a.iter().filter(|scope| b.allow(scope));
    in_b.chain(b.iter().filter(|scope| a.allow(scope))).collect()
}

#[cfg(test)]
mod tests;
