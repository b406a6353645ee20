//! Single-use tickets for one ALPN each.

use alknet_core::{Alpn, Identity, Secret, TicketRefusal};

use super::{Store, StoreError, common, fresh, hash, now, scopes};

/// How long a ticket is good for, in seconds.
pub(crate) const LIFETIME: i64 = 30;
/// How long a ticket is remembered after that, in seconds: the audit log can tell a used
/// or expired one from an invented one.
const REMEMBERED: i64 = 10 * 60;
/// How many tickets of one identity are remembered before those that are over are
/// forgotten early.
const MAX_REMEMBERED: i64 = 1024;
/// How many unused tickets of one identity are good at the same time.
const MAX_OPEN: i64 = 64;

impl Store {
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
        let counts: Option<(i64, i64)> = sqlx::query_as(
            "SELECT COUNT(CASE WHEN used_at IS NULL AND expires_at > $2 THEN 1 END),
                    COUNT(tickets.hash)
             FROM peers LEFT JOIN tickets ON tickets.peer = peers.id
             WHERE peers.id = $1 GROUP BY peers.id",
        )
        .bind(&identity.id)
        .bind(now)
        .fetch_optional(&mut *tx)
        .await?;
        let (open, remembered) = counts.ok_or(StoreError::UnknownIdentity)?;
        if open >= MAX_OPEN {
            return Err(StoreError::TooManyTickets);
        }
        if remembered >= MAX_REMEMBERED {
            sqlx::query(
                "DELETE FROM tickets
                 WHERE peer = $1 AND (used_at IS NOT NULL OR expires_at <= $2)",
            )
            .bind(&identity.id)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        }
        let ticket = fresh("")?;
        sqlx::query(
            "INSERT INTO tickets (hash, peer, scopes, alpn, expires_at)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(hash(&ticket))
        .bind(&identity.id)
        .bind(identity.scopes.to_string())
        .bind(alpn.as_str())
        .bind(now + LIFETIME)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(ticket)
    }

    /// Uses up a ticket: the update finds it unused for one caller only.
    pub(super) async fn use_ticket(
        &self,
        ticket: &Secret,
        alpn: &Alpn,
    ) -> Result<Result<Identity, TicketRefusal>, StoreError> {
        let used: Option<(String, String)> = sqlx::query_as(
            "UPDATE tickets SET used_at = $3
             WHERE hash = $1 AND alpn = $2 AND used_at IS NULL AND expires_at > $3
             RETURNING peer, scopes",
        )
        .bind(hash(ticket))
        .bind(alpn.as_str())
        .bind(now())
        .fetch_optional(&self.pool)
        .await?;
        let Some((id, granted)) = used else {
            return Ok(Err(self.why_no_ticket(ticket, alpn).await?));
        };
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT name, scopes FROM peers WHERE id = $1")
                .bind(&id)
                .fetch_optional(&self.pool)
                .await?;
        // Removed in the instant between.
        let Some((name, limit)) = row else { return Ok(Err(TicketRefusal::Unknown)) };
        let scopes = common(&scopes(&granted), &scopes(&limit));
        Ok(Ok(Identity { id, name, scopes }))
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
