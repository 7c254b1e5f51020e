//! The log: appends allocate offsets under the stream's row lock, reads go forward from a cursor.

use bytes::Bytes;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, FromRow, PgConnection, Row as _};

use super::codec;
use super::partitions::with_partitions;
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::domain::message::Message;
use crate::domain::place::Place;
use crate::store::metadata::rows::from_row;

/// What moves messages into the log cuts them into segments of at most this size, or of one message.
pub const BYTES_MAX: i64 = 2 * 1024 * 1024;

/// Arguments of a statement that appends.
const ARGUMENTS: usize = 6;
/// What an argument takes in the protocol of Postgres beside its items: a length, and what an array says of itself.
const HEADER_BYTES: usize = 32;
/// What an append takes beside its payload: an item of each of four arrays, with their lengths.
const APPEND_BYTES: usize = 48;

/// Messages to append to one stream, already encoded.
#[derive(Debug, Clone)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// Records in the payload.
    pub message_count: i32,
    /// See [`codec`].
    pub payload: Bytes,
}

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The stream.
    pub stream_id: StreamId,
    /// Offset of its first message.
    pub base_offset: i64,
    /// Its time, later than that of the append before, also while the clock stands still or was put back.
    pub appended_at: Timestamp,
}

impl FromRow<'_, PgRow> for Appended {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            stream_id: StreamId(row.try_get("stream_id")?),
            base_offset: row.try_get("base_offset")?,
            appended_at: row.try_get("appended_at")?,
        })
    }
}

/// Where an append landed, and where the row of its stream is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed {
    /// In the log.
    pub at: Appended,
    /// Where the stream ends now.
    pub(crate) end_offset: i64,
    /// Good once the append is committed.
    pub place: Place,
}

from_row!(Landed { end_offset, place; at });

/// A stored append.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The stream.
    pub stream: StreamId,
    /// Offset of its first message.
    pub base_offset: i64,
    /// When it was appended.
    pub appended_at: Timestamp,
    /// How many offsets it covers.
    pub message_count: i64,
    /// Its messages in order, `None` for one that cannot be read; fewer than it covers when the rest cannot be.
    pub messages: Vec<Option<Message>>,
    /// Size of the payload.
    pub(crate) payload_bytes: usize,
}

impl Segment {
    /// The offset behind its last message.
    pub(crate) fn end_offset(&self) -> i64 {
        self.base_offset + self.message_count
    }

    /// The message at an offset of this segment.
    pub fn message(&self, offset: i64) -> Option<&Message> {
        let index = usize::try_from(offset - self.base_offset).ok()?;
        self.messages.get(index)?.as_ref()
    }

    /// How many of its messages cannot be read.
    pub(crate) fn unreadable(&self) -> usize {
        usize::try_from(self.message_count).unwrap_or(0).saturating_sub(self.messages.iter().flatten().count())
    }

    /// Decodes a payload. A message that cannot be read is reported and left out, its offset stays; what is beyond the number of
    /// messages has no offset, and is reported too.
    pub fn decode(at: Appended, message_count: i32, codec: i16, payload: Bytes) -> Self {
        let payload_bytes = payload.len();
        let decoded = codec::decode(codec, payload);
        let (stream, records) = (at.stream_id.0, decoded.len());
        if usize::try_from(message_count) != Ok(records) {
            tracing::error!(
                stream,
                offset = at.base_offset,
                message_count,
                records,
                "corrupt segment: it has another number of messages than it says"
            );
        }
        let read = |(decoded, offset): (codec::Decoded, i64)| {
            decoded
                .inspect_err(
                    |error| tracing::error!(stream, offset, %error, "corrupt segment: a message cannot be read"),
                )
                .ok()
        };
        let messages = decoded.into_iter().zip(at.base_offset..at.base_offset + i64::from(message_count)).map(read);
        Self {
            stream: at.stream_id,
            base_offset: at.base_offset,
            appended_at: at.appended_at,
            message_count: i64::from(message_count),
            messages: messages.collect(),
            payload_bytes,
        }
    }
}

// The payloads stay out of the update, which copies the rows that it joins when it has to wait: `n` tells which is whose.
macro_rules! append_sql {
    ($moved:literal) => {
        concat!(
            $moved,
            "
    RETURNING s.stream_id, s.next_offset - i.message_count AS base_offset, s.next_offset AS end_offset,
              s.last_appended_at AS appended_at, s.ctid AS place, i.message_count, i.n
), inserted AS (
    INSERT INTO segments (stream_id, base_offset, appended_at, message_count, codec, payload)
    SELECT stream_id, base_offset, appended_at, message_count, $4, ($3::bytea[])[n] FROM moved
)
SELECT stream_id, base_offset, end_offset, appended_at, place FROM moved"
        )
    };
}

/// The statement of [`append`]; public for the test of its plan. It locks the rows in the order of their keys before it moves
/// them, so that two flushes cannot deadlock. ANY keeps the planner from reading a small table whole.
pub const APPEND: &str = append_sql!(
    "
WITH locked AS (
    SELECT i.stream_id, i.message_count, i.n
    FROM (
        SELECT * FROM unnest($1::bigint[], $2::integer[]) WITH ORDINALITY AS i (stream_id, message_count, n) ORDER BY 1
    ) AS i
    CROSS JOIN LATERAL (SELECT FROM streams AS f WHERE f.stream_id = i.stream_id FOR NO KEY UPDATE) AS s
), moved AS (
    UPDATE streams AS s
    SET next_offset = s.next_offset + i.message_count, last_appended_at = greatest(s.last_appended_at + interval '1 microsecond', $5)
    FROM locked AS i
    WHERE s.stream_id = i.stream_id AND s.stream_id = ANY ($1)"
);

/// The statement of [`append_at`], see `store/log/row_location.rs`; public for the test of its plan. It meets the rows in the order of
/// their keys, so that two flushes cannot deadlock.
pub const APPEND_AT: &str = append_sql!(
    "
WITH moved AS (
    UPDATE streams AS s
    SET next_offset = s.next_offset + i.message_count, last_appended_at = greatest(s.last_appended_at + interval '1 microsecond', $5)
    FROM (
        SELECT * FROM unnest($1::bigint[], $2::integer[], $6::tid[]) WITH ORDINALITY AS i (stream_id, message_count, place, n)
        ORDER BY 1
    ) AS i
    WHERE s.ctid = i.place AND s.stream_id + 0 = i.stream_id"
);

/// The statement of [`append_at`] for one stream, the most common flush: no lock is needed before the update, for there is no
/// order to keep, and it costs Postgres half as much.
pub const APPEND_ONE_AT: &str = "
WITH moved AS (
    UPDATE streams
    SET next_offset = next_offset + $2, last_appended_at = greatest(last_appended_at + interval '1 microsecond', $5)
    WHERE ctid = $6 AND stream_id + 0 = $1
    RETURNING stream_id, next_offset - $2 AS base_offset, next_offset AS end_offset, last_appended_at AS appended_at,
              ctid AS place
), inserted AS (
    INSERT INTO segments (stream_id, base_offset, appended_at, message_count, codec, payload)
    SELECT m.stream_id, m.base_offset, m.appended_at, $2, $4, $3 FROM moved AS m
)
SELECT stream_id, base_offset, end_offset, appended_at, place FROM moved";

/// Appends to several streams at once, each named once. A stream that does not exist is missing in the answer.
pub async fn append(conn: &mut PgConnection, appends: &[Append], now: Timestamp) -> sqlx::Result<Vec<Landed>> {
    with_partitions!(conn, now, run(conn, APPEND, appends, None, now))
}

/// The same as part of a transaction, which is spoilt when a partition is missing: see [`with_partitions`].
pub(in crate::store) async fn append_within(
    tx: &mut PgConnection,
    appends: &[Append],
    now: Timestamp,
) -> sqlx::Result<Vec<Landed>> {
    run(tx, APPEND, appends, None, now).await
}

/// The same, looking for the rows of the streams where they were last seen. A stream whose row is not there is missing in the
/// answer, and nothing was appended to it.
pub async fn append_at(
    conn: &mut PgConnection,
    appends: &[Append],
    places: &[Place],
    now: Timestamp,
) -> sqlx::Result<Vec<Landed>> {
    with_partitions!(conn, now, try_append_at(conn, appends, places, now))
}

async fn try_append_at(
    conn: &mut PgConnection,
    appends: &[Append],
    places: &[Place],
    now: Timestamp,
) -> sqlx::Result<Vec<Landed>> {
    if let ([append], [place]) = (appends, places) {
        let query =
            sqlx::query_as_with(APPEND_ONE_AT, room_for(appends)).bind(append.stream.0).bind(append.message_count);
        let query = query.bind(append.payload.as_ref()).bind(codec::CODEC_PLAIN).bind(now).bind(place);
        return query.fetch_all(conn).await;
    }
    run(conn, APPEND_AT, appends, Some(places), now).await
}

/// Arguments with room for these appends: as they are bound, the buffer would grow by copying the payloads.
fn room_for(appends: &[Append]) -> PgArguments {
    let mut arguments = PgArguments::default();
    let payloads: usize = appends.iter().map(|append| append.payload.len()).sum();
    arguments.reserve(ARGUMENTS, payloads + ARGUMENTS * HEADER_BYTES + appends.len() * APPEND_BYTES);
    arguments
}

async fn run(
    conn: &mut PgConnection,
    sql: &'static str,
    appends: &[Append],
    places: Option<&[Place]>,
    now: Timestamp,
) -> sqlx::Result<Vec<Landed>> {
    let streams: Vec<i64> = appends.iter().map(|append| append.stream.0).collect();
    let counts: Vec<i32> = appends.iter().map(|append| append.message_count).collect();
    let payloads: Vec<&[u8]> = appends.iter().map(|append| append.payload.as_ref()).collect();
    let query = sqlx::query_as_with(sql, room_for(appends))
        .bind(streams)
        .bind(counts)
        .bind(payloads)
        .bind(codec::CODEC_PLAIN)
        .bind(now);
    match places {
        Some(places) => query.bind(places).fetch_all(conn).await,
        None => query.fetch_all(conn).await,
    }
}

struct SegmentRow {
    base_offset: i64,
    appended_at: Timestamp,
    message_count: i32,
    codec: i16,
    payload: Vec<u8>,
}

from_row!(SegmentRow { base_offset, appended_at, message_count, codec, payload });

impl SegmentRow {
    fn decode(self, stream_id: StreamId) -> Segment {
        let at = Appended { stream_id, base_offset: self.base_offset, appended_at: self.appended_at };
        Segment::decode(at, self.message_count, self.codec, Bytes::from(self.payload))
    }
}

/// Where to begin to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadFrom {
    /// The stream.
    pub stream: StreamId,
    /// The first offset wanted.
    pub offset: i64,
    /// No segment with that offset or a later one was appended before this.
    pub not_before: Timestamp,
    /// What was appended then or before has expired.
    pub horizon: Timestamp,
    /// What was appended later is not wanted.
    pub not_after: Option<Timestamp>,
}

// Payloads beyond the bound stay where they are: their size is known without reading them.
/// The statement of [`read`]; public for the test of how much it reads. Append times and base offsets increase together, so it
/// walks the primary key from one place, partition by partition.
pub const READ: &str = "
SELECT base_offset, appended_at, message_count, codec, payload
FROM (
    SELECT f.*, sum(f.size) OVER (ORDER BY appended_at, base_offset ROWS UNBOUNDED PRECEDING) - f.size AS size_before
    FROM (
        SELECT base_offset, appended_at, message_count, codec, payload, octet_length(payload) AS size
        FROM segments
        WHERE stream_id = $1 AND appended_at >= $2 AND appended_at > $3 AND base_offset + message_count > $4
          AND appended_at <= coalesce($6::timestamptz, 'infinity')
        ORDER BY appended_at, base_offset
        LIMIT $5
    ) AS f
) AS s
WHERE size_before < $7
ORDER BY appended_at, base_offset";

/// The segments from an offset on that have not expired: at most `limit`, and no more once they have `bytes_max`.
pub async fn read(conn: &mut PgConnection, from: ReadFrom, limit: i64, bytes_max: usize) -> sqlx::Result<Vec<Segment>> {
    let rows: Vec<SegmentRow> = sqlx::query_as(READ)
        .bind(from.stream.0)
        .bind(from.not_before)
        .bind(from.horizon)
        .bind(from.offset)
        .bind(limit)
        .bind(from.not_after)
        .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.decode(from.stream)).collect())
}
