//! How near transaction ids are to their end: for the metrics and for `dms doctor`.

use sqlx::PgExecutor;

use crate::domain::Result;
use crate::store::sql::{Sql, from_row, statements};

/// The oldest ids that something has not frozen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrozenAge {
    /// The database, or the table.
    pub name: String,
    /// Transactions begun since.
    pub transactions: i64,
    /// Multixacts made since.
    pub(crate) multixacts: i64,
}

from_row!(FrozenAge { name, transactions, multixacts });

/// From these ages on autovacuum freezes a table whole, and gives way to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FreezeLimits {
    /// `autovacuum_freeze_max_age`.
    pub transactions: i64,
    /// `autovacuum_multixact_freeze_max_age`.
    pub(crate) multixacts: i64,
}

from_row!(FreezeLimits { transactions, multixacts });

statements![DATABASE, TABLE, LIMITS];

/// Postgres stops all writes for the sake of the oldest database, whosever that is.
static DATABASE: Sql<(), FrozenAge> = Sql::new(
    "
SELECT datname::text AS name, age(datfrozenxid)::bigint AS transactions, mxid_age(datminmxid)::bigint AS multixacts
FROM pg_database ORDER BY greatest(age(datfrozenxid), mxid_age(datminmxid)) DESC LIMIT 1",
);

/// Ours are those of the schema of the log, and their TOAST.
static TABLE: Sql<(), FrozenAge> = Sql::new("
SELECT CASE WHEN t.oid = c.oid THEN c.relname::text ELSE format('TOAST of %s', c.relname) END AS name,
       age(t.relfrozenxid)::bigint AS transactions, mxid_age(t.relminmxid)::bigint AS multixacts
FROM pg_class AS c JOIN pg_class AS t ON t.oid IN (c.oid, c.reltoastrelid)
WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('segments'))
  AND (c.relname IN ('queues', 'queue_tags', 'consumer_groups', 'streams', 'subscriptions', 'leases', 'retries', 'delayed_messages')
       OR c.relname ~ '^segments_d[0-9]+$')
ORDER BY greatest(age(t.relfrozenxid), mxid_age(t.relminmxid)) DESC LIMIT 1");

static LIMITS: Sql<(), FreezeLimits> = Sql::new(
    "
SELECT current_setting('autovacuum_freeze_max_age')::bigint AS transactions,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixacts",
);

/// The database of the server with the oldest ids.
#[tracing::instrument(name = "wraparound::oldest_database", level = "debug", skip_all)]
pub(crate) async fn oldest_database(executor: impl PgExecutor<'_>) -> Result<FrozenAge> {
    Ok(DATABASE.rows(()).fetch_one(executor).await?)
}

/// The table of ours with the oldest ids; none before the first migration.
pub(crate) async fn oldest_table(executor: impl PgExecutor<'_>) -> Result<Option<FrozenAge>> {
    Ok(TABLE.rows(()).fetch_optional(executor).await?)
}

/// What autovacuum goes by.
pub(crate) async fn limits(executor: impl PgExecutor<'_>) -> Result<FreezeLimits> {
    Ok(LIMITS.rows(()).fetch_one(executor).await?)
}
