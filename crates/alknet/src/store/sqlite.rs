//! The store in SQLite, in a file of the state folder.

mod authorities;
mod keys;
mod peers;
mod provider;
mod revisions;
mod schema;
mod signin;
mod tickets;
mod tokens;

use std::{sync::Arc, time::Duration};

use alknet_core::{BoxFuture, Identity, KeyFingerprint, Scopes, Secret};
use sqlx::{
    Sqlite as Driver, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use self::revisions::Watcher;
use super::{
    Added, Answer, By, IdentityStore, NewToken, Peer, PeerChange, PeerError, Revocation, SignIn,
    SignInRefusal, StoreError, Token, TokenError,
};
use crate::{home::Home, keys::KeyError, peer_key::PeerKey};

/// The name of the database in the state folder.
pub(super) const FILE: &str = "node.db";
/// How long a writer waits for another one.
const BUSY: Duration = Duration::from_secs(10);

/// A transaction that writes, and waits for other writers when it begins.
type Write = Transaction<'static, Driver>;

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sqlite {
    /// Its writes survive the end of the process.
    pub(super) pool: SqlitePool,
    /// Its writes survive a loss of power.
    pub(super) durable: SqlitePool,
    /// Sees what all other connections change.
    watcher: Arc<Watcher>,
}

impl Sqlite {
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
            durable: pool(1, options.clone().synchronous(SqliteSynchronous::Full)),
            watcher: Arc::new(Watcher::new(options)),
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
        self.watcher.close().await;
        self.durable.close().await;
        self.pool.close().await;
    }

    /// Adds many peers with a key and a token each, in one go; gives the tokens.
    pub(crate) async fn fill(
        &self,
        count: usize,
    ) -> Result<Vec<Secret>, Box<dyn std::error::Error>> {
        let (mut tx, mut secrets) = (self.write().await?, Vec::with_capacity(count));
        let all = Scopes::all();
        let grant = keys::Grant { scopes: &all, session: None };
        for index in 0..count {
            let peer = peers::insert_peer(&mut tx, &format!("peer {index}"), &all).await?;
            let key = PeerKey::parse(&crate::bench::key(index).to_string())?;
            keys::insert(&mut tx, &peer, &key, &grant).await?;
            let (kind, name, lifetime) = (tokens::Kind::Token, "token", None);
            let row = tokens::Row { kind, name, peer: &peer, scopes: &all, lifetime };
            secrets.push(tokens::insert(&mut tx, &row).await?.0);
        }
        tx.commit().await?;
        Ok(secrets)
    }

    async fn write(&self) -> Result<Write, sqlx::Error> {
        self.durable.begin_with("BEGIN IMMEDIATE").await
    }
}

impl IdentityStore for Sqlite {
    fn peers(&self) -> Answer<'_, Vec<Peer>> {
        Box::pin(self.peers())
    }

    fn peer<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Peer>> {
        Box::pin(self.peer(name))
    }

    fn add_peer<'a>(
        &'a self,
        name: &'a str,
        change: PeerChange<'a>,
    ) -> Answer<'a, Added, PeerError> {
        Box::pin(self.add_peer(name, change))
    }

    fn add_session_key<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a PeerKey,
    ) -> Answer<'a, bool, PeerError> {
        Box::pin(self.add_session_key(identity, key))
    }

    fn remove_peer<'a>(&'a self, by: By<'a>, name: &'a str) -> Answer<'a, (), PeerError> {
        Box::pin(self.remove_peer(by, name))
    }

    fn remove_key<'a>(
        &'a self,
        by: By<'a>,
        name: &'a str,
        key: &'a KeyFingerprint,
    ) -> Answer<'a, (), PeerError> {
        Box::pin(self.remove_key(by, name, key))
    }

    fn remove_authority<'a>(
        &'a self,
        by: By<'a>,
        name: &'a str,
        authority: &'a KeyFingerprint,
        principal: Option<&'a str>,
    ) -> Answer<'a, (), PeerError> {
        Box::pin(self.remove_authority(by, name, authority, principal))
    }

    fn tokens(&self) -> Answer<'_, Vec<Token>> {
        Box::pin(self.tokens())
    }

    fn ended_tokens(&self) -> Answer<'_, Vec<Token>> {
        Box::pin(self.ended_tokens())
    }

    fn create_token<'a>(&'a self, new: NewToken<'a>) -> Answer<'a, (Secret, Token), TokenError> {
        Box::pin(self.create_token(new))
    }

    fn revoke<'a>(&'a self, by: By<'a>, id: &'a str) -> Answer<'a, (), TokenError> {
        Box::pin(self.revoke(by, id))
    }

    fn revocation<'a>(&'a self, of: &'a str) -> Answer<'a, Option<Revocation>> {
        Box::pin(self.revocation(of))
    }

    fn create_signin(&self) -> Answer<'_, Secret> {
        Box::pin(self.create_signin())
    }

    fn signin<'a>(&'a self, link: &'a Secret) -> Answer<'a, Result<SignIn, SignInRefusal>> {
        Box::pin(self.signin(link))
    }

    fn signout<'a>(&'a self, session: &'a Secret) -> Answer<'a, bool> {
        Box::pin(self.signout(session))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close())
    }
}

fn pool(size: u32, options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new().max_connections(size).acquire_timeout(BUSY).connect_lazy_with(options)
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

/// Text that is no scope grants nothing.
fn scopes(text: &str) -> Scopes {
    text.split(',').collect()
}
