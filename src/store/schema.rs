//! The schema: brought up to date, and checked before it is used.

use sqlx::migrate::Migrator;
use sqlx::{ConnectOptions, PgPool};

use super::{connect_options, sqlstate};
use crate::domain::{Error, Result};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Brings the schema up to date. Several replicas may call it at once: one works, the others wait.
pub async fn migrate(database_url: &str) -> Result<()> {
    let mut connection = connect_options(database_url)?.connect().await?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| {
        tracing::error!(%error, "migration failed");
        Error::internal(format!("migration failed: {error}"))
    })
}

/// The version of the schema.
pub(super) const APPLIED: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";

/// The version that this program was made for.
pub(super) fn needed() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether the schema is at least the one that this program was made for. A newer one is fine: it keeps what the version
/// before it needs.
///
/// # Errors
/// `Internal`, saying what to do.
pub async fn check(pool: &PgPool) -> Result<()> {
    let needed = needed();
    let applied: i64 = match sqlx::query_scalar(APPLIED).fetch_one(pool).await {
        Ok(applied) => applied,
        Err(error) if sqlstate::is_missing_table(&error) => 0,
        // A role that may use the tables need not see how they came to be.
        Err(error) if sqlstate::is_forbidden(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if applied < needed {
        let message = format!(
            "the schema of the database is at version {applied} and this program needs {needed}: run `dms migrate` first"
        );
        return Err(Error::internal(message));
    }
    Ok(())
}
