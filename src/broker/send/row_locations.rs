//! Where an append lane last saw the rows of its streams.

use foldhash::HashMap;

use crate::domain::ids::StreamId;
use crate::store::log::segments::{Append, AppendResult};
use crate::store::row_location::RowLocation;

/// A lane with more streams forgets them all and learns the locations of those in use again.
const STREAMS_MAX: usize = 100_000;

/// Row locations by stream, bounded.
#[derive(Debug, Default)]
pub(crate) struct RowLocations(HashMap<StreamId, StreamEnd>);

/// Where an append left a stream, and its row.
#[derive(Debug)]
struct StreamEnd {
    /// Where its row is; `None` while another replica appends too: the row would be elsewhere by the time of the next append, and
    /// to look for it in vain takes all the messages to Postgres twice.
    location: Option<RowLocation>,
    /// Where the stream ends.
    end: i64,
}

impl RowLocations {
    /// An append has written. When it did not begin where the one before had ended, another replica was there
    /// meanwhile.
    pub(crate) fn remember(&mut self, result: &AppendResult) {
        let stream = result.segment.stream_id;
        if self.0.len() >= STREAMS_MAX && !self.0.contains_key(&stream) {
            self.0.clear();
        }
        let alone = self.0.get(&stream).is_none_or(|last| last.end == result.segment.base_offset);
        self.0.insert(stream, StreamEnd { location: alone.then_some(result.location), end: result.end_offset });
    }

    /// Sets apart appends to streams whose row has a known location, with these locations, from the others.
    pub(crate) fn split(&self, appends: Vec<Append>) -> ((Vec<Append>, Vec<RowLocation>), Vec<Append>) {
        let (mut known, mut unknown) = ((Vec::new(), Vec::new()), Vec::new());
        for append in appends {
            match self.0.get(&append.stream).and_then(|last| last.location) {
                Some(location) => known.extend([(append, location)]),
                None => unknown.push(append),
            }
        }
        (known, unknown)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::store::log::segments::SegmentKey;

    fn append(stream: i64) -> Append {
        Append { stream: StreamId(stream), message_count: 1, payload: Bytes::new() }
    }

    /// An append of one message that landed at this offset, with its row on this line.
    fn appended(stream: i64, base_offset: i64, line: u16) -> AppendResult {
        let segment = SegmentKey { stream_id: StreamId(stream), base_offset, appended_at: Timestamp(0) };
        AppendResult { segment, end_offset: base_offset + 1, location: RowLocation { block: 1, line } }
    }

    /// Where the row of the first stream is looked for.
    fn line(locations: &RowLocations) -> Option<u16> {
        locations.split(vec![append(1)]).0.1.first().map(|location| location.line)
    }

    #[test]
    fn the_last_location_counts() {
        let mut locations = RowLocations::default();
        locations.remember(&appended(1, 0, 1));
        locations.remember(&appended(1, 1, 2));
        let ((known, at), unknown) = locations.split(vec![append(1), append(2)]);
        assert_eq!((known[0].stream, &at[..]), (StreamId(1), &[RowLocation { block: 1, line: 2 }][..]));
        assert_eq!((known.len(), unknown.len(), unknown[0].stream), (1, 1, StreamId(2)));
    }

    #[test]
    fn the_row_is_not_looked_for_while_another_replica_moves_it() {
        let mut locations = RowLocations::default();
        for (base_offset, expected) in [(0, Some(1)), (1, Some(1)), (5, None), (9, None), (10, Some(1)), (11, Some(1))]
        {
            locations.remember(&appended(1, base_offset, 1));
            assert_eq!(line(&locations), expected, "{base_offset}");
        }
    }

    #[test]
    fn there_are_never_too_many() {
        let mut locations = RowLocations::default();
        for stream in 0..=i64::try_from(STREAMS_MAX).expect("small") {
            locations.remember(&appended(stream, 0, 1));
        }
        assert_eq!(locations.0.len(), 1);
    }
}
