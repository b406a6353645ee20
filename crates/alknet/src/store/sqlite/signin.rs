//! The way of a browser into a session: a link that works once.

use std::time::SystemTime;

use alknet_core::{Credential, Identity, Scopes, Secret};

use super::{
    Sqlite, hash,
    tokens::{self, Kind, Row},
};
use crate::store::{
    OWNER, SignIn, SignInRefusal, StoreError,
    model::{LINK_LIFETIME, SESSION_LIFETIME},
    now,
};

impl Sqlite {
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
        // Anybody may ask: what is no good must not make those wait who write.
        if let Err(refusal) = self.is_good(link).await? {
            return Ok(Err(refusal));
        }
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
            // Another one was faster.
            return Ok(Err(SignInRefusal::Used));
        }
        let row = Row {
            kind: Kind::Session,
            name: "browser session",
            peer: OWNER,
            scopes: &Scopes::all(),
            lifetime: Some(SESSION_LIFETIME),
        };
        let (session, id) = tokens::insert(&mut tx, &row).await?;
        tx.commit().await?;
        let identity = Identity::new(OWNER, OWNER, Scopes::all(), Credential::Token(id));
        let valid_until = SystemTime::now().checked_add(SESSION_LIFETIME);
        let identity = Identity { valid_until, ..identity };
        Ok(Ok(SignIn { session, lifetime: SESSION_LIFETIME, identity }))
    }

    /// Ends a session, and with it the keys that it authorised; `false` where there was none.
    pub(crate) async fn signout(&self, session: &Secret) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let gone: Option<tokens::Gone> = sqlx::query_as(
            "DELETE FROM tokens WHERE hash = $1 AND kind = 'session'
             RETURNING id, kind, name, peer, scopes, created_at",
        )
        .bind(hash(session))
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(gone) = &gone {
            tokens::remember(&mut tx, gone, None).await?;
        }
        tx.commit().await?;
        Ok(gone.is_some())
    }

    async fn is_good(&self, link: &Secret) -> Result<Result<(), SignInRefusal>, StoreError> {
        let row: Option<(Option<i64>, i64)> = sqlx::query_as(
            "SELECT last_used_at, expires_at FROM tokens WHERE hash = $1 AND kind = 'signin'",
        )
        .bind(hash(link))
        .fetch_optional(&self.pool)
        .await?;
        Ok(match row {
            None => Err(SignInRefusal::Unknown),
            Some((Some(_), _)) => Err(SignInRefusal::Used),
            Some((None, end)) if end <= now() => Err(SignInRefusal::Expired),
            Some((None, _)) => Ok(()),
        })
    }
}
