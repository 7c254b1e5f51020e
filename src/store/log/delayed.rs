//! Messages whose delay has not ended.

use bytes::Bytes;
use sqlx::{Connection, PgConnection, PgPool};

use super::codec;
use super::partitions::with_partitions;
use super::segments::{self, Append, AppendResult, Segment};
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::store::metadata::deletion;
use crate::store::sql::{Sql, parameters, row, statements};

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

statements![INSERT, LOCK_STREAMS, LOCK_FREE, IS_THERE, NEXT_DUE, DUE_STREAMS, TAKE];

parameters! {
    struct Insert<'a> {
        stream_ids: Vec<i64>,
        due_ats: Vec<Timestamp>,
        records: Vec<&'a [u8]>,
    }
}

static INSERT: Sql<Insert<'static>, ()> = Sql::new("
INSERT INTO delayed_messages (stream_id, due_at, record)
SELECT d.stream_id, d.due_at, d.record
FROM unnest($stream_ids::bigint[], $due_ats::timestamptz[], $records::bytea[]) WITH ORDINALITY AS d (stream_id, due_at, record, place)
ORDER BY d.place");

/// Stores delayed messages; their order is kept among equal due times.
async fn insert(conn: &mut PgConnection, records: &[DelayedRecord]) -> sqlx::Result<()> {
    let parameters = Insert {
        stream_ids: records.iter().map(|record| record.stream.0).collect(),
        due_ats: records.iter().map(|record| record.due_at).collect(),
        records: records.iter().map(|record| record.record.as_ref()).collect(),
    };
    INSERT.run(parameters).execute(conn).await?;
    Ok(())
}

static LOCK_STREAMS: Sql<(&[i64],), (i64,)> =
    Sql::new("SELECT stream_id FROM streams WHERE stream_id = ANY ($1) ORDER BY stream_id FOR NO KEY UPDATE");

/// Locks streams in order and returns those that exist: what is written for the others would never be read.
async fn lock_streams(conn: &mut PgConnection, streams: &[StreamId]) -> sqlx::Result<Vec<StreamId>> {
    let ids: Vec<i64> = streams.iter().map(|stream| stream.0).collect();
    let found = LOCK_STREAMS.scalar((&ids,)).fetch_all(conn).await?;
    Ok(found.into_iter().map(StreamId).collect())
}

/// Appends and stores delayed messages in one transaction. Answers for each stream that exists with the result of its append, if
/// it had one.
pub(crate) async fn append_and_delay(
    conn: &mut PgConnection,
    streams: &[StreamId],
    appends: &[Append],
    delayed: &[DelayedRecord],
    now: Timestamp,
) -> sqlx::Result<Vec<(StreamId, Option<AppendResult>)>> {
    with_partitions!(conn, now, try_append_and_delay(conn, streams, appends, delayed, now))
}

async fn try_append_and_delay(
    conn: &mut PgConnection,
    streams: &[StreamId],
    appends: &[Append],
    delayed: &[DelayedRecord],
    now: Timestamp,
) -> sqlx::Result<Vec<(StreamId, Option<AppendResult>)>> {
    let mut tx = conn.begin().await?;
    let present = lock_streams(&mut tx, streams).await?;
    let appended = if appends.is_empty() { Vec::new() } else { segments::append_within(&mut tx, appends, now).await? };
    let delayed: Vec<DelayedRecord> =
        delayed.iter().filter(|record| present.contains(&record.stream)).cloned().collect();
    insert(&mut tx, &delayed).await?;
    tx.commit().await?;
    let result_of = |stream: StreamId| appended.iter().find(|result| result.segment.stream_id == stream).copied();
    Ok(present.into_iter().map(|stream| (stream, result_of(stream))).collect())
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
    let segment = |result: &AppendResult| {
        Segment::decode(result.segment, message_count, codec::CODEC_PLAIN, append.payload.clone())
    };
    Ok(appended.first().map(segment).map_or(Due::Nothing, Due::Appended))
}

enum Lock {
    Taken,
    Locked,
    Gone,
}

static LOCK_FREE: Sql<(i64,), (bool,)> =
    Sql::new("SELECT true FROM streams WHERE stream_id = $1 FOR NO KEY UPDATE SKIP LOCKED");
static IS_THERE: Sql<(i64,), (bool,)> = Sql::new("SELECT true FROM streams WHERE stream_id = $1");

/// Locks a stream unless somebody else has.
async fn lock_free(conn: &mut PgConnection, stream: StreamId) -> sqlx::Result<Lock> {
    if LOCK_FREE.scalar((stream.0,)).fetch_optional(&mut *conn).await?.is_some() {
        return Ok(Lock::Taken);
    }
    let there = IS_THERE.scalar((stream.0,)).fetch_optional(conn).await?;
    Ok(if there.is_some() { Lock::Locked } else { Lock::Gone })
}

static NEXT_DUE: Sql<(), (Option<Timestamp>,)> = Sql::new("SELECT min(due_at) FROM delayed_messages");

/// When the next delay ends.
#[tracing::instrument(name = "delayed::next_due", level = "debug", skip_all)]
pub(crate) async fn next_due(pool: &PgPool) -> sqlx::Result<Option<Timestamp>> {
    NEXT_DUE.scalar(()).fetch_one(pool).await
}

parameters! {
    struct DueStreams {
        now: Timestamp,
        but: Vec<i64>,
        limit: i64,
    }
}

static DUE_STREAMS: Sql<DueStreams, (i64,)> = Sql::new(
    "
SELECT stream_id FROM delayed_messages WHERE due_at <= $now AND stream_id <> ALL ($but)
GROUP BY stream_id ORDER BY min(due_at) LIMIT $limit",
);

/// Streams with messages that are due, but for some, at most `limit`.
#[tracing::instrument(name = "delayed::due_streams", level = "debug", skip_all)]
pub(crate) async fn due_streams(
    pool: &PgPool,
    now: Timestamp,
    but: impl Iterator<Item = StreamId>,
    limit: i64,
) -> sqlx::Result<Vec<StreamId>> {
    let but = but.map(|stream| stream.0).collect();
    let rows = DUE_STREAMS.scalar(DueStreams { now, but, limit }).fetch_all(pool).await?;
    Ok(rows.into_iter().map(StreamId).collect())
}

parameters! {
    struct Take {
        stream_id: i64,
        now: Timestamp,
        limit: i64,
        bytes_max: i64,
    }
}

row! {
    struct DueRow {
        due_at: Timestamp,
        delayed_id: i64,
        record: Vec<u8>,
    }
}

static TAKE: Sql<Take, DueRow> = Sql::new(
    "
WITH due AS (
    SELECT due_at, delayed_id FROM (
        SELECT due_at, delayed_id, row_number() OVER earliest AS place, sum(octet_length(record)) OVER earliest AS bytes
        FROM (SELECT due_at, delayed_id, record FROM delayed_messages
              WHERE stream_id = $stream_id AND due_at <= $now ORDER BY due_at, delayed_id LIMIT $limit) AS d
        WINDOW earliest AS (ORDER BY due_at, delayed_id)
    ) AS counted
    WHERE place = 1 OR bytes <= $bytes_max
)
DELETE FROM delayed_messages AS d USING due
WHERE d.stream_id = $stream_id AND d.due_at = due.due_at AND d.delayed_id = due.delayed_id
RETURNING d.due_at, d.delayed_id, d.record",
);

/// Takes due messages of one locked stream in the order they become available: no more than one segment should hold.
async fn take_due(conn: &mut PgConnection, stream: StreamId, now: Timestamp, limit: i64) -> sqlx::Result<Vec<Bytes>> {
    let parameters = Take { stream_id: stream.0, now, limit, bytes_max: segments::BYTES_MAX };
    let mut rows = TAKE.rows(parameters).fetch_all(conn).await?;
    rows.sort_by_key(|row| (row.due_at, row.delayed_id));
    Ok(rows.into_iter().map(|row| Bytes::from(row.record)).collect())
}
