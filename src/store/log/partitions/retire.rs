//! Partitions in which everything has expired are detached, then dropped, and no send or read waits for either.
//!
//! A plain DROP, like a plain DETACH, locks the whole log out for as long as it waits for whoever uses the partition. DETACH CONCURRENTLY
//! waits with locks that sends and reads do not mind. It is two transactions, so it may stop half way, with the partition marked: the next
//! round finishes it. It also needs a log without a default partition.

use sqlx::{Connection as _, PgConnection};

use super::{Day, create_day, lock};
use crate::domain::clock::Timestamp;
use crate::store::Store;
use crate::store::sql::{Sql, row, statements, utility};

/// For whoever uses a partition, a dump for instance, or works on it, as autovacuum, which gives way after a second. Nobody waits for us
/// meanwhile but another replica that makes a partition.
const LOCK_TIMEOUT: &str = "3s";

/// How a table of one day stands to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Attached,
    /// Half detached: new statements do not see it.
    Detaching,
    /// On its own: detached, and not dropped.
    Detached,
}

row! {
    struct TableRow {
        name: String,
        attached: bool,
        detaching: bool,
    }
}

static TABLES: Sql<(), TableRow> = Sql::new("
SELECT c.relname::text AS name, i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS detaching
FROM pg_class AS log
JOIN pg_class AS c ON c.relnamespace = log.relnamespace AND c.relkind = 'r' AND c.relname ~ '^segments_d[0-9]+$'
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhparent = log.oid
WHERE log.oid = 'segments'::regclass
  AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'base_offset' AND NOT a.attisdropped)");

statements![TABLES];

/// All days that have a table, in order.
async fn tables(conn: &mut PgConnection) -> sqlx::Result<Vec<(Day, State)>> {
    let rows = TABLES.rows(()).fetch_all(conn).await?;
    let state = |row: &TableRow| match (row.attached, row.detaching) {
        (_, true) => State::Detaching,
        (true, false) => State::Attached,
        (false, false) => State::Detached,
    };
    let mut days: Vec<(Day, State)> =
        rows.iter().filter_map(|row| Some((Day::from_table(&row.name)?, state(row)))).collect();
    days.sort_by_key(|(day, _)| *day);
    Ok(days)
}

/// Drops the partitions in which nothing was appended after `horizon`, and finishes what an earlier round has left half done. Gives way to
/// whoever uses one; the next round tries again. Returns how many are gone.
#[tracing::instrument(name = "partitions::retire_expired", level = "debug", skip_all)]
pub(crate) async fn retire_expired(store: &Store, horizon: Timestamp) -> sqlx::Result<usize> {
    let expired = |day: Day| Day(day.0 + 1).start() <= horizon;
    let work = |tables: Vec<(Day, State)>| {
        tables.into_iter().filter(|(day, state)| expired(*day) || *state != State::Attached).collect::<Vec<_>>()
    };
    let due = work(tables(&mut *store.pool.acquire().await?).await?);
    if due.is_empty() {
        return Ok(0);
    }
    // Not one of the pool: a statement that is given up waits on, and keeps its connection busy.
    let mut conn = store.session("dms").with([("lock_timeout", LOCK_TIMEOUT)]).connect().await?;
    let mut gone = 0;
    // There can be one half detached partition at most, and while there is no other one can be detached.
    for (day, _) in due.iter().filter(|(_, state)| *state == State::Detaching) {
        finish_detach(&mut conn, *day).await?;
    }
    for (day, state) in due {
        if !expired(day) {
            attach_again(&mut conn, day).await?;
            continue;
        }
        if state == State::Attached {
            detach(&mut conn, day).await?;
        }
        gone += usize::from(drop_detached(&mut conn, day).await?);
    }
    conn.close().await?;
    Ok(gone)
}

async fn detach(conn: &mut PgConnection, day: Day) -> sqlx::Result<()> {
    run(conn, format!("ALTER TABLE segments DETACH PARTITION {} CONCURRENTLY", day.table())).await
}

/// Finishes what [`detach`] began.
async fn finish_detach(conn: &mut PgConnection, day: Day) -> sqlx::Result<()> {
    run(conn, format!("ALTER TABLE segments DETACH PARTITION {} FINALIZE", day.table())).await
}

/// A day that was retired while Postgres's clock was ahead, and has not expired.
async fn attach_again(conn: &mut PgConnection, day: Day) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    lock(&mut tx).await?;
    if state(&mut tx, day).await? == Some(State::Detached) {
        create_day(&mut tx, day).await?;
    }
    tx.commit().await
}

/// Drops a table unless somebody has attached it again; says whether it did.
async fn drop_detached(conn: &mut PgConnection, day: Day) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    lock(&mut tx).await?;
    let detached = state(&mut tx, day).await? == Some(State::Detached);
    if detached {
        run(&mut tx, format!("DROP TABLE {}", day.table())).await?;
    }
    tx.commit().await?;
    Ok(detached)
}

async fn state(conn: &mut PgConnection, day: Day) -> sqlx::Result<Option<State>> {
    Ok(tables(conn).await?.into_iter().find(|(other, _)| *other == day).map(|(_, state)| state))
}

/// A day that is needed again, and is half detached, is not any more after this: it can be attached.
pub(super) async fn finish_if_half_detached(conn: &mut PgConnection, day: Day) -> sqlx::Result<()> {
    match state(conn, day).await? {
        Some(State::Detaching) => finish_detach(conn, day).await,
        _ => Ok(()),
    }
}

/// The names in it are made of numbers of ours.
async fn run(conn: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    utility(statement).execute(conn).await?;
    Ok(())
}
