//! Partitions of the log by day: made ahead, made again when one is missing, dropped when everything in them has expired.

mod freeze;
mod retire;

use std::collections::BTreeSet;

pub(crate) use self::freeze::freeze_past_days;
pub use self::freeze::unfrozen_days;
pub(crate) use self::retire::retire_expired;

use sqlx::{Connection as _, PgConnection, PgPool};

use crate::domain::clock::Timestamp;
use crate::store::installation;
use crate::store::sql::{Sql, Statement, statements, utility};

pub(in crate::store) fn all_statements() -> Vec<Statement> {
    [statements(), freeze::statements(), retire::statements()].concat()
}

const DAY_MICROS: i64 = 86_400 * Timestamp::MICROS_PER_SECOND;
/// Serialises partition work of all replicas.
const LOCK_KEY: i64 = 0x646d_735f_7061_7274;
static LOCK: Sql<(i64,), ()> = Sql::new(concat!("SELECT pg_advisory_xact_lock($1 # ", installation!(), ")"));

/// A day of the log, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Day(i64);

impl Day {
    fn of(instant: Timestamp) -> Self {
        Self(instant.0.div_euclid(DAY_MICROS))
    }

    fn start(self) -> Timestamp {
        Timestamp(self.0 * DAY_MICROS)
    }

    fn table(self) -> String {
        format!("segments_d{}", self.0)
    }

    fn from_table(name: &str) -> Option<Self> {
        name.strip_prefix("segments_d")?.parse().ok().map(Self)
    }
}

/// Makes the partitions from `from` to `to`, both included. Writers are not held up: the table is made apart and attached
/// under a lock that reads and inserts do not mind.
#[tracing::instrument(name = "partitions::create", level = "debug", skip_all)]
pub async fn create(pool: &PgPool, from: Timestamp, to: Timestamp) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    create_days(&mut conn, (Day::of(from).0..=Day::of(to).0).map(Day).collect()).await?;
    Ok(())
}

/// Runs `$run`, and once more after making the partitions that it did not find: somebody has dropped one, or Postgres's clock
/// was ahead and the last append of a stream lies days from now. A macro for the same reason as `flush!`.
macro_rules! with_partitions {
    ($conn:expr, $now:expr, $run:expr) => {
        match $run.await {
            Err(error) if $crate::store::session::sqlstate::is_missing_partition(&error) => {
                $crate::store::log::partitions::create_missing($conn, $now).await?;
                $run.await
            }
            outcome => outcome,
        }
    };
}
pub(in crate::store) use with_partitions;

statements![LOCK, NEEDED, LIST];

// A stream whose last append lies ahead goes on from there. It was appended to then, so that day had a partition once: no more
// days come out of this than there have been partitions.
static NEEDED: Sql<(Timestamp,), (i64,)> = Sql::new(
    "
SELECT DISTINCT floor(extract(epoch FROM greatest(last_appended_at + interval '1 microsecond', $1)) / 86400)::bigint
FROM streams WHERE last_appended_at > $1
UNION SELECT floor(extract(epoch FROM $1) / 86400)::bigint",
);

/// Makes the partitions that appends to any stream need now. Reads all streams, so it is for when one is known to be missing.
#[tracing::instrument(name = "partitions::create_missing", level = "debug", skip_all)]
pub(crate) async fn create_missing(conn: &mut PgConnection, now: Timestamp) -> sqlx::Result<()> {
    let needed = NEEDED.scalar((now,)).fetch_all(&mut *conn).await?;
    let made = create_days(conn, needed.into_iter().map(Day).collect()).await?;
    if !made.is_empty() {
        let days: Vec<String> = made.into_iter().map(Day::table).collect();
        tracing::warn!(made = days.join(" "), "partitions of the log were missing and have been made");
    }
    Ok(())
}

/// Makes those of the partitions that are not there, and says which.
async fn create_days(conn: &mut PgConnection, days: BTreeSet<Day>) -> sqlx::Result<Vec<Day>> {
    let present = list(conn).await?;
    if days.iter().all(|day| present.contains(day)) {
        return Ok(Vec::new());
    }
    let mut tx = conn.begin().await?;
    lock(&mut tx).await?;
    let present = list(&mut tx).await?;
    let absent: Vec<Day> = days.into_iter().filter(|day| !present.contains(day)).collect();
    for day in &absent {
        create_day(&mut tx, *day).await?;
    }
    tx.commit().await?;
    Ok(absent)
}

async fn create_day(conn: &mut PgConnection, day: Day) -> sqlx::Result<()> {
    let table = day.table();
    // The name and the bounds are numbers of ours. Insert-only tables need no vacuum but one, when their day is over. A table that is
    // there without being a partition was detached, by hand or by us: it comes back with what it holds.
    retire::finish_if_half_detached(conn, day).await?;
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table} (LIKE segments INCLUDING ALL)
         WITH (autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1)"
    );
    utility(create).execute(&mut *conn).await?;
    let attach = format!(
        "ALTER TABLE segments ATTACH PARTITION {table} FOR VALUES
         FROM (to_timestamp({})) TO (to_timestamp({}))",
        day.start().0 / Timestamp::MICROS_PER_SECOND,
        Day(day.0 + 1).start().0 / Timestamp::MICROS_PER_SECOND,
    );
    utility(attach).execute(&mut *conn).await?;
    Ok(())
}

async fn lock(conn: &mut PgConnection) -> sqlx::Result<()> {
    LOCK.run((LOCK_KEY,)).execute(conn).await?;
    Ok(())
}

static LIST: Sql<(), (String,)> = Sql::new(
    "
SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'segments'::regclass AND NOT i.inhdetachpending",
);

async fn list(conn: &mut PgConnection) -> sqlx::Result<Vec<Day>> {
    let names = LIST.scalar(()).fetch_all(conn).await?;
    Ok(names.iter().filter_map(|name| Day::from_table(name)).collect())
}
