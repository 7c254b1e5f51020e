//! Reads the segments that hold given messages: for failed messages and for dead letters, one bounded statement for many.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::segments::{Segment, SegmentKey};
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::domain::lease::MessageRef;
use crate::store::sql::{Sql, parameters, row, statements};

/// Messages looked up by one statement.
pub(crate) const MESSAGES_MAX: usize = 1000;

/// What a statement has brought.
#[derive(Debug, Default)]
pub struct HeldSegments {
    /// The segments that were read, whole.
    pub segments: Vec<Segment>,
    /// By stream, append time and first offset: segments that exist and would have exceeded the bounds.
    deferred: BTreeSet<(StreamId, Timestamp, i64, i64)>,
    /// Messages that were not looked for.
    beyond: BTreeSet<(StreamId, i64)>,
}

impl HeldSegments {
    /// The segment that holds a message.
    pub fn find(&self, stream: StreamId, message: MessageRef) -> Option<&Segment> {
        let holds = |segment: &&Segment| {
            segment.stream == stream
                && segment.appended_at == message.appended_at
                && (segment.base_offset..segment.end_offset()).contains(&message.offset)
        };
        self.segments.iter().find(holds)
    }

    /// Whether a message that is in none of the segments may still exist. If not, it is gone for good.
    pub fn has_deferred(&self, stream: StreamId, message: MessageRef) -> bool {
        let holds = |(of, appended_at, first, end): &(StreamId, Timestamp, i64, i64)| {
            *of == stream && *appended_at == message.appended_at && (*first..*end).contains(&message.offset)
        };
        self.beyond.contains(&(stream, message.offset)) || self.deferred.iter().any(holds)
    }
}

/// One append time of a stream, and the offsets wanted there: its messages are usually one segment.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    first: i64,
    last: i64,
}

row! {
    struct HeldRow {
        stream_id: i64,
        base_offset: i64,
        appended_at: Timestamp,
        message_count: i32,
        codec: i16,
        payload: Option<Vec<u8>>,
    }
}

statements![READ_HOLDING];

parameters! {
    struct ReadHolding {
        stream_ids: Vec<i64>,
        appended_ats: Vec<Timestamp>,
        first_offsets: Vec<i64>,
        last_offsets: Vec<i64>,
        bytes_max: i64,
    }
}

// By the exact append time, so that each look-up touches one partition. Payloads beyond the bound stay where they are: only their
// size is looked at, which does not read them. The first one always comes.
static READ_HOLDING: Sql<ReadHolding, HeldRow> = Sql::new("
SELECT stream_id, base_offset, appended_at, message_count, codec,
       CASE WHEN sum(size) OVER (ORDER BY n, base_offset ROWS UNBOUNDED PRECEDING) - size < $bytes_max THEN payload END AS payload
FROM unnest($stream_ids::bigint[], $appended_ats::timestamptz[], $first_offsets::bigint[], $last_offsets::bigint[])
    WITH ORDINALITY AS k (wanted_stream, wanted_time, first_offset, last_offset, n)
CROSS JOIN LATERAL (
    SELECT f.stream_id, f.base_offset, f.appended_at, f.message_count, f.codec, f.payload, octet_length(f.payload) AS size
    FROM segments AS f
    WHERE f.stream_id = k.wanted_stream AND f.appended_at = k.wanted_time
      AND f.base_offset <= k.last_offset AND f.base_offset + f.message_count > k.first_offset
    OFFSET 0
) AS s");

/// Reads the segments that hold these messages, in the order in which the messages are named, until they have so many bytes:
/// at least one segment if there is any, and at most one more than the bound allows.
pub async fn read_holding(
    conn: &mut PgConnection,
    messages: &[(StreamId, MessageRef)],
    bytes_max: usize,
) -> sqlx::Result<HeldSegments> {
    let (now, later) = messages.split_at(messages.len().min(MESSAGES_MAX));
    let mut held = HeldSegments {
        beyond: later.iter().map(|(stream, message)| (*stream, message.offset)).collect(),
        ..HeldSegments::default()
    };
    let wanted = by_append_time(now);
    let parameters = ReadHolding {
        stream_ids: wanted.iter().map(|((stream, _), _)| stream.0).collect(),
        appended_ats: wanted.iter().map(|((_, appended_at), _)| *appended_at).collect(),
        first_offsets: wanted.iter().map(|(_, wanted)| wanted.first).collect(),
        last_offsets: wanted.iter().map(|(_, wanted)| wanted.last).collect(),
        bytes_max: i64::try_from(bytes_max).unwrap_or(i64::MAX),
    };
    let rows = READ_HOLDING.rows(parameters).fetch_all(conn).await?;
    for row in rows {
        let key = SegmentKey {
            stream_id: StreamId(row.stream_id),
            base_offset: row.base_offset,
            appended_at: row.appended_at,
        };
        match row.payload {
            Some(payload) => held.segments.push(Segment::decode(key, row.message_count, row.codec, payload.into())),
            None => {
                let end = row.base_offset + i64::from(row.message_count);
                held.deferred.insert((key.stream_id, key.appended_at, key.base_offset, end));
            }
        }
    }
    Ok(held)
}

/// The offsets wanted of each append time, in the order in which the times are first named.
fn by_append_time(messages: &[(StreamId, MessageRef)]) -> Vec<((StreamId, Timestamp), Wanted)> {
    let mut places: BTreeMap<(StreamId, Timestamp), usize> = BTreeMap::new();
    let mut wanted: Vec<((StreamId, Timestamp), Wanted)> = Vec::new();
    for (stream, MessageRef { offset, appended_at, .. }) in messages {
        let place = *places.entry((*stream, *appended_at)).or_insert(wanted.len());
        match wanted.get_mut(place) {
            Some((_, wanted)) => (wanted.first, wanted.last) = (wanted.first.min(*offset), wanted.last.max(*offset)),
            None => wanted.push(((*stream, *appended_at), Wanted { first: *offset, last: *offset })),
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(offset: i64, appended_at: i64) -> (StreamId, MessageRef) {
        (StreamId(1), MessageRef { offset, attempts: 1, appended_at: Timestamp(appended_at) })
    }

    #[test]
    fn messages_of_one_append_are_looked_up_together_in_the_order_of_the_first() {
        let wanted = by_append_time(&[message(9, 5), message(3, 4), message(7, 5), message(8, 5)]);
        let wanted: Vec<_> =
            wanted.into_iter().map(|((_, time), wanted)| (time.0, wanted.first, wanted.last)).collect();
        assert_eq!(wanted, [(5, 7, 9), (4, 3, 3)]);
    }

    #[test]
    fn what_was_deferred_is_not_gone() {
        let (_, asked) = message(12, 5);
        let held = HeldSegments {
            deferred: BTreeSet::from([(StreamId(1), Timestamp(5), 10, 20)]),
            beyond: BTreeSet::from([(StreamId(1), 99)]),
            ..HeldSegments::default()
        };
        assert!(held.has_deferred(StreamId(1), asked) && held.has_deferred(StreamId(1), message(99, 1).1));
        for gone in [message(20, 5).1, message(12, 6).1] {
            assert!(!held.has_deferred(StreamId(1), gone), "{gone:?}");
        }
        assert!(!held.has_deferred(StreamId(2), asked));
    }
}
