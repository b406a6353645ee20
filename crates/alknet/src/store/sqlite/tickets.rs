//! Single-use tickets for one ALPN each.

use alknet_core::{Alpn, Identity, Secret, TicketRefusal};

use super::{Sqlite, hash, scopes};
use crate::store::{StoreError, fresh, now};

/// How long a ticket is good for, in seconds.
const LIFETIME: i64 = 30;
/// How long a ticket is remembered after that, in seconds: the audit log can tell a used
/// or expired one from an invented one.
const REMEMBERED: i64 = 10 * 60;
/// How many tickets of one identity are remembered before those that are over are
/// forgotten early.
const MAX_REMEMBERED: i64 = 1024;
/// How many unused tickets of one identity are good at the same time.
const MAX_OPEN: i64 = 64;

impl Sqlite {
    /// Makes a ticket with what the identity may do at this moment.
    pub(super) async fn new_ticket(
        &self,
        identity: &Identity,
        alpn: &Alpn,
    ) -> Result<Secret, StoreError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let now = now();
        sqlx::query("DELETE FROM tickets WHERE expires_at < $1")
            .bind(now - REMEMBERED)
            .execute(&mut *tx)
            .await?;
        let (open, remembered): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(CASE WHEN used_at IS NULL AND expires_at > $2 THEN 1 END), COUNT(hash)
             FROM tickets WHERE identity = $1",
        )
        .bind(&identity.id)
        .bind(now)
        .fetch_one(&mut *tx)
        .await?;
        if open >= MAX_OPEN {
            return Err(StoreError::TooManyTickets);
        }
        if remembered >= MAX_REMEMBERED {
            sqlx::query(
                "DELETE FROM tickets
                 WHERE identity = $1 AND (used_at IS NOT NULL OR expires_at <= $2)",
            )
            .bind(&identity.id)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        }
        let ticket = fresh("")?;
        sqlx::query(
            "INSERT INTO tickets (hash, identity, name, credential, scopes, alpn, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(hash(&ticket))
        .bind(&identity.id)
        .bind(&identity.name)
        .bind(identity.credential.to_string())
        .bind(identity.scopes.to_string())
        .bind(alpn.as_str())
        .bind(now + LIFETIME)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(ticket)
    }

    /// Uses up a ticket: the update finds it unused for one caller only. The identity is the
    /// one that it was issued to, as it was then.
    pub(super) async fn use_ticket(
        &self,
        ticket: &Secret,
        alpn: &Alpn,
    ) -> Result<Result<Identity, TicketRefusal>, StoreError> {
        let used: Option<(String, String, String, String)> = sqlx::query_as(
            "UPDATE tickets SET used_at = $3
             WHERE hash = $1 AND alpn = $2 AND used_at IS NULL AND expires_at > $3
             RETURNING identity, name, credential, scopes",
        )
        .bind(hash(ticket))
        .bind(alpn.as_str())
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        let Some((id, name, credential, granted)) = used else {
            return Ok(Err(self.why_no_ticket(ticket, alpn).await?));
        };
        // What another version wrote and this one cannot read stands for nothing here.
        let Ok(credential) = credential.parse() else { return Ok(Err(TicketRefusal::Revoked)) };
        Ok(Ok(Identity::new(id, name, scopes(&granted), credential)))
    }

    async fn why_no_ticket(
        &self,
        ticket: &Secret,
        alpn: &Alpn,
    ) -> Result<TicketRefusal, StoreError> {
        let row: Option<(String, Option<i64>)> =
            sqlx::query_as("SELECT alpn, used_at FROM tickets WHERE hash = $1")
                .bind(hash(ticket))
                .fetch_optional(&self.pool)
                .await?;
        Ok(match row {
            None => TicketRefusal::Unknown,
            Some((_, Some(_))) => TicketRefusal::Used,
            Some((of, None)) if of != alpn.as_str() => TicketRefusal::WrongAlpn,
            Some((_, None)) => TicketRefusal::Expired,
        })
    }
}
