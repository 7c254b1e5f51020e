//! What deletions of groups and queues share. One short transaction takes away what makes readers and streams exist; what pointed
//! into them can be reached by nobody then, and goes in batches. So nobody waits for a deletion, however much there is to delete.
//!
//! Should the batches not come to their end, or meet rows that somebody has locked, the rest does no harm: leases end and are swept, failed
//! messages expire, delays end, and each goes then, for its reader or stream is gone.

use sqlx::{PgConnection, PgPool};

use crate::domain::ids::{StreamId, SubscriptionId};

/// Rows deleted by one statement, milliseconds of work: others that want the same rows wait no longer.
const BATCH_ROWS: i64 = 1_000;

/// Public for the test of its plan, as those below.
pub const LOCK_READER: &str = "
SELECT FROM subscriptions WHERE stream_id = ANY ($1) AND subscription_id = $2 ORDER BY stream_id, subscription_id FOR UPDATE";

/// Deletes one reader of streams.
pub const DELETE_READER: &str = "DELETE FROM subscriptions WHERE stream_id = ANY ($1) AND subscription_id = $2";

const LOCK_READERS: &str = "
SELECT FROM subscriptions WHERE stream_id = ANY ($1) ORDER BY stream_id, subscription_id FOR UPDATE";
const DELETE_READERS: &str = "DELETE FROM subscriptions WHERE stream_id = ANY ($1)";

/// Deletes a batch of what one reader has leased.
pub const PURGE_LEASES_OF_READER: &str = "
DELETE FROM leases WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM leases WHERE stream_id = ANY ($1) AND subscription_id = $2 LIMIT $3 FOR UPDATE SKIP LOCKED))";

/// Deletes a batch of what has failed for one reader.
pub const PURGE_RETRIES_OF_READER: &str = "
DELETE FROM retries WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM retries WHERE stream_id = ANY ($1) AND subscription_id = $2 LIMIT $3 FOR UPDATE SKIP LOCKED))";

// In the order of the key, so that no planner thinks of reading the table whole.
macro_rules! purge_sql {
    ($table:literal, $order:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE ctid = ANY (ARRAY(
    SELECT d.place FROM unnest($1::bigint[]) AS s (id) CROSS JOIN LATERAL (
        SELECT ctid AS place FROM ",
            $table,
            " WHERE stream_id = s.id ORDER BY ",
            $order,
            " LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS d LIMIT $2))"
        )
    };
}

/// The same for all readers of streams.
pub const PURGE_LEASES: &str = purge_sql!("leases", "stream_id, subscription_id, lease_id");
/// The same for all readers of streams.
pub const PURGE_RETRIES: &str = purge_sql!("retries", "stream_id, subscription_id, message_offset");
/// Deletes a batch of the messages of streams whose delay has not ended.
pub const PURGE_DELAYED: &str = purge_sql!("delayed_messages", "stream_id, due_at, delayed_id");

/// Deletes one reader of streams; whoever settles or claims for it has come to its end before.
pub(super) async fn delete_reader(
    conn: &mut PgConnection,
    streams: &[i64],
    reader: SubscriptionId,
) -> sqlx::Result<()> {
    for statement in [LOCK_READER, DELETE_READER] {
        sqlx::query(statement).bind(streams).bind(reader.0).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Deletes all readers of streams.
pub(super) async fn delete_readers(conn: &mut PgConnection, streams: &[i64]) -> sqlx::Result<()> {
    for statement in [LOCK_READERS, DELETE_READERS] {
        sqlx::query(statement).bind(streams).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Deletes stream rows, which ends appends to them.
pub(super) async fn delete_streams(conn: &mut PgConnection, streams: &[i64]) -> sqlx::Result<()> {
    sqlx::query("SELECT FROM streams WHERE stream_id = ANY ($1) ORDER BY stream_id FOR UPDATE")
        .bind(streams)
        .execute(&mut *conn)
        .await?;
    sqlx::query("DELETE FROM streams WHERE stream_id = ANY ($1)").bind(streams).execute(conn).await?;
    Ok(())
}

/// Deletes what pointed into streams for a reader that is gone.
pub(crate) async fn purge_reader(pool: &PgPool, streams: &[StreamId], reader: SubscriptionId) {
    let streams = ids(streams);
    for statement in [PURGE_LEASES_OF_READER, PURGE_RETRIES_OF_READER] {
        let batch = || sqlx::query(statement).bind(&streams).bind(reader.0).bind(BATCH_ROWS);
        while let Purged::Full = Purged::of(batch().execute(pool).await) {}
    }
}

/// Deletes what pointed into streams that are gone, or waited for them.
pub(crate) async fn purge_streams(pool: &PgPool, streams: &[StreamId]) {
    let streams = ids(streams);
    for statement in [PURGE_LEASES, PURGE_RETRIES, PURGE_DELAYED] {
        let batch = || sqlx::query(statement).bind(&streams).bind(BATCH_ROWS);
        while let Purged::Full = Purged::of(batch().execute(pool).await) {}
    }
}

/// Deletes the delayed messages of a stream that is gone.
pub(in crate::store) async fn purge_delayed(conn: &mut PgConnection, stream: StreamId) {
    let batch = || sqlx::query(PURGE_DELAYED).bind([stream.0]).bind(BATCH_ROWS);
    while let Purged::Full = Purged::of(batch().execute(&mut *conn).await) {}
}

fn ids(streams: &[StreamId]) -> Vec<i64> {
    streams.iter().map(|stream| stream.0).collect()
}

/// How a batch ended.
enum Purged {
    /// There may be more.
    Full,
    /// There was no more, or it failed: the deletion itself is done, and what is left goes in time.
    Last,
}

impl Purged {
    fn of(batch: sqlx::Result<sqlx::postgres::PgQueryResult>) -> Self {
        match batch {
            Ok(deleted) if deleted.rows_affected() >= BATCH_ROWS.unsigned_abs() => Self::Full,
            Ok(_) => Self::Last,
            Err(error) => {
                tracing::warn!(%error, "what a deleted queue or group leaves behind is not deleted at once");
                Self::Last
            }
        }
    }
}
