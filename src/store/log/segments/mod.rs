//! The log: appends allocate offsets under the stream's row lock, reads go forward from a cursor.

mod read;

pub use self::read::{ReadFrom, read};

use bytes::Bytes;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, PgConnection};

use super::codec;
use super::partitions::with_partitions;
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::domain::message::Message;
use crate::store::row_location::RowLocation;
use crate::store::sql::{Sql, Statement, parameters, read_as, row, statements};

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

/// What tells a stored append from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentKey {
    /// The stream.
    pub stream_id: StreamId,
    /// Offset of its first message.
    pub base_offset: i64,
    /// Its time, later than that of the append before, also while the clock stands still or was put back.
    pub appended_at: Timestamp,
}

/// What an append has written, and where the row of its stream is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendResult {
    /// The segment that holds the messages.
    pub segment: SegmentKey,
    /// Where the stream ends now.
    pub(crate) end_offset: i64,
    /// Good once the append is committed.
    pub location: RowLocation,
}

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
    pub fn decode(key: SegmentKey, message_count: i32, codec: i16, payload: Bytes) -> Self {
        let payload_bytes = payload.len();
        let decoded = codec::decode(codec, payload);
        let (stream, records) = (key.stream_id.0, decoded.len());
        if usize::try_from(message_count) != Ok(records) {
            tracing::error!(
                stream,
                offset = key.base_offset,
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
        let messages = decoded.into_iter().zip(key.base_offset..key.base_offset + i64::from(message_count)).map(read);
        Self {
            stream: key.stream_id,
            base_offset: key.base_offset,
            appended_at: key.appended_at,
            message_count: i64::from(message_count),
            messages: messages.collect(),
            payload_bytes,
        }
    }
}

parameters! {
    /// Appends to streams that are looked for by their keys.
    struct AppendMany<'a> {
        stream_ids: Vec<i64>,
        message_counts: Vec<i32>,
        payloads: Vec<&'a [u8]>,
        codec: i16,
        now: Timestamp,
    }
}

parameters! {
    /// Appends to streams that are looked for where they were last seen.
    struct AppendManyAt<'a> {
        stream_ids: Vec<i64>,
        message_counts: Vec<i32>,
        payloads: Vec<&'a [u8]>,
        codec: i16,
        now: Timestamp,
        locations: &'a [RowLocation],
    }
}

parameters! {
    /// An append to one stream.
    struct AppendOneAt<'a> {
        stream_id: i64,
        message_count: i32,
        payload: &'a [u8],
        codec: i16,
        now: Timestamp,
        location: RowLocation,
    }
}

row! {
    struct AppendRow {
        stream_id: i64,
        base_offset: i64,
        end_offset: i64,
        appended_at: Timestamp,
        location: RowLocation,
    }
}

impl From<AppendRow> for AppendResult {
    fn from(row: AppendRow) -> Self {
        let stream_id = StreamId(row.stream_id);
        let segment = SegmentKey { stream_id, base_offset: row.base_offset, appended_at: row.appended_at };
        Self { segment, end_offset: row.end_offset, location: row.location }
    }
}

read_as!(AppendRow => AppendResult);

statements![APPEND, APPEND_AT, APPEND_ONE_AT];

pub(in crate::store) fn all_statements() -> Vec<Statement> {
    [statements(), read::statements()].concat()
}

// The payloads stay out of the update, which copies the rows that it joins when it has to wait: `n` tells which is whose.
macro_rules! append_sql {
    ($moved:literal) => {
        concat!(
            $moved,
            "
    RETURNING s.stream_id, s.next_offset - i.message_count AS base_offset, s.next_offset AS end_offset,
              s.last_appended_at AS appended_at, s.ctid AS location, i.message_count, i.n
), inserted AS (
    INSERT INTO segments (stream_id, base_offset, appended_at, message_count, codec, payload)
    SELECT stream_id, base_offset, appended_at, message_count, $codec, ($payloads::bytea[])[n] FROM moved
)
SELECT stream_id, base_offset, end_offset, appended_at, location FROM moved"
        )
    };
}

/// The statement of [`append`]. It locks the rows in the order of their keys before it moves
/// them, so that two flushes cannot deadlock. ANY keeps the planner from reading a small table whole.
static APPEND: Sql<AppendMany<'static>, AppendResult> = Sql::new(append_sql!(
    "
WITH locked AS (
    SELECT i.stream_id, i.message_count, i.n
    FROM (
        SELECT * FROM unnest($stream_ids::bigint[], $message_counts::integer[]) WITH ORDINALITY AS i (stream_id, message_count, n) ORDER BY 1
    ) AS i
    CROSS JOIN LATERAL (SELECT FROM streams AS f WHERE f.stream_id = i.stream_id FOR NO KEY UPDATE) AS s
), moved AS (
    UPDATE streams AS s
    SET next_offset = s.next_offset + i.message_count, last_appended_at = greatest(s.last_appended_at + interval '1 microsecond', $now)
    FROM locked AS i
    WHERE s.stream_id = i.stream_id AND s.stream_id = ANY ($stream_ids)"
));

/// The statement of [`append_at`], see `store/row_location.rs`. It meets the rows in the order of
/// their keys, so that two flushes cannot deadlock.
static APPEND_AT: Sql<AppendManyAt<'static>, AppendResult> = Sql::new(append_sql!(
    "
WITH moved AS (
    UPDATE streams AS s
    SET next_offset = s.next_offset + i.message_count, last_appended_at = greatest(s.last_appended_at + interval '1 microsecond', $now)
    FROM (
        SELECT * FROM unnest($stream_ids::bigint[], $message_counts::integer[], $locations::tid[]) WITH ORDINALITY AS i (stream_id, message_count, location, n)
        ORDER BY 1
    ) AS i
    WHERE s.ctid = i.location AND s.stream_id + 0 = i.stream_id"
));

/// The statement of [`append_at`] for one stream, the most common flush: no lock is needed before the update, for there is no
/// order to keep, and it costs Postgres half as much.
static APPEND_ONE_AT: Sql<AppendOneAt<'static>, AppendResult> = Sql::new("
WITH moved AS (
    UPDATE streams
    SET next_offset = next_offset + $message_count::integer, last_appended_at = greatest(last_appended_at + interval '1 microsecond', $now)
    WHERE ctid = $location AND stream_id + 0 = $stream_id
    RETURNING stream_id, next_offset - $message_count::integer AS base_offset, next_offset AS end_offset, last_appended_at AS appended_at,
              ctid AS location
), inserted AS (
    INSERT INTO segments (stream_id, base_offset, appended_at, message_count, codec, payload)
    SELECT m.stream_id, m.base_offset, m.appended_at, $message_count, $codec, $payload FROM moved AS m
)
SELECT stream_id, base_offset, end_offset, appended_at, location FROM moved");

/// Appends to several streams at once, each named once. A stream that does not exist is missing in the answer.
pub async fn append(conn: &mut PgConnection, appends: &[Append], now: Timestamp) -> sqlx::Result<Vec<AppendResult>> {
    with_partitions!(conn, now, append_within(conn, appends, now))
}

/// The same as part of a transaction, which is spoilt when a partition is missing: see [`with_partitions`].
pub(in crate::store) async fn append_within(
    tx: &mut PgConnection,
    appends: &[Append],
    now: Timestamp,
) -> sqlx::Result<Vec<AppendResult>> {
    let AppendColumns { stream_ids, message_counts, payloads } = AppendColumns::of(appends);
    let parameters = AppendMany { stream_ids, message_counts, payloads, codec: codec::CODEC_PLAIN, now };
    APPEND.rows_with(room_for(appends), parameters).fetch_all(tx).await
}

/// The same, looking for the rows of the streams where they were last seen. A stream whose row is not there is missing in the
/// answer, and nothing was appended to it.
pub async fn append_at(
    conn: &mut PgConnection,
    appends: &[Append],
    locations: &[RowLocation],
    now: Timestamp,
) -> sqlx::Result<Vec<AppendResult>> {
    with_partitions!(conn, now, try_append_at(conn, appends, locations, now))
}

async fn try_append_at(
    conn: &mut PgConnection,
    appends: &[Append],
    locations: &[RowLocation],
    now: Timestamp,
) -> sqlx::Result<Vec<AppendResult>> {
    if let ([append], [location]) = (appends, locations) {
        return append_one_at(conn, append, *location, now).await;
    }
    let AppendColumns { stream_ids, message_counts, payloads } = AppendColumns::of(appends);
    let parameters = AppendManyAt { stream_ids, message_counts, payloads, codec: codec::CODEC_PLAIN, now, locations };
    APPEND_AT.rows_with(room_for(appends), parameters).fetch_all(conn).await
}

async fn append_one_at(
    conn: &mut PgConnection,
    append: &Append,
    location: RowLocation,
    now: Timestamp,
) -> sqlx::Result<Vec<AppendResult>> {
    let parameters = AppendOneAt {
        stream_id: append.stream.0,
        message_count: append.message_count,
        payload: &append.payload,
        codec: codec::CODEC_PLAIN,
        now,
        location,
    };
    APPEND_ONE_AT.rows_with(room_for(std::slice::from_ref(append)), parameters).fetch_all(conn).await
}

/// Arguments with room for these appends: as they are bound, the buffer would grow by copying the payloads.
fn room_for(appends: &[Append]) -> PgArguments {
    let mut arguments = PgArguments::default();
    let payloads: usize = appends.iter().map(|append| append.payload.len()).sum();
    arguments.reserve(ARGUMENTS, payloads + ARGUMENTS * HEADER_BYTES + appends.len() * APPEND_BYTES);
    arguments
}

/// Appends column by column.
struct AppendColumns<'a> {
    stream_ids: Vec<i64>,
    message_counts: Vec<i32>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> AppendColumns<'a> {
    fn of(appends: &'a [Append]) -> Self {
        Self {
            stream_ids: appends.iter().map(|append| append.stream.0).collect(),
            message_counts: appends.iter().map(|append| append.message_count).collect(),
            payloads: appends.iter().map(|append| append.payload.as_ref()).collect(),
        }
    }
}
