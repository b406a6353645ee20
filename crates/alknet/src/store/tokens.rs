//! Bearer tokens and the browser's sessions.

use std::time::Duration;

use alknet_core::{Identity, KeyFingerprint, Scopes, Secret};
use serde::Serialize;

use super::{
    Store, StoreError, TOKEN_PREFIX, after, common, fresh, fresh_id, hash, now,
    peers::{as_list, drop_tickets},
    scopes,
};
use crate::keys;

/// How exact the time of last use is, in seconds: a look-up seldom writes.
const LAST_USE_STEP: i64 = 60;
/// How long a session or a sign-in link is remembered after its end, in seconds.
const REMEMBERED: i64 = 24 * 60 * 60;

/// A token that is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewToken<'a> {
    /// What the owner calls it.
    pub(crate) name: &'a str,
    /// The name of the peer that it stands for.
    pub(crate) peer: &'a str,
    /// What it may do: no more than its peer at any time. `None`: what its peer may.
    pub(crate) scopes: Option<&'a Scopes>,
    /// How long it is good for; `None`: until it is revoked.
    pub(crate) lifetime: Option<Duration>,
}

/// A token or a session, without its secret.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Token {
    /// What it is revoked by.
    pub(crate) id: String,
    /// `token` or `session`.
    pub(crate) kind: String,
    /// What the owner calls it.
    pub(crate) name: String,
    /// The name of the peer that it stands for.
    pub(crate) peer: String,
    /// What it may do, as far as its peer may.
    #[serde(serialize_with = "as_list")]
    pub(crate) scopes: Scopes,
    /// Seconds since 1970.
    pub(crate) created_at: i64,
    /// Seconds since 1970; `None`: never.
    pub(crate) expires_at: Option<i64>,
    /// Seconds since 1970, to the minute; `None`: not yet.
    pub(crate) last_used_at: Option<i64>,
}

/// A token cannot be made or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such peer.
    #[error("there is no peer {0}")]
    UnknownPeer(String),
    /// A token may not do more than its peer.
    #[error("the peer {peer} may do no more than {scopes}")]
    Exceeds {
        /// The peer.
        peer: String,
        /// What it may do.
        scopes: Scopes,
    },
    /// There is no such token.
    #[error("there is no token {0}")]
    Unknown(String),
}

impl From<sqlx::Error> for TokenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What kinds of secret the table holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Token,
    Session,
    SignIn,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::SignIn => "signin",
        }
    }
}

/// One row of the table to be.
pub(super) struct Row<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    /// The id of the peer.
    pub(super) peer: &'a str,
    pub(super) scopes: &'a Scopes,
    pub(super) lifetime: Option<Duration>,
}

type TokenRow = (String, String, String, String, String, i64, Option<i64>, Option<i64>);

impl Store {
    /// Makes a token. The secret is returned this once: the store keeps its hash.
    pub(crate) async fn create_token(
        &self,
        new: NewToken<'_>,
    ) -> Result<(Secret, Token), TokenError> {
        let mut tx = self.write().await?;
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT id, scopes FROM peers WHERE name = $1")
                .bind(new.peer)
                .fetch_optional(&mut *tx)
                .await?;
        let (peer, granted) = row.ok_or_else(|| TokenError::UnknownPeer(new.peer.into()))?;
        let granted = scopes(&granted);
        let wanted = new.scopes.cloned().unwrap_or_else(Scopes::all);
        if new.scopes.is_some() && !wanted.within(&granted) {
            return Err(TokenError::Exceeds { peer: new.peer.into(), scopes: granted });
        }
        let row = Row {
            kind: Kind::Token,
            name: new.name,
            peer: &peer,
            scopes: &wanted,
            lifetime: new.lifetime,
        };
        let (secret, id) = insert(&mut tx, &row).await?;
        tx.commit().await?;
        let token = Token {
            id,
            kind: Kind::Token.name().into(),
            name: new.name.into(),
            peer: new.peer.into(),
            scopes: wanted,
            created_at: now(),
            expires_at: new.lifetime.map(after),
            last_used_at: None,
        };
        Ok((secret, token))
    }

    /// The tokens and sessions that are not over, the oldest first.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let rows: Vec<TokenRow> = sqlx::query_as(
            "SELECT tokens.id, tokens.kind, tokens.name, peers.name, tokens.scopes,
                    tokens.created_at, tokens.expires_at, tokens.last_used_at
             FROM tokens JOIN peers ON peers.id = tokens.peer
             WHERE tokens.kind <> 'signin'
               AND (tokens.expires_at IS NULL OR tokens.expires_at > $1)
             ORDER BY tokens.created_at, tokens.id",
        )
        .bind(now())
        .fetch_all(&self.pool)
        .await?;
        let token =
            |(id, kind, name, peer, granted, created_at, expires_at, last_used_at): TokenRow| {
                let scopes = scopes(&granted);
                Token { id, kind, name, peer, scopes, created_at, expires_at, last_used_at }
            };
        Ok(rows.into_iter().map(token).collect())
    }

    /// Ends a token or a session at once.
    pub(crate) async fn revoke(&self, id: &str) -> Result<(), TokenError> {
        let mut tx = self.write().await?;
        let peer: Option<(String,)> =
            sqlx::query_as("DELETE FROM tokens WHERE id = $1 AND kind <> 'signin' RETURNING peer")
                .bind(id)
                .fetch_optional(&mut *tx)
                .await?;
        let (peer,) = peer.ok_or_else(|| TokenError::Unknown(id.into()))?;
        drop_tickets(&mut tx, &peer).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Who holds this secret, with what it may do.
    pub(super) async fn holder_of_token(
        &self,
        token: &Secret,
    ) -> Result<Option<Identity>, StoreError> {
        let row = sqlx::query_as(
            "SELECT tokens.id, tokens.last_used_at, tokens.scopes,
                    peers.id, peers.name, peers.scopes
             FROM tokens JOIN peers ON peers.id = tokens.peer
             WHERE tokens.hash = $1 AND tokens.kind <> 'signin'
               AND (tokens.expires_at IS NULL OR tokens.expires_at > $2)",
        )
        .bind(hash(token))
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        Ok(self.used(row).await)
    }

    /// Who holds the token that this key is derived from, with what it may do.
    pub(super) async fn holder_of_derived_key(
        &self,
        key: &KeyFingerprint,
    ) -> Result<Option<Identity>, StoreError> {
        let row = sqlx::query_as(
            "SELECT tokens.id, tokens.last_used_at, tokens.scopes,
                    peers.id, peers.name, peers.scopes
             FROM tokens JOIN peers ON peers.id = tokens.peer
             WHERE tokens.key = $1 AND tokens.kind <> 'signin'
               AND (tokens.expires_at IS NULL OR tokens.expires_at > $2)",
        )
        .bind(key.to_string())
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        Ok(self.used(row).await)
    }

    /// Notes that a token was used. Who may enter does not hang on the note.
    async fn used(&self, row: Option<HolderRow>) -> Option<Identity> {
        let (token, last_used, granted, id, name, limit) = row?;
        if last_used.is_none_or(|last| last.saturating_add(LAST_USE_STEP) <= now()) {
            let note = sqlx::query("UPDATE tokens SET last_used_at = $2 WHERE id = $1")
                .bind(token)
                .bind(now())
                .execute(&self.pool)
                .await;
            if let Err(error) = note {
                tracing::warn!(%error, "the use of a token could not be noted");
            }
        }
        Some(Identity { id, name, scopes: common(&scopes(&granted), &scopes(&limit)) })
    }
}

type HolderRow = (String, Option<i64>, String, String, String, String);

/// Makes a secret and its row; gives the secret and the id. Rows that are long over go.
pub(super) async fn insert(
    tx: &mut sqlx::Transaction<'static, sqlx::Sqlite>,
    row: &Row<'_>,
) -> Result<(Secret, String), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE kind <> 'token' AND expires_at < $1")
        .bind(now() - REMEMBERED)
        .execute(&mut **tx)
        .await?;
    let secret = fresh(TOKEN_PREFIX)?;
    let id = fresh_id()?;
    let key = match row.kind {
        Kind::Token => Some(keys::token_identity(&secret)?.id().to_string()),
        Kind::Session | Kind::SignIn => None,
    };
    sqlx::query(
        "INSERT INTO tokens (id, kind, name, peer, hash, key, scopes, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&id)
    .bind(row.kind.name())
    .bind(row.name)
    .bind(row.peer)
    .bind(hash(&secret))
    .bind(key)
    .bind(row.scopes.to_string())
    .bind(now())
    .bind(row.lifetime.map(after))
    .execute(&mut **tx)
    .await?;
    Ok((secret, id))
}
