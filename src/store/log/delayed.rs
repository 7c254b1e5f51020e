//! Messages whose delay has not ended.

use bytes::Bytes;
use sqlx::{Connection, PgConnection, PgPool};

use super::codec;
use super::partitions::with_partitions;
use super::segments::{self, Append, Landed, Segment};
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::store::metadata::deletion;

/// One message to hide until it is due.
#[derive(Debug, Clone)]
pub(crate) struct DelayedRecord {
    /// The stream it will be appended to.
    pub stream: StreamId,
    /// When.
    pub due_at: Timestamp,
    /// Its record, encoded.
    pub record: Bytes,
}

const INSERT: &str = "
INSERT INTO delayed_messages (stream_id, due_at, record)
SELECT d.stream_id, d.due_at, d.record
FROM unnest($1::bigint[], $2::timestamptz[], $3::bytea[]) WITH ORDINALITY AS d (stream_id, due_at, record, place)
ORDER BY d.place";

/// Stores delayed messages; their order is kept among equal due times.
async fn insert(conn: &mut PgConnection, records: &[DelayedRecord]) -> sqlx::Result<()> {
    sqlx::query(INSERT)
        .bind(records.iter().map(|record| record.stream.0).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.due_at).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.record.as_ref()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks streams in order and returns those that exist: what is written for the others would never be read.
async fn lock_streams(conn: &mut PgConnection, streams: &[StreamId]) -> sqlx::Result<Vec<StreamId>> {
    let ids: Vec<i64> = streams.iter().map(|stream| stream.0).collect();
    let found: Vec<i64> = sqlx::query_scalar(
        "SELECT stream_id FROM streams WHERE stream_id = ANY ($1) ORDER BY stream_id FOR NO KEY UPDATE",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().map(StreamId).collect())
}

/// Appends and stores delayed messages in one transaction. Answers for each stream that exists where its append landed, if
/// it had one.
pub(crate) async fn append_and_delay(
    conn: &mut PgConnection,
    streams: &[StreamId],
    appends: &[Append],
    delayed: &[DelayedRecord],
    now: Timestamp,
) -> sqlx::Result<Vec<(StreamId, Option<Landed>)>> {
    with_partitions!(conn, now, try_append_and_delay(conn, streams, appends, delayed, now))
}

async fn try_append_and_delay(
    conn: &mut PgConnection,
    streams: &[StreamId],
    appends: &[Append],
    delayed: &[DelayedRecord],
    now: Timestamp,
) -> sqlx::Result<Vec<(StreamId, Option<Landed>)>> {
    let mut tx = conn.begin().await?;
    let present = lock_streams(&mut tx, streams).await?;
    let appended = if appends.is_empty() { Vec::new() } else { segments::append_within(&mut tx, appends, now).await? };
    let delayed: Vec<DelayedRecord> =
        delayed.iter().filter(|record| present.contains(&record.stream)).cloned().collect();
    insert(&mut tx, &delayed).await?;
    tx.commit().await?;
    let landed = |stream: StreamId| appended.iter().find(|landed| landed.at.stream_id == stream).copied();
    Ok(present.into_iter().map(|stream| (stream, landed(stream))).collect())
}

/// What became of the due messages of a stream.
#[derive(Debug)]
pub(crate) enum Due {
    /// As many as one segment should hold were appended.
    Appended(Segment),
    /// There are none.
    Nothing,
    /// Somebody has locked the stream.
    Locked,
}

/// Moves due messages of one stream into its log, in the order they become available. Waits for nobody who has locked the stream.
#[tracing::instrument(name = "delayed::append_due", level = "debug", skip_all)]
pub(crate) async fn append_due(pool: &PgPool, stream: StreamId, now: Timestamp, limit: i64) -> sqlx::Result<Due> {
    let mut conn = pool.acquire().await?;
    with_partitions!(&mut conn, now, try_append_due(&mut conn, stream, now, limit))
}

async fn try_append_due(conn: &mut PgConnection, stream: StreamId, now: Timestamp, limit: i64) -> sqlx::Result<Due> {
    let mut tx = conn.begin().await?;
    match lock_free(&mut tx, stream).await? {
        Lock::Taken => {}
        Lock::Locked => return Ok(Due::Locked),
        Lock::Gone => {
            tx.rollback().await?;
            deletion::purge_delayed(conn, stream).await;
            return Ok(Due::Nothing);
        }
    }
    let records = take_due(&mut tx, stream, now, limit).await?;
    if records.is_empty() {
        return Ok(Due::Nothing);
    }
    let message_count = i32::try_from(records.len()).unwrap_or(i32::MAX);
    let append = Append { stream, message_count, payload: Bytes::from(records.concat()) };
    let appended = segments::append_within(&mut tx, std::slice::from_ref(&append), now).await?;
    tx.commit().await?;
    let segment =
        |landed: &Landed| Segment::decode(landed.at, message_count, codec::CODEC_PLAIN, append.payload.clone());
    Ok(appended.first().map(segment).map_or(Due::Nothing, Due::Appended))
}

enum Lock {
    Taken,
    Locked,
    Gone,
}

/// Locks a stream unless somebody else has.
async fn lock_free(conn: &mut PgConnection, stream: StreamId) -> sqlx::Result<Lock> {
    let taken: Option<bool> =
        sqlx::query_scalar("SELECT true FROM streams WHERE stream_id = $1 FOR NO KEY UPDATE SKIP LOCKED")
            .bind(stream.0)
            .fetch_optional(&mut *conn)
            .await?;
    if taken.is_some() {
        return Ok(Lock::Taken);
    }
    let there: Option<bool> =
        sqlx::query_scalar("SELECT true FROM streams WHERE stream_id = $1").bind(stream.0).fetch_optional(conn).await?;
    Ok(if there.is_some() { Lock::Locked } else { Lock::Gone })
}

/// When the next delay ends.
#[tracing::instrument(name = "delayed::next_due", level = "debug", skip_all)]
pub(crate) async fn next_due(pool: &PgPool) -> sqlx::Result<Option<Timestamp>> {
    sqlx::query_scalar("SELECT min(due_at) FROM delayed_messages").fetch_one(pool).await
}

/// Streams with messages that are due, but for some, at most `limit`.
#[tracing::instrument(name = "delayed::due_streams", level = "debug", skip_all)]
pub(crate) async fn due_streams(
    pool: &PgPool,
    now: Timestamp,
    but: impl Iterator<Item = StreamId>,
    limit: i64,
) -> sqlx::Result<Vec<StreamId>> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT stream_id FROM delayed_messages WHERE due_at <= $1 AND stream_id <> ALL ($3)
         GROUP BY stream_id ORDER BY min(due_at) LIMIT $2",
    )
    .bind(now)
    .bind(limit)
    .bind(but.map(|stream| stream.0).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(StreamId).collect())
}

const TAKE: &str = "
WITH due AS (
    SELECT due_at, delayed_id FROM (
        SELECT due_at, delayed_id, row_number() OVER earliest AS place, sum(octet_length(record)) OVER earliest AS bytes
        FROM (SELECT due_at, delayed_id, record FROM delayed_messages
              WHERE stream_id = $1 AND due_at <= $2 ORDER BY due_at, delayed_id LIMIT $3) AS d
        WINDOW earliest AS (ORDER BY due_at, delayed_id)
    ) AS counted
    WHERE place = 1 OR bytes <= $4
)
DELETE FROM delayed_messages AS d USING due
WHERE d.stream_id = $1 AND d.due_at = due.due_at AND d.delayed_id = due.delayed_id
RETURNING d.due_at, d.delayed_id, d.record";

/// Takes due messages of one locked stream in the order they become available: no more than one segment should hold.
async fn take_due(conn: &mut PgConnection, stream: StreamId, now: Timestamp, limit: i64) -> sqlx::Result<Vec<Bytes>> {
    let mut rows: Vec<(Timestamp, i64, Vec<u8>)> =
        sqlx::query_as(TAKE).bind(stream.0).bind(now).bind(limit).bind(segments::BYTES_MAX).fetch_all(conn).await?;
    rows.sort_by_key(|(due_at, id, _)| (*due_at, *id));
    Ok(rows.into_iter().map(|(_, _, record)| Bytes::from(record)).collect())
}
