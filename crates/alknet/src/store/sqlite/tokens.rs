//! Bearer tokens and the browser's sessions.

use std::time::Duration;

use alknet_core::{Credential, Identity, KeyFingerprint, Scopes, Secret};

use super::{
    Sqlite, Write, fresh_id, hash,
    revisions::{self, Ended},
    scopes,
};
use crate::{
    keys,
    store::{By, NewToken, StoreError, Token, TokenError, after, fresh_token, moment, now},
};

/// How exact the time of last use is, in seconds: a look-up seldom writes.
const LAST_USE_STEP: i64 = 60;
/// How long a session or a sign-in link is remembered after its end, in seconds.
const REMEMBERED: i64 = 24 * 60 * 60;

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

impl Sqlite {
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
        // Of oneself one may make a token with less, whatever one's peer may do beyond.
        if new.by.id != peer && !new.by.may_all(&granted) {
            return Err(TokenError::Beyond(new.peer.into()));
        }
        let most = || new.by.limit.cloned().unwrap_or_else(Scopes::all);
        let wanted = new.scopes.cloned().unwrap_or_else(most);
        if !new.by.may_all(&wanted) {
            return Err(TokenError::GrantsMore);
        }
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
            revoked: None,
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
        Ok(rows.into_iter().map(token).collect())
    }

    /// The tokens and sessions that are over, as far back as they are remembered.
    pub(crate) async fn ended_tokens(&self) -> Result<Vec<Token>, StoreError> {
        let rows: Vec<TokenRow> = sqlx::query_as(
            "SELECT tokens.id, tokens.kind, tokens.name, peers.name, tokens.scopes,
                    tokens.created_at, tokens.expires_at, tokens.last_used_at
             FROM tokens JOIN peers ON peers.id = tokens.peer
             WHERE tokens.kind <> 'signin' AND tokens.expires_at <= $1",
        )
        .bind(now())
        .fetch_all(&self.pool)
        .await?;
        let mut ended = self.revoked_tokens().await?;
        ended.extend(rows.into_iter().map(token));
        ended.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(ended)
    }

    /// Ends a token or a session at once.
    pub(crate) async fn revoke(&self, by: By<'_>, id: &str) -> Result<(), TokenError> {
        let mut tx = self.write().await?;
        let gone: Option<Gone> = sqlx::query_as(
            "DELETE FROM tokens WHERE id = $1 AND kind <> 'signin'
             RETURNING id, kind, name, peer, scopes, created_at",
        )
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
        let gone = gone.ok_or_else(|| TokenError::Unknown(id.into()))?;
        let (limit,): (String,) = sqlx::query_as("SELECT scopes FROM peers WHERE id = $1")
            .bind(&gone.3)
            .fetch_one(&mut *tx)
            .await?;
        // Without a commit nothing is gone.
        if !by.may_all(&scopes(&gone.4).common(&scopes(&limit))) {
            return Err(TokenError::GrantsMore);
        }
        remember(&mut tx, &gone, Some(by.name)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Who holds this secret, with what it may do.
    pub(super) async fn holder_of_token(
        &self,
        token: &Secret,
    ) -> Result<Option<Identity>, StoreError> {
        let row = sqlx::query_as(
            "SELECT tokens.id, tokens.last_used_at, tokens.expires_at, tokens.scopes,
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
            "SELECT tokens.id, tokens.last_used_at, tokens.expires_at, tokens.scopes,
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

    /// Who holds the token or session of this id, with what it may do. That is no use of it.
    pub(super) async fn holder_of_token_id(
        &self,
        id: &str,
    ) -> Result<Option<Identity>, StoreError> {
        let row: Option<HolderRow> = sqlx::query_as(
            "SELECT tokens.id, tokens.last_used_at, tokens.expires_at, tokens.scopes,
                    peers.id, peers.name, peers.scopes
             FROM tokens JOIN peers ON peers.id = tokens.peer
             WHERE tokens.id = $1 AND tokens.kind <> 'signin'
               AND (tokens.expires_at IS NULL OR tokens.expires_at > $2)",
        )
        .bind(id)
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(holder))
    }

    /// Notes that a token was used. Who may enter does not hang on the note.
    async fn used(&self, row: Option<HolderRow>) -> Option<Identity> {
        let row = row?;
        if row.1.is_none_or(|last| last.saturating_add(LAST_USE_STEP) <= now()) {
            let note = sqlx::query("UPDATE tokens SET last_used_at = $2 WHERE id = $1")
                .bind(&row.0)
                .bind(now())
                .execute(&self.pool)
                .await;
            if let Err(error) = note {
                tracing::warn!(%error, "the use of a token could not be noted");
            }
        }
        Some(holder(row))
    }
}

fn token(row: TokenRow) -> Token {
    let (id, kind, name, peer, granted, created_at, expires_at, last_used_at) = row;
    let scopes = scopes(&granted);
    Token { id, kind, name, peer, scopes, created_at, expires_at, last_used_at, revoked: None }
}

/// The id of the token, its last use, its end, its scopes; then the peer.
type HolderRow = (String, Option<i64>, Option<i64>, String, String, String, String);

fn holder((token, _, expires_at, granted, id, name, limit): HolderRow) -> Identity {
    let scopes = scopes(&granted).common(&scopes(&limit));
    let identity = Identity::new(id, name, scopes, Credential::Token(token));
    Identity { valid_until: expires_at.map(moment), ..identity }
}

/// A row that was deleted: id, kind, name, the id of the peer, scopes, and when it began.
pub(super) type Gone = (String, String, String, String, String, i64);

/// Remembers that a token or session was ended: by its own peer, if nobody else is named.
pub(super) async fn remember(
    tx: &mut Write,
    (id, kind, name, peer, scopes, created_at): &Gone,
    by: Option<&str>,
) -> Result<(), sqlx::Error> {
    let (peer,): (String,) = sqlx::query_as("SELECT name FROM peers WHERE id = $1")
        .bind(peer)
        .fetch_one(&mut **tx)
        .await?;
    let (by, created_at) = (by.unwrap_or(&peer), *created_at);
    let ended = Ended { kind, id, name, peer: &peer, scopes, created_at, by };
    revisions::remember(tx, ended).await
}

/// Ends the tokens of a peer that is about to go.
pub(super) async fn end_all(tx: &mut Write, by: By<'_>, peer: &str) -> Result<(), sqlx::Error> {
    let gone: Vec<Gone> = sqlx::query_as(
        "DELETE FROM tokens
         WHERE peer = $1 AND kind <> 'signin' AND (expires_at IS NULL OR expires_at > $2)
         RETURNING id, kind, name, peer, scopes, created_at",
    )
    .bind(peer)
    .bind(now())
    .fetch_all(&mut **tx)
    .await?;
    for token in &gone {
        remember(tx, token, Some(by.name)).await?;
    }
    Ok(())
}

/// Makes a secret and its row; gives the secret and the id. Rows that are long over go.
pub(super) async fn insert(tx: &mut Write, row: &Row<'_>) -> Result<(Secret, String), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE kind IN ('session', 'signin') AND expires_at < $1")
        .bind(now() - REMEMBERED)
        .execute(&mut **tx)
        .await?;
    let secret = fresh_token()?;
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
