//! The schema: brought up to date, and checked before it is used.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions, PgConnection, PgPool, SqlSafeStr as _};

use super::{connect_options, sqlstate};
use crate::domain::{Error, Result};

/// A migration that waits for a lock holds up all who come after it, so it soon steps back and tries again. This also lets an
/// index be built concurrently, which waits for those who wait for the lock of the migrations.
const LOCK_TIMEOUT: &str = "1s";
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// For how long it is tried: another replica may have a long one to run.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// Version, name and statements of every file in `migrations/`, as `build.rs` found them.
const FILES: &[(i64, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(FILES.iter().map(migration).collect());
    migrator.set_ignore_missing(true);
    migrator
});

/// Brings the schema up to date; a newer one is left as it is. Several replicas may call it at once: one works, the others wait.
pub async fn migrate(database_url: &str) -> Result<()> {
    let options = connect_options(database_url)?.options([("lock_timeout", LOCK_TIMEOUT)]);
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        // A new connection each time, for no lock to stay behind.
        match run(options.connect().await?).await {
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))
                if sqlstate::is_conflict(&error) && Instant::now() < patience =>
            {
                tracing::info!("the schema is locked: trying again");
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => {
                tracing::error!(%error, "migration failed");
                return Err(Error::internal(format!("migration failed: {error}")));
            }
            Ok(()) => return Ok(()),
        }
    }
}

async fn run(mut connection: PgConnection) -> Result<(), MigrateError> {
    MIGRATIONS.run(&mut connection).await
}

/// The version of the schema.
pub(super) const APPLIED: &str = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";

/// Migrations that have begun and not ended: [`migrate`] does nothing while there is one. Ours run in transactions, which
/// leave none behind.
pub(super) const HALF_APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE NOT success ORDER BY version";

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
