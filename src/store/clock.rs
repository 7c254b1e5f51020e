//! Postgres's clock.

use sqlx::PgPool;

use crate::domain::clock::Timestamp;

/// What Postgres's clock shows.
#[tracing::instrument(name = "clock::now", level = "debug", skip_all)]
pub async fn now(pool: &PgPool) -> sqlx::Result<Timestamp> {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(pool).await
}
