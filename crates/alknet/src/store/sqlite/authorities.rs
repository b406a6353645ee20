//! Whom the node knows by certificate.

use std::collections::HashMap;

use alknet_core::{Credential, Identity, KeyFingerprint, Scopes};
use sqlx::SqliteConnection;

use super::{
    Sqlite, Write,
    peers::changeable,
    revisions::{self, Ended},
    scopes,
};
use crate::store::{
    Authority, By, PeerError, StoreError,
    model::{MAX_AUTHORITIES, StoredAuthority},
    now,
};

/// How many principals of a certificate are looked up, as many as OpenSSH reads.
const MAX_PRINCIPALS: usize = 256;

/// First the peer.
type Row = (String, String, String, String, String, String, i64);

impl Sqlite {
    /// Who is trusted through an authority for the first of these principals that anybody is
    /// trusted for.
    pub(super) async fn trusted_through(
        &self,
        authority: &KeyFingerprint,
        principals: &[String],
    ) -> Result<Option<Identity>, StoreError> {
        for principal in principals.iter().take(MAX_PRINCIPALS) {
            let row: Option<(String, String, String, String)> = sqlx::query_as(
                "SELECT peers.id, peers.name, peers.scopes, peer_authorities.scopes
                 FROM peer_authorities JOIN peers ON peers.id = peer_authorities.peer
                 WHERE peer_authorities.fingerprint = $1 AND peer_authorities.principal = $2",
            )
            .bind(authority.to_string())
            .bind(principal)
            .fetch_optional(&self.pool)
            .await?;
            if let Some((id, name, limit, granted)) = row {
                let scopes = scopes(&granted).common(&scopes(&limit));
                let credential =
                    Credential::Authority { key: *authority, principal: principal.clone() };
                return Ok(Some(Identity::new(id, name, scopes, credential)));
            }
        }
        Ok(None)
    }

    /// Whether any peer has this authority.
    pub(super) async fn is_authority(&self, key: &KeyFingerprint) -> Result<bool, StoreError> {
        let (count,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM peer_authorities WHERE fingerprint = $1")
                .bind(key.to_string())
                .fetch_one(&self.pool)
                .await?;
        Ok(count > 0)
    }

    /// Ends the trust of a peer in an authority: for one principal, or for all of its.
    pub(crate) async fn remove_authority(
        &self,
        by: By<'_>,
        name: &str,
        authority: &KeyFingerprint,
        principal: Option<&str>,
    ) -> Result<(), PeerError> {
        let mut tx = self.write().await?;
        let peer = changeable(&mut tx, by, name).await?;
        let peer = peer.ok_or_else(|| PeerError::Unknown(name.into()))?;
        let gone: Vec<(String, String, String, i64)> = sqlx::query_as(
            "DELETE FROM peer_authorities
             WHERE peer = $1 AND fingerprint = $2 AND (principal = $3 OR $3 IS NULL)
             RETURNING principal, comment, scopes, created_at",
        )
        .bind(&peer)
        .bind(authority.to_string())
        .bind(principal)
        .fetch_all(&mut *tx)
        .await?;
        if gone.is_empty() {
            return Err(PeerError::UnknownAuthority(name.into()));
        }
        for (principal, comment, scopes, created_at) in gone {
            let ended = Ended {
                kind: "authority",
                id: &format!("{authority} {principal}"),
                name: &comment,
                peer: name,
                scopes: &scopes,
                created_at,
                by: by.name,
            };
            revisions::remember(&mut tx, ended).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// The authorities of every peer, by its id.
pub(super) async fn of_all(
    connection: &mut SqliteConnection,
) -> Result<HashMap<String, Vec<StoredAuthority>>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT peer, fingerprint, principal, comment, scopes, openssh, created_at
         FROM peer_authorities ORDER BY created_at, fingerprint, principal",
    )
    .fetch_all(connection)
    .await?;
    let mut all: HashMap<String, Vec<StoredAuthority>> = HashMap::new();
    for row in rows {
        all.entry(row.0.clone()).or_default().push(authority(row));
    }
    Ok(all)
}

/// The authorities of one peer.
pub(super) async fn of_one(
    connection: &mut SqliteConnection,
    peer: &str,
) -> Result<Vec<StoredAuthority>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT peer, fingerprint, principal, comment, scopes, openssh, created_at
         FROM peer_authorities WHERE peer = $1 ORDER BY created_at, fingerprint, principal",
    )
    .bind(peer)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(authority).collect())
}

fn authority(
    (_, fingerprint, principal, comment, granted, openssh, created_at): Row,
) -> StoredAuthority {
    let scopes = scopes(&granted);
    StoredAuthority { fingerprint, principal, comment, scopes, openssh, created_at }
}

/// How many principals are new to the peer.
pub(super) async fn insert(
    tx: &mut Write,
    peer: &str,
    authority: &Authority,
    most: &Scopes,
) -> Result<usize, PeerError> {
    let mut added = 0;
    for principal in &authority.principals {
        added += usize::from(insert_principal(tx, peer, authority, principal, most).await?);
    }
    Ok(added)
}

async fn insert_principal(
    tx: &mut Write,
    id: &str,
    authority: &Authority,
    principal: &str,
    most: &Scopes,
) -> Result<bool, PeerError> {
    let fingerprint = authority.key.fingerprint;
    let holder: Option<(String, String)> = sqlx::query_as(
        "SELECT peers.id, peers.name
         FROM peer_authorities JOIN peers ON peers.id = peer_authorities.peer
         WHERE peer_authorities.fingerprint = $1 AND peer_authorities.principal = $2",
    )
    .bind(fingerprint.to_string())
    .bind(principal)
    .fetch_optional(&mut **tx)
    .await?;
    match holder {
        Some((holder, _)) if holder == id => return Ok(false),
        Some((_, peer)) => {
            let principal = principal.into();
            return Err(PeerError::PrincipalTaken { authority: fingerprint, principal, peer });
        }
        None => {}
    }
    let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM peer_authorities WHERE peer = $1")
        .bind(id)
        .fetch_one(&mut **tx)
        .await?;
    if count >= MAX_AUTHORITIES {
        return Err(PeerError::TooManyAuthorities);
    }
    sqlx::query(
        "INSERT INTO peer_authorities
             (fingerprint, principal, peer, scopes, openssh, comment, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(fingerprint.to_string())
    .bind(principal)
    .bind(id)
    .bind(most.to_string())
    .bind(authority.key.openssh.as_deref().unwrap_or_default())
    .bind(&authority.key.comment)
    .bind(now())
    .execute(&mut **tx)
    .await?;
    Ok(true)
}
