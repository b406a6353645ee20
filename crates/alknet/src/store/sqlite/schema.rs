//! The tables, and how older ones become these.

use sqlx::SqlitePool;

use super::StoreError;

/// Each step once, in order; a step that was released never changes.
const STEPS: &[&str] =
    &[include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

/// Brings the database up to date, in one transaction.
pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_steps (step BIGINT PRIMARY KEY)")
        .execute(&mut *tx)
        .await?;
    let (done,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM schema_steps").fetch_one(&mut *tx).await?;
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > STEPS.len() {
        return Err(StoreError::Newer);
    }
    for (step, sql) in (0i64..).zip(STEPS).skip(done) {
        sqlx::raw_sql(*sql).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO schema_steps (step) VALUES ($1)")
            .bind(step)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}
