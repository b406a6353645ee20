//! The way of a browser into a session: a link that works once.

use std::time::Duration;

use alknet_core::{Identity, Scopes, Secret};

use super::{
    OWNER, Store, StoreError, hash, now,
    peers::drop_tickets,
    tokens::{self, Kind, Row},
};

/// How long a sign-in link is good for.
pub(crate) const LINK_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How long a session is good for.
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A session that has begun.
#[derive(Debug)]
pub(crate) struct SignIn {
    /// What the browser keeps as its cookie.
    pub(crate) session: Secret,
    /// How long it is good for.
    pub(crate) lifetime: Duration,
    /// Who signed in.
    pub(crate) identity: Identity,
}

/// Why a sign-in link does not work. For the audit log and the person who was sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignInRefusal {
    /// Never issued, or so long ago that it is forgotten.
    #[error("unknown sign-in link")]
    Unknown,
    /// Already used.
    #[error("used sign-in link")]
    Used,
    /// Too old.
    #[error("expired sign-in link")]
    Expired,
}

impl Store {
    /// Makes the secret of a link that signs in as the owner: once, for 15 minutes.
    pub(crate) async fn create_signin(&self) -> Result<Secret, StoreError> {
        let mut tx = self.write().await?;
        let row = Row {
            kind: Kind::SignIn,
            name: "sign-in link",
            peer: OWNER,
            scopes: &Scopes::all(),
            lifetime: Some(LINK_LIFETIME),
        };
        let (secret, _) = tokens::insert(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(secret)
    }

    /// Uses up the secret of a link and begins a session: the second try is refused, even
    /// at the same moment.
    pub(crate) async fn signin(
        &self,
        link: &Secret,
    ) -> Result<Result<SignIn, SignInRefusal>, StoreError> {
        let mut tx = self.write().await?;
        let used = sqlx::query(
            "UPDATE tokens SET last_used_at = $2
             WHERE hash = $1 AND kind = 'signin' AND last_used_at IS NULL AND expires_at > $2",
        )
        .bind(hash(link))
        .bind(now())
        .execute(&mut *tx)
        .await?;
        if used.rows_affected() == 0 {
            drop(tx);
            return Ok(Err(self.why_no_signin(link).await?));
        }
        let row = Row {
            kind: Kind::Session,
            name: "browser session",
            peer: OWNER,
            scopes: &Scopes::all(),
            lifetime: Some(SESSION_LIFETIME),
        };
        let (session, _) = tokens::insert(&mut tx, &row).await?;
        tx.commit().await?;
        let identity = Identity { id: OWNER.into(), name: OWNER.into(), scopes: Scopes::all() };
        Ok(Ok(SignIn { session, lifetime: SESSION_LIFETIME, identity }))
    }

    /// Ends a session. A secret that is none is no error.
    pub(crate) async fn signout(&self, session: &Secret) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let peer: Option<(String,)> = sqlx::query_as(
            "DELETE FROM tokens WHERE hash = $1 AND kind = 'session' RETURNING peer",
        )
        .bind(hash(session))
        .fetch_optional(&mut *tx)
        .await?;
        if let Some((peer,)) = peer {
            drop_tickets(&mut tx, &peer).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn why_no_signin(&self, link: &Secret) -> Result<SignInRefusal, StoreError> {
        let row: Option<(Option<i64>,)> =
            sqlx::query_as("SELECT last_used_at FROM tokens WHERE hash = $1 AND kind = 'signin'")
                .bind(hash(link))
                .fetch_optional(&self.pool)
                .await?;
        Ok(match row {
            None => SignInRefusal::Unknown,
            Some((Some(_),)) => SignInRefusal::Used,
            Some((None,)) => SignInRefusal::Expired,
        })
    }
}
