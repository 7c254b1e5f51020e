//! Dead rows of the hot tables, and what keeps them: for the metrics and for `dms doctor`.

use sqlx::PgExecutor;

use crate::domain::Result;
use crate::store::sql::{Sql, from_row, row, statements};

/// Rows of them come and go all the time. Partitions of the log are none: they are only inserted into, and dropped whole.
const HOT_TABLES: [&str; 5] = ["streams", "subscriptions", "leases", "retries", "delayed_messages"];

/// Something that keeps dead rows from being removed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SnapshotHolder {
    /// A session, a prepared transaction, or a replication slot, with its name.
    pub holder: String,
    /// Transactions begun since.
    pub age: i64,
    /// For how long, when that is known: who may not see a session sees what it holds and not since when, and a slot has no time.
    pub seconds: Option<f64>,
    /// Whether it is a standby or another consumer of the WAL, and there: that moves on without an end.
    pub(crate) active: bool,
}

from_row!(SnapshotHolder { holder, age, seconds, active });

row! {
    struct HotTable {
        name: String,
        live: i64,
        dead: i64,
    }
}

statements![HOLDERS, HOT_ROWS, AUTOVACUUM_OFF];

/// A transaction that has written and is idle now has an id and, in READ COMMITTED, no snapshot: the id does as much harm.
static HOLDERS: Sql<(), SnapshotHolder> = Sql::new("
SELECT holder, age, seconds, active FROM (
    SELECT format('session %s (%s, %s)', pid, coalesce(nullif(application_name, ''), usename, backend_type), coalesce(state, '-'))
               AS holder,
           greatest(age(backend_xid), age(backend_xmin))::bigint AS age,
           extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds,
           coalesce(backend_type = 'walsender', false) AS active
    FROM pg_stat_activity WHERE coalesce(backend_xid, backend_xmin) IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL
    SELECT format('prepared transaction %s', gid), age(transaction)::bigint,
           extract(epoch FROM clock_timestamp() - prepared)::float8, false
    FROM pg_prepared_xacts
    UNION ALL
    SELECT format('replication slot %s', slot_name), greatest(age(xmin), age(catalog_xmin))::bigint, NULL, active
    FROM pg_replication_slots WHERE coalesce(xmin, catalog_xmin) IS NOT NULL
) AS h ORDER BY age DESC");

static HOT_ROWS: Sql<(&[&str],), HotTable> = Sql::new(
    "
SELECT s.relname::text AS name, s.n_live_tup AS live, s.n_dead_tup AS dead
FROM unnest($1::text[]) AS h (name) JOIN pg_stat_user_tables AS s ON s.relid = to_regclass(h.name) ORDER BY s.relname",
);

/// The CASE keeps the values of other options from being read as booleans.
static AUTOVACUUM_OFF: Sql<(&[&str],), (String,)> = Sql::new(
    "
SELECT CASE WHEN c.oid = m.oid THEN m.relname::text ELSE format('TOAST of %s', m.relname) END
FROM unnest($1::text[]) AS h (name)
JOIN pg_class AS m ON m.oid = to_regclass(h.name)
JOIN pg_class AS c ON c.oid IN (m.oid, m.reltoastrelid)
CROSS JOIN LATERAL pg_options_to_table(c.reloptions) AS o
WHERE CASE WHEN o.option_name = 'autovacuum_enabled' THEN NOT o.option_value::boolean END
ORDER BY m.relname, c.oid <> m.oid",
);

/// What keeps dead rows from being removed, the oldest first.
#[tracing::instrument(name = "dead_rows::holders", level = "debug", skip_all)]
pub(crate) async fn holders(executor: impl PgExecutor<'_>) -> Result<Vec<SnapshotHolder>> {
    Ok(HOLDERS.rows(()).fetch_all(executor).await?)
}

/// Live and dead rows of the hot tables, as Postgres estimates them.
#[tracing::instrument(name = "dead_rows::hot_rows", level = "debug", skip_all)]
pub(crate) async fn hot_rows(executor: impl PgExecutor<'_>) -> Result<Vec<(String, i64, i64)>> {
    let rows = HOT_ROWS.rows((&HOT_TABLES,)).fetch_all(executor).await?;
    Ok(rows.into_iter().map(|table| (table.name, table.live, table.dead)).collect())
}

/// Hot tables that autovacuum has been told to leave alone.
pub(crate) async fn autovacuum_off(executor: impl PgExecutor<'_>) -> Result<Vec<String>> {
    Ok(AUTOVACUUM_OFF.scalar((&HOT_TABLES,)).fetch_all(executor).await?)
}
