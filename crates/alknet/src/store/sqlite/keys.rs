//! The keys of peers: those that the owner added, and those that browsers authorised for as
//! long as their session lasts.

use alknet_core::{Credential, Identity, KeyFingerprint, Scopes};

use super::{
    Sqlite, Write,
    peers::changeable,
    revisions::{self, Ended},
    scopes,
};
use crate::{
    peer_key::PeerKey,
    store::{By, PeerError, StoreError, model::MAX_KEYS, moment, now},
};

/// What a key is good for.
pub(super) struct Grant<'a> {
    pub(super) scopes: &'a Scopes,
    /// The id of the session that it ends with.
    pub(super) session: Option<&'a str>,
}

impl Sqlite {
    /// Adds a key to whoever is signed in, with what they may do at this moment and for as
    /// long as their session lasts. Tells whether it was not there before, or was there for
    /// another session.
    pub(crate) async fn add_session_key(
        &self,
        identity: &Identity,
        key: &PeerKey,
    ) -> Result<bool, PeerError> {
        let Credential::Token(session) = &identity.credential else {
            return Err(PeerError::NoSession);
        };
        let mut tx = self.write().await?;
        let (open,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM tokens
             WHERE id = $1 AND peer = $2 AND kind = 'session' AND expires_at > $3",
        )
        .bind(session)
        .bind(&identity.id)
        .bind(now())
        .fetch_one(&mut *tx)
        .await?;
        if open == 0 {
            return Err(PeerError::NoSession);
        }
        let grant = Grant { scopes: &identity.scopes, session: Some(session) };
        let new = insert(&mut tx, &identity.id, key, &grant).await?;
        tx.commit().await?;
        Ok(new)
    }

    /// Whose key this is, with what it may do and for how long.
    pub(super) async fn holder_of_key(
        &self,
        key: &KeyFingerprint,
    ) -> Result<Option<Identity>, StoreError> {
        let row: Option<(String, String, String, String, Option<i64>)> = sqlx::query_as(
            "SELECT peers.id, peers.name, peers.scopes, peer_keys.scopes, tokens.expires_at
             FROM peer_keys JOIN peers ON peers.id = peer_keys.peer
             LEFT JOIN tokens ON tokens.id = peer_keys.token
             WHERE peer_keys.fingerprint = $1
               AND (peer_keys.token IS NULL OR tokens.expires_at > $2)",
        )
        .bind(key.to_string())
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        match (row, key) {
            (Some((id, name, limit, granted, end)), _) => {
                let scopes = scopes(&granted).common(&scopes(&limit));
                let identity = Identity::new(id, name, scopes, Credential::Key(*key));
                Ok(Some(Identity { valid_until: end.map(moment), ..identity }))
            }
            (None, KeyFingerprint::Ed25519(_)) => self.holder_of_derived_key(key).await,
            (None, _) => Ok(None),
        }
    }

    /// Removes one key of a peer.
    pub(crate) async fn remove_key(
        &self,
        by: By<'_>,
        name: &str,
        key: &KeyFingerprint,
    ) -> Result<(), PeerError> {
        let mut tx = self.write().await?;
        let peer = changeable(&mut tx, by, name).await?;
        let peer = peer.ok_or_else(|| PeerError::Unknown(name.into()))?;
        let id = key.to_string();
        let gone: Option<(String, String, i64)> = sqlx::query_as(
            "DELETE FROM peer_keys WHERE peer = $1 AND fingerprint = $2
             RETURNING comment, scopes, created_at",
        )
        .bind(&peer)
        .bind(&id)
        .fetch_optional(&mut *tx)
        .await?;
        let (comment, scopes, created_at) =
            gone.ok_or_else(|| PeerError::UnknownKey(name.into()))?;
        let ended = Ended {
            kind: "key",
            id: &id,
            name: &comment,
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

/// Tells whether it changed anything: whether the key is new to the peer, or was good for
/// another session. What the owner added stays as it is.
pub(super) async fn insert(
    tx: &mut Write,
    peer: &str,
    key: &PeerKey,
    grant: &Grant<'_>,
) -> Result<bool, PeerError> {
    forget_if_over(tx, key).await?;
    let holder: Option<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT peers.id, peers.name, peer_keys.token
         FROM peer_keys JOIN peers ON peers.id = peer_keys.peer
         WHERE peer_keys.fingerprint = $1",
    )
    .bind(key.fingerprint.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    match holder {
        Some((holder, _, session)) if holder == peer => {
            if session.is_none() || session.as_deref() == grant.session {
                return Ok(false);
            }
            rebind(tx, key, grant).await?;
            return Ok(true);
        }
        Some((_, peer, _)) => return Err(PeerError::KeyTaken { key: key.fingerprint, peer }),
        None => {}
    }
    let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM peer_keys WHERE peer = $1")
        .bind(peer)
        .fetch_one(&mut **tx)
        .await?;
    if count >= MAX_KEYS {
        return Err(PeerError::TooManyKeys);
    }
    sqlx::query(
        "INSERT INTO peer_keys
             (fingerprint, peer, scopes, kind, comment, openssh, created_at, token)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(key.fingerprint.to_string())
    .bind(peer)
    .bind(grant.scopes.to_string())
    .bind(&key.kind)
    .bind(&key.comment)
    .bind(&key.openssh)
    .bind(now())
    .bind(grant.session)
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// A key whose session has expired is nobody's.
async fn forget_if_over(tx: &mut Write, key: &PeerKey) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM peer_keys WHERE fingerprint = $1
           AND token IN (SELECT id FROM tokens WHERE expires_at <= $2)",
    )
    .bind(key.fingerprint.to_string())
    .bind(now())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// From now on it ends with another session, or with none.
async fn rebind(tx: &mut Write, key: &PeerKey, grant: &Grant<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE peer_keys SET token = $2, scopes = $3 WHERE fingerprint = $1")
        .bind(key.fingerprint.to_string())
        .bind(grant.session)
        .bind(grant.scopes.to_string())
        .execute(&mut **tx)
        .await?;
    revisions::count(tx).await?;
    Ok(())
}
