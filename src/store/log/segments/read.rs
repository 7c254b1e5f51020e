//! Reads of the log go forward from a cursor.

use bytes::Bytes;
use sqlx::PgConnection;

use super::{Segment, SegmentKey};
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::store::sql::{Sql, parameters, row, statements};

statements![READ];

row! {
    struct SegmentRow {
        base_offset: i64,
        appended_at: Timestamp,
        message_count: i32,
        codec: i16,
        payload: Vec<u8>,
    }
}

impl SegmentRow {
    fn decode(self, stream_id: StreamId) -> Segment {
        let key = SegmentKey { stream_id, base_offset: self.base_offset, appended_at: self.appended_at };
        Segment::decode(key, self.message_count, self.codec, Bytes::from(self.payload))
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

parameters! {
    struct Read {
        stream_id: i64,
        not_before: Timestamp,
        horizon: Timestamp,
        offset: i64,
        limit: i64,
        not_after: Option<Timestamp>,
        bytes_max: i64,
    }
}

// Payloads beyond the bound stay where they are: their size is known without reading them.
/// The statement of [`read`]. Append times and base offsets increase together, so it walks the primary key from one place, partition by partition.
static READ: Sql<Read, SegmentRow> = Sql::new("
SELECT base_offset, appended_at, message_count, codec, payload
FROM (
    SELECT f.*, sum(f.size) OVER (ORDER BY appended_at, base_offset ROWS UNBOUNDED PRECEDING) - f.size AS size_before
    FROM (
        SELECT base_offset, appended_at, message_count, codec, payload, octet_length(payload) AS size
        FROM segments
        WHERE stream_id = $stream_id AND appended_at >= $not_before AND appended_at > $horizon AND base_offset + message_count > $offset
          AND appended_at <= coalesce($not_after::timestamptz, 'infinity')
        ORDER BY appended_at, base_offset
        LIMIT $limit
    ) AS f
) AS s
WHERE size_before < $bytes_max
ORDER BY appended_at, base_offset");

/// The segments from an offset on that have not expired: at most `limit`, and no more once they have `bytes_max`.
pub async fn read(conn: &mut PgConnection, from: ReadFrom, limit: i64, bytes_max: usize) -> sqlx::Result<Vec<Segment>> {
    let parameters = Read {
        stream_id: from.stream.0,
        not_before: from.not_before,
        horizon: from.horizon,
        offset: from.offset,
        limit,
        not_after: from.not_after,
        bytes_max: i64::try_from(bytes_max).unwrap_or(i64::MAX),
    };
    let rows = READ.rows(parameters).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| row.decode(from.stream)).collect())
}
