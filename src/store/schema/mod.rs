//! The schema: brought up to date, and checked before it is used.

pub mod database;
pub(crate) mod entry;
mod relocation;

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection as _, PgConnection, PgPool, SqlSafeStr as _};

use super::Database;
use super::session::connect::{Connector, Session};
use super::session::sqlstate;
use crate::domain::schema_name::SchemaName;
use crate::domain::{Error, Result};
use crate::store::sql::{Sql, Statement, row, statements};

/// A migration that waits for a lock holds up all who come after it, so it soon steps back and tries again. This also lets an
/// index be built concurrently, which waits for those who wait for the lock of the migrations.
const LOCK_TIMEOUT: &str = "1s";
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// For how long it is tried: another replica may have a long one to run.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// Version, name and statements of every file in `migrations/`, as `build.rs` found them.
const FILES: &[(i64, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// The table of the migrations that were applied. An application has one with the usual name, and in `public` it may be there too.
pub(super) const TABLE: &str = "dms_migrations";

pub(super) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(FILES.iter().map(migration).collect());
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name(TABLE);
    migrator
});

/// What was done to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The schema of the tables.
    pub schema: SchemaName,
    /// Where they were before.
    pub moved_from: Option<SchemaName>,
    /// The migrations that were applied.
    pub applied: Vec<i64>,
    /// The version of the schema now.
    pub version: i64,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.moved_from {
            writeln!(f, "moved the tables and what is in them from the schema {source} to {}", self.schema)?;
        }
        let applied: Vec<String> = self.applied.iter().map(i64::to_string).collect();
        let done =
            if applied.is_empty() { "nothing to apply".to_owned() } else { format!("applied {}", applied.join(", ")) };
        write!(f, "schema {} is at version {}: {done}", self.schema, self.version)
    }
}

/// Why an attempt has failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again would be no better.
    Refused(Error),
    /// What Postgres says.
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Brings the schema up to date; a newer one is left as it is. Several replicas may call it at once: one works, the others wait.
pub async fn migrate(database: impl Into<Database>) -> Result<Migrated> {
    migrate_from(database, None).await
}

/// The same; an installation in the schema `source` is moved first.
pub async fn migrate_from(database: impl Into<Database>, source: Option<&SchemaName>) -> Result<Migrated> {
    let connector = database.into().connector()?;
    let session = connector.session("dms-migrate").with([("lock_timeout", LOCK_TIMEOUT)]);
    entry::enter(&connector, &session).await?.close().await?;
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        // A new connection each time, for no lock to stay behind.
        match attempt(&connector, &session, source).await {
            Err(Failure::Sql(error)) if sqlstate::is_conflict(&error) && Instant::now() < patience => {
                tracing::info!("the schema is locked: trying again");
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Sql(error)) => return Err(Error::internal(format!("migration failed: {error}"))),
            Ok(done) => return Ok(done),
        }
    }
}

async fn attempt(
    connector: &Connector,
    session: &Session,
    source: Option<&SchemaName>,
) -> std::result::Result<Migrated, Failure> {
    let reached = session.connect().await;
    let mut connection = reached.map_err(|error| Failure::Refused(entry::unreachable(connector, &error)))?;
    let schema = connector.schema().clone();
    let moved_from = relocation::prepare(&mut connection, &schema, source).await?;
    let before = versions(&mut connection).await?;
    MIGRATIONS.run(&mut connection).await.map_err(of_migration)?;
    let after = versions(&mut connection).await?;
    connection.close().await?;
    let version = after.last().copied().unwrap_or_default();
    let applied = after.into_iter().filter(|version| !before.contains(version)).collect();
    Ok(Migrated { schema, moved_from, applied, version })
}

fn of_migration(error: MigrateError) -> Failure {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Failure::Sql(error),
        other => Failure::Refused(Error::internal(format!("migration failed: {other}"))),
    }
}

statements![IS_THERE, VERSIONS, APPLIED, HALF_APPLIED, WHY_NOTHING];

pub(super) fn all_statements() -> Vec<Statement> {
    [statements(), relocation::all_statements()].concat()
}

static IS_THERE: Sql<(&str,), (bool,)> = Sql::new("SELECT to_regclass($1) IS NOT NULL");
static VERSIONS: Sql<(), (i64,)> = Sql::new("SELECT version FROM dms_migrations WHERE success ORDER BY version");

/// The versions that were applied, in order; none before the first time.
async fn versions(connection: &mut PgConnection) -> sqlx::Result<Vec<i64>> {
    if !IS_THERE.scalar((TABLE,)).fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    VERSIONS.scalar(()).fetch_all(connection).await
}

/// The version of the schema.
pub(super) static APPLIED: Sql<(), (i64,)> =
    Sql::new("SELECT coalesce(max(version), 0) FROM dms_migrations WHERE success");

/// Migrations that have begun and not ended: [`migrate`] does nothing while there is one. Ours run in transactions, which
/// leave none behind.
pub(super) static HALF_APPLIED: Sql<(), (i64,)> =
    Sql::new("SELECT version FROM dms_migrations WHERE NOT success ORDER BY version");

row! {
    struct WhyNothing {
        may_look: bool,
        earlier: bool,
    }
}

/// Whether the role may look into the schema, if it is there, and whether there is something in `public` that an earlier version made.
static WHY_NOTHING: Sql<(&str,), WhyNothing> = Sql::new(
    "
SELECT coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1::text), true) AS may_look,
       2 = (SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = 'public' AND c.relname IN ('_sqlx_migrations', 'segments')) AS earlier",
);

/// The version that this program was made for.
pub(super) fn needed() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether the schema is at least the one that this program was made for. A newer one is fine: it keeps what the version
/// before it needs.
///
/// # Errors
/// `Internal`, saying what to do.
pub async fn check(pool: &PgPool, schema: &str) -> Result<()> {
    let needed = needed();
    let applied: i64 = match APPLIED.scalar(()).fetch_one(pool).await {
        Ok(applied) => applied,
        Err(error) if sqlstate::is_missing_table(&error) => return Err(nothing_there(pool, schema).await?),
        // A role that may use the tables need not see how they came to be.
        Err(error) if sqlstate::is_forbidden(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if applied < needed {
        let message = format!(
            "the schema {schema} is at version {applied} and this program needs {needed}: run `dms migrate` first"
        );
        return Err(Error::internal(message));
    }
    Ok(())
}

async fn nothing_there(pool: &PgPool, schema: &str) -> Result<Error> {
    let WhyNothing { may_look, earlier } = WHY_NOTHING.rows((schema,)).fetch_one(pool).await?;
    let message = if !may_look {
        format!("this role may not use the schema {schema}: GRANT USAGE, CREATE ON SCHEMA {schema} TO it")
    } else if earlier {
        format!(
            "the schema {schema} has no tables of dms, and public seems to have those of an earlier version: stop its replicas and \
             run `dms migrate`, which moves them, or set --schema (DMS_SCHEMA) to public"
        )
    } else {
        format!("the schema {schema} has no tables of dms: run `dms migrate` first")
    };
    Ok(Error::internal(message))
}
