//! Partitions are frozen once, when their day is over: nothing is written to them any more.
//!
//! Else, on a busy server, their transaction ids grow old while they are kept, and each would be read whole by a vacuum against wraparound,
//! which gives way to nobody and stands in the way when the partition is to go.

use sqlx::{Connection as _, PgConnection};

use super::Day;
use crate::domain::clock::Timestamp;
use crate::store::sql::{Sql, row, statements, utility};
use crate::store::{Store, installation};

/// As autovacuum works by default, whatever a session's own settings are: at most 40 MB a second written.
const GENTLE: [(&str, &str); 5] = [
    ("vacuum_cost_delay", "2ms"),
    ("vacuum_cost_limit", "200"),
    // It takes as long as it takes, and waits for nobody.
    ("statement_timeout", "0"),
    ("lock_timeout", "1s"),
    ("idle_session_timeout", "0"),
];
/// One replica at a time; held by the session that freezes, also when the replica has gone meanwhile.
const LOCK_KEY: i64 = 0x646d_735f_6672_657a;
static LOCK: Sql<(i64,), (bool,)> = Sql::new(concat!("SELECT pg_try_advisory_lock($1 # ", installation!(), ")"));

statements![LOCK, UNFROZEN];

// Whether something is left to do is read off the table itself: VACUUM marks pages in which nothing is, and nobody else does that here,
// for autovacuum is told to leave inserts alone. Pages at the end that were never used are not marked, hence the share.
static UNFROZEN: Sql<(), Unfrozen> = Sql::new("
SELECT c.relname::text AS name, unmarked, old, empty,
       coalesce(pg_stat_get_last_vacuum_time(c.oid) > clock_timestamp() - interval '1 hour', false) AS tried
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (
    SELECT bool_or(pages - relallvisible > pages / 50) AS unmarked,
           bool_or(age(relfrozenxid) > current_setting('autovacuum_freeze_max_age')::integer / 2
                   OR mxid_age(relminmxid) > current_setting('autovacuum_multixact_freeze_max_age')::integer / 2) AS old,
           sum(pages) = 0 AS empty
    FROM pg_class AS t
    CROSS JOIN LATERAL (SELECT pg_relation_size(t.oid) / current_setting('block_size')::bigint AS pages) AS size
    WHERE t.oid IN (c.oid, c.reltoastrelid)
) AS state
WHERE i.inhparent = to_regclass('segments') AND NOT i.inhdetachpending AND (unmarked OR old) ORDER BY c.relname DESC");

row! {
    struct Unfrozen {
        name: String,
        /// There are rows that are not frozen.
        unmarked: bool,
        /// Its ids are half as old as autovacuum lets them be. To renew them costs next to nothing when there are no such rows.
        old: bool,
        empty: bool,
        /// Within the last hour: old snapshots may keep rows from being frozen.
        tried: bool,
    }
}

/// Days that are over, those behind the horizon excepted, for they go.
#[derive(Clone, Copy)]
struct Past {
    now: Timestamp,
    horizon: Timestamp,
}

impl Past {
    fn has(self, name: &str) -> bool {
        let end = Day::from_table(name).map(|day| Day(day.0 + 1).start());
        end.is_some_and(|end| end <= self.now && end > self.horizon)
    }

    fn is_due(self, table: &Unfrozen) -> bool {
        !table.tried && (self.has(&table.name) && (table.unmarked || table.old) || table.empty && table.old)
    }
}

/// Partitions of past days that have rows to freeze.
pub async fn unfrozen_days(conn: &mut PgConnection, now: Timestamp, horizon: Timestamp) -> sqlx::Result<Vec<String>> {
    let tables = UNFROZEN.rows(()).fetch_all(conn).await?;
    let past = Past { now, horizon };
    Ok(tables.into_iter().filter(|table| table.unmarked && past.has(&table.name)).map(|table| table.name).collect())
}

/// Freezes partitions whose day is over and that are not frozen yet. Returns their names; none when another replica is about it.
#[tracing::instrument(name = "partitions::freeze_past_days", level = "debug", skip_all)]
pub(crate) async fn freeze_past_days(store: &Store, now: Timestamp, horizon: Timestamp) -> sqlx::Result<Vec<String>> {
    let past = Past { now, horizon };
    if due(&mut *store.pool.acquire().await?, past).await?.is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = store.session("dms-freeze").with(GENTLE).connect().await?;
    let alone = LOCK.scalar((LOCK_KEY,)).fetch_one(&mut conn).await?;
    let mut frozen = Vec::new();
    if alone {
        // Asked again: who had the lock may have just done it.
        for table in due(&mut conn, past).await? {
            freeze(&mut conn, &table).await?;
            // One that somebody works on was passed over, and is still due.
            if !due(&mut conn, past).await?.contains(&table) {
                frozen.push(table);
            }
        }
    }
    conn.close().await?;
    Ok(frozen)
}

async fn due(conn: &mut PgConnection, past: Past) -> sqlx::Result<Vec<String>> {
    let tables = UNFROZEN.rows(()).fetch_all(conn).await?;
    Ok(tables.into_iter().filter(|table| past.is_due(table)).map(|table| table.name).collect())
}

/// With its TOAST table. A table that somebody works on is passed over. Dead rows of aborted appends are removed however few they are: their
/// pages could not be marked. The end is not cut off, for that would lock readers out.
async fn freeze(conn: &mut PgConnection, table: &str) -> sqlx::Result<()> {
    let vacuum = format!("VACUUM (FREEZE, SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF, PARALLEL 0) {table}");
    utility(vacuum).execute(conn).await?;
    Ok(())
}
