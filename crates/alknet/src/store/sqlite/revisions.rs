//! What was revoked, and how others come to know at once.

use alknet_core::Scopes;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::Mutex;

use super::{Sqlite, Write, scopes};
use crate::store::{Revocation, StoreError, Token, model::Revoked, now};

/// How many revocations are remembered.
const REMEMBERED: i64 = 10_000;

/// A connection of its own, which never writes and so sees the changes of all others.
#[derive(Debug)]
pub(super) struct Watcher {
    options: SqliteConnectOptions,
    state: Mutex<Option<Watch>>,
}

#[derive(Debug)]
struct Watch {
    connection: SqliteConnection,
    /// SQLite's own count of changes.
    version: i64,
    revision: u64,
}

impl Watcher {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self { options, state: Mutex::default() }
    }

    /// The revision of the database. Where nothing has changed since the last call, that is
    /// one look at memory that SQLite's processes share.
    pub(super) async fn revision(&self) -> Result<u64, StoreError> {
        let mut state = self.state.lock().await;
        // On the way out of here by an error or a drop there is none: the next call
        // begins anew.
        let mut watch = match state.take() {
            Some(watch) => watch,
            None => Watch { connection: self.options.connect().await?, version: -1, revision: 0 },
        };
        let (version,): (i64,) =
            sqlx::query_as("PRAGMA data_version").fetch_one(&mut watch.connection).await?;
        if version != watch.version {
            let (count,): (i64,) = sqlx::query_as("SELECT count FROM revision WHERE id = 0")
                .fetch_one(&mut watch.connection)
                .await?;
            watch.version = version;
            watch.revision = u64::try_from(count).unwrap_or_default();
        }
        let revision = watch.revision;
        *state = Some(watch);
        Ok(revision)
    }

    pub(super) async fn close(&self) {
        if let Some(watch) = self.state.lock().await.take() {
            // It only read.
            let _ = watch.connection.close().await;
        }
    }
}

/// What is revoked.
pub(super) struct Ended<'a> {
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    /// The name of the peer whose it was.
    pub(super) peer: &'a str,
    pub(super) scopes: &'a str,
    pub(super) created_at: i64,
    /// The name of who ended it.
    pub(super) by: &'a str,
}

/// Counts a change that can end a session. To be called in the transaction that makes it.
pub(super) async fn count(tx: &mut Write) -> Result<i64, sqlx::Error> {
    let (revision,) =
        sqlx::query_as("UPDATE revision SET count = count + 1 WHERE id = 0 RETURNING count")
            .fetch_one(&mut **tx)
            .await?;
    Ok(revision)
}

/// Remembers what was revoked, and counts the change.
pub(super) async fn remember(tx: &mut Write, ended: Ended<'_>) -> Result<(), sqlx::Error> {
    let revision = count(tx).await?;
    sqlx::query(
        "INSERT INTO revocations
             (revision, kind, id, name, peer, scopes, created_at, revoked_at, revoked_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(revision)
    .bind(ended.kind)
    .bind(ended.id)
    .bind(ended.name)
    .bind(ended.peer)
    .bind(ended.scopes)
    .bind(ended.created_at)
    .bind(now())
    .bind(ended.by)
    .execute(&mut **tx)
    .await?;
    // Not every revision is a revocation.
    sqlx::query(
        "DELETE FROM revocations WHERE revision <=
             (SELECT revision FROM revocations ORDER BY revision DESC LIMIT 1 OFFSET $1)",
    )
    .bind(REMEMBERED)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Sqlite {
    /// When the one of this id, or the peer of this name, was revoked last.
    pub(crate) async fn revocation(&self, of: &str) -> Result<Option<Revocation>, StoreError> {
        let row: Option<(String, String, String, i64, String)> = sqlx::query_as(
            "SELECT kind, id, peer, revoked_at, revoked_by FROM revocations
             WHERE id = $1 OR (kind = 'peer' AND name = $1)
             ORDER BY revision DESC LIMIT 1",
        )
        .bind(of)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(kind, id, peer, at, by)| Revocation {
            kind,
            id,
            peer,
            revoked: Revoked { at, by },
        }))
    }

    /// The tokens and sessions that were revoked.
    pub(super) async fn revoked_tokens(&self) -> Result<Vec<Token>, StoreError> {
        type Row = (String, String, String, String, String, i64, i64, String);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, kind, name, peer, scopes, created_at, revoked_at, revoked_by
             FROM revocations WHERE kind IN ('token', 'session')",
        )
        .fetch_all(&self.pool)
        .await?;
        let token = |(id, kind, name, peer, granted, created_at, at, by): Row| {
            let scopes: Scopes = scopes(&granted);
            let (expires_at, last_used_at) = (None, None);
            let revoked = Some(Revoked { at, by });
            Token { id, kind, name, peer, scopes, created_at, expires_at, last_used_at, revoked }
        };
        Ok(rows.into_iter().map(token).collect())
    }
}
