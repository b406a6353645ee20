//! Whom the node knows by key.

use std::collections::HashMap;

use alknet_core::Scopes;

use super::{
    Sqlite, Write, authorities, fresh_id,
    keys::{self, Grant},
    revisions::{self, Ended},
    scopes, tokens,
};
use crate::store::{
    Added, By, OWNER, Peer, PeerChange, PeerError, StoreError,
    model::{StoredAuthority, StoredKey},
    now,
};

type PeerRow = (String, String, String, i64);
type KeyRow = (String, String, String, String, String, Option<String>, i64);

impl Sqlite {
    /// Every peer, by name.
    pub(crate) async fn peers(&self) -> Result<Vec<Peer>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut keys: HashMap<String, Vec<StoredKey>> = HashMap::new();
        let rows: Vec<KeyRow> = sqlx::query_as(
            "SELECT peer, fingerprint, kind, comment, scopes, openssh, created_at
             FROM peer_keys
             WHERE token IS NULL OR token IN (SELECT id FROM tokens WHERE expires_at > $1)
             ORDER BY created_at, fingerprint",
        )
        .bind(now())
        .fetch_all(&mut *tx)
        .await?;
        for row in rows {
            keys.entry(row.0.clone()).or_default().push(key(row));
        }
        let mut authorities = authorities::of_all(&mut tx).await?;
        let rows: Vec<PeerRow> =
            sqlx::query_as("SELECT id, name, scopes, created_at FROM peers ORDER BY name")
                .fetch_all(&mut *tx)
                .await?;
        let whole = |row: PeerRow| {
            let keys = keys.remove(&row.0).unwrap_or_default();
            let authorities = authorities.remove(&row.0).unwrap_or_default();
            peer(row, keys, authorities)
        };
        Ok(rows.into_iter().map(whole).collect())
    }

    /// The peer of this name or id.
    pub(crate) async fn peer(&self, name: &str) -> Result<Option<Peer>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let row: Option<PeerRow> = sqlx::query_as(
            "SELECT id, name, scopes, created_at FROM peers WHERE name = $1 OR id = $1
             ORDER BY CASE WHEN name = $1 THEN 0 ELSE 1 END LIMIT 1",
        )
        .bind(name)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let keys: Vec<KeyRow> = sqlx::query_as(
            "SELECT peer, fingerprint, kind, comment, scopes, openssh, created_at
             FROM peer_keys
             WHERE peer = $1
               AND (token IS NULL OR token IN (SELECT id FROM tokens WHERE expires_at > $2))
             ORDER BY created_at, fingerprint",
        )
        .bind(&row.0)
        .bind(now())
        .fetch_all(&mut *tx)
        .await?;
        let authorities = authorities::of_one(&mut tx, &row.0).await?;
        Ok(Some(peer(row, keys.into_iter().map(key).collect(), authorities)))
    }

    /// Adds a peer, or keys and authorities to one that is there.
    pub(crate) async fn add_peer(
        &self,
        name: &str,
        change: PeerChange<'_>,
    ) -> Result<Added, PeerError> {
        let mut tx = self.write().await?;
        if !change.scopes.is_none_or(|granted| change.by.may_all(granted)) {
            return Err(PeerError::GrantsMore);
        }
        let (id, new) = match (changeable(&mut tx, change.by, name).await?, change.scopes) {
            (Some(id), None) => (id, false),
            (Some(id), Some(_)) if id == OWNER => return Err(PeerError::Owner),
            (Some(id), Some(granted)) => {
                set_scopes(&mut tx, &id, granted).await?;
                (id, false)
            }
            (None, Some(granted)) => (insert_peer(&mut tx, name, granted).await?, true),
            (None, None) => return Err(PeerError::NoScopes(name.into())),
        };
        let mut added = Added { new, keys: 0, principals: 0 };
        // Not more than who adds it may do, also when the peer is given more later.
        let most = change.by.limit.cloned().unwrap_or_else(Scopes::all);
        let grant = Grant { scopes: &most, session: None };
        for key in change.keys {
            added.keys += usize::from(keys::insert(&mut tx, &id, key, &grant).await?);
        }
        for authority in change.authorities {
            added.principals += authorities::insert(&mut tx, &id, authority, &most).await?;
        }
        tx.commit().await?;
        Ok(added)
    }

    /// Removes a peer with its keys, authorities and tokens.
    pub(crate) async fn remove_peer(&self, by: By<'_>, name: &str) -> Result<(), PeerError> {
        if name == OWNER {
            return Err(PeerError::Owner);
        }
        let mut tx = self.write().await?;
        if let Some(id) = changeable(&mut tx, by, name).await? {
            tokens::end_all(&mut tx, by, &id).await?;
        }
        let gone: Option<(String, String, i64)> =
            sqlx::query_as("DELETE FROM peers WHERE name = $1 RETURNING id, scopes, created_at")
                .bind(name)
                .fetch_optional(&mut *tx)
                .await?;
        let (id, scopes, created_at) = gone.ok_or_else(|| PeerError::Unknown(name.into()))?;
        let ended = Ended {
            kind: "peer",
            id: &id,
            name,
            peer: name,
            scopes: &scopes,
            created_at,
            by: by.name,
        };
        revisions::remember(&mut tx, ended).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn peer(
    (id, name, granted, created_at): PeerRow,
    keys: Vec<StoredKey>,
    authorities: Vec<StoredAuthority>,
) -> Peer {
    Peer { id, name, scopes: scopes(&granted), created_at, keys, authorities }
}

fn key((_, fingerprint, kind, comment, granted, openssh, created_at): KeyRow) -> StoredKey {
    StoredKey { fingerprint, kind, comment, scopes: scopes(&granted), openssh, created_at }
}

/// The id of a peer, if there is one of this name, which has to be one that `by` may change.
pub(super) async fn changeable(
    tx: &mut Write,
    by: By<'_>,
    name: &str,
) -> Result<Option<String>, PeerError> {
    let row: Option<(String, String)> =
        sqlx::query_as("SELECT id, scopes FROM peers WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut **tx)
            .await?;
    match row {
        Some((_, held)) if !by.may_all(&scopes(&held)) => Err(PeerError::Beyond(name.into())),
        row => Ok(row.map(|(id, _)| id)),
    }
}

pub(super) async fn insert_peer(
    tx: &mut Write,
    name: &str,
    granted: &Scopes,
) -> Result<String, StoreError> {
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
    revisions::count(tx).await?;
    Ok(())
}
