//! Whom the node knows by key.

use std::collections::HashMap;

use alknet_core::{Identity, KeyFingerprint, Scopes};
use serde::Serialize;
use sqlx::{Sqlite, Transaction};

use super::{OWNER, Store, StoreError, fresh_id, now, scopes};
use crate::peer_key::PeerKey;

/// How many keys one peer may have.
const MAX_KEYS: i64 = 64;

/// A peer and its keys.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Peer {
    /// Stays when keys and name change.
    pub(crate) id: String,
    /// What the owner calls it.
    pub(crate) name: String,
    /// What it may do.
    #[serde(serialize_with = "as_list")]
    pub(crate) scopes: Scopes,
    /// When it was added, in seconds since 1970.
    pub(crate) created_at: i64,
    /// Its keys, the oldest first.
    pub(crate) keys: Vec<StoredKey>,
}

/// One key of a peer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StoredKey {
    /// `ed25519:<hex>` or `SHA256:<base64>`.
    pub(crate) fingerprint: String,
    /// Its algorithm.
    pub(crate) kind: String,
    /// Where it comes from.
    pub(crate) comment: String,
    /// What it may do, where that is less than what its peer may.
    #[serde(serialize_with = "as_list")]
    pub(crate) scopes: Scopes,
    /// The OpenSSH line, if it is such a key.
    pub(crate) openssh: Option<String>,
    /// When it was added, in seconds since 1970.
    pub(crate) created_at: i64,
}

pub(super) fn as_list<S: serde::Serializer>(
    scopes: &Scopes,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scopes.iter())
}

/// What adding a peer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    /// The peer is new.
    pub(crate) new: bool,
    /// So many keys are new.
    pub(crate) keys: usize,
}

/// A peer cannot be changed so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PeerError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A new peer may do nothing yet.
    #[error("the peer {0} is new and needs scopes")]
    NoScopes(String),
    /// The key identifies another peer.
    #[error("the key {key} belongs to the peer {peer}")]
    KeyTaken {
        /// The key.
        key: KeyFingerprint,
        /// Its peer.
        peer: String,
    },
    /// There is no such peer.
    #[error("there is no peer {0}")]
    Unknown(String),
    /// The peer has no such key.
    #[error("the peer {0} has no such key")]
    UnknownKey(String),
    /// The owner can do everything, always.
    #[error("the owner can be neither removed nor given other scopes")]
    Owner,
    /// A bound against a store that grows without end.
    #[error("a peer has {MAX_KEYS} keys at most")]
    TooManyKeys,
}

impl From<sqlx::Error> for PeerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

type Write = Transaction<'static, Sqlite>;
type KeyRow = (String, String, String, String, String, Option<String>, i64);

impl Store {
    /// Every peer, by name.
    pub(crate) async fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut keys: HashMap<String, Vec<StoredKey>> = HashMap::new();
        let rows: Vec<KeyRow> = sqlx::query_as(
            "SELECT peer, fingerprint, kind, comment, scopes, openssh, created_at
             FROM peer_keys ORDER BY created_at, fingerprint",
        )
        .fetch_all(&mut *tx)
        .await?;
        for (peer, fingerprint, kind, comment, granted, openssh, created_at) in rows {
            let scopes = scopes(&granted);
            let key = StoredKey { fingerprint, kind, comment, scopes, openssh, created_at };
            keys.entry(peer).or_default().push(key);
        }
        let rows: Vec<(String, String, String, i64)> =
            sqlx::query_as("SELECT id, name, scopes, created_at FROM peers ORDER BY name")
                .fetch_all(&mut *tx)
                .await?;
        let peer = |(id, name, granted, created_at): (String, String, String, i64)| {
            let keys = keys.remove(&id).unwrap_or_default();
            Peer { id, name, scopes: scopes(&granted), created_at, keys }
        };
        Ok(rows.into_iter().map(peer).collect())
    }

    /// Adds a peer, or keys to one that is there. `granted` replaces what it may do.
    pub(crate) async fn add_peer(
        &self,
        name: &str,
        keys: &[PeerKey],
        granted: Option<&Scopes>,
    ) -> Result<Added, PeerError> {
        let mut tx = self.write().await?;
        let (id, new) = match (peer_id(&mut tx, name).await?, granted) {
            (Some(id), None) => (id, false),
            (Some(id), Some(_)) if id == OWNER => return Err(PeerError::Owner),
            (Some(id), Some(granted)) => {
                set_scopes(&mut tx, &id, granted).await?;
                (id, false)
            }
            (None, Some(granted)) => (insert_peer(&mut tx, name, granted).await?, true),
            (None, None) => return Err(PeerError::NoScopes(name.into())),
        };
        let mut added = 0;
        for key in keys {
            added += usize::from(insert_key(&mut tx, &id, key, &Scopes::all()).await?);
        }
        tx.commit().await?;
        Ok(Added { new, keys: added })
    }

    /// Adds a key to somebody who is known, with what they may do at this moment. Tells
    /// whether it is new.
    pub(crate) async fn add_key_to_identity(
        &self,
        identity: &Identity,
        key: &PeerKey,
    ) -> Result<bool, PeerError> {
        let mut tx = self.write().await?;
        let (known,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM peers WHERE id = $1")
            .bind(&identity.id)
            .fetch_one(&mut *tx)
            .await?;
        if known == 0 {
            return Err(PeerError::Unknown(identity.name.clone()));
        }
        let new = insert_key(&mut tx, &identity.id, key, &identity.scopes).await?;
        tx.commit().await?;
        Ok(new)
    }

    /// Removes a peer with its keys, tokens and tickets.
    pub(crate) async fn remove_peer(&self, name: &str) -> Result<(), PeerError> {
        if name == OWNER {
            return Err(PeerError::Owner);
        }
        let done = sqlx::query("DELETE FROM peers WHERE name = $1")
            .bind(name)
            .execute(&self.durable)
            .await?;
        if done.rows_affected() == 0 {
            return Err(PeerError::Unknown(name.into()));
        }
        Ok(())
    }

    /// Removes one key of a peer.
    pub(crate) async fn remove_key(
        &self,
        name: &str,
        key: &KeyFingerprint,
    ) -> Result<(), PeerError> {
        let mut tx = self.write().await?;
        let id = peer_id(&mut tx, name).await?;
        let id = id.ok_or_else(|| PeerError::Unknown(name.into()))?;
        let done = sqlx::query("DELETE FROM peer_keys WHERE peer = $1 AND fingerprint = $2")
            .bind(&id)
            .bind(key.to_string())
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Err(PeerError::UnknownKey(name.into()));
        }
        drop_tickets(&mut tx, &id).await?;
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn write(&self) -> Result<Write, sqlx::Error> {
        self.durable.begin_with("BEGIN IMMEDIATE").await
    }
}

async fn peer_id(tx: &mut Write, name: &str) -> Result<Option<String>, sqlx::Error> {
    let row: Option<(String,)> = sqlx::query_as("SELECT id FROM peers WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.map(|(id,)| id))
}

async fn insert_peer(tx: &mut Write, name: &str, granted: &Scopes) -> Result<String, StoreError> {
    let id = fresh_id()?;
    sqlx::query("INSERT INTO peers (id, name, scopes, created_at) VALUES ($1, $2, $3, $4)")
        .bind(&id)
        .bind(name)
        .bind(granted.to_string())
        .bind(now())
        .execute(&mut **tx)
        .await?;
    Ok(id)
}

async fn set_scopes(tx: &mut Write, id: &str, granted: &Scopes) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE peers SET scopes = $2 WHERE id = $1")
        .bind(id)
        .bind(granted.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A ticket stands for a credential: it goes when one of its holder's goes.
pub(super) async fn drop_tickets(tx: &mut Write, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM tickets WHERE peer = $1 AND used_at IS NULL")
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Tells whether the key is new to the peer.
async fn insert_key(
    tx: &mut Write,
    id: &str,
    key: &PeerKey,
    granted: &Scopes,
) -> Result<bool, PeerError> {
    let holder: Option<(String, String)> = sqlx::query_as(
        "SELECT peers.id, peers.name FROM peer_keys JOIN peers ON peers.id = peer_keys.peer
         WHERE peer_keys.fingerprint = $1",
    )
    .bind(key.fingerprint.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    match holder {
        Some((holder, _)) if holder == id => return Ok(false),
        Some((_, peer)) => return Err(PeerError::KeyTaken { key: key.fingerprint, peer }),
        None => {}
    }
    let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM peer_keys WHERE peer = $1")
        .bind(id)
        .fetch_one(&mut **tx)
        .await?;
    if count >= MAX_KEYS {
        return Err(PeerError::TooManyKeys);
    }
    sqlx::query(
        "INSERT INTO peer_keys (fingerprint, peer, scopes, kind, comment, openssh, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(key.fingerprint.to_string())
    .bind(id)
    .bind(granted.to_string())
    .bind(&key.kind)
    .bind(&key.comment)
    .bind(&key.openssh)
    .bind(now())
    .execute(&mut **tx)
    .await?;
    Ok(true)
}
