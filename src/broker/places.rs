//! Where an append lane last saw the rows of its streams.

use std::collections::HashMap;

use crate::domain::ids::StreamId;
use crate::domain::place::Place;
use crate::store::segments::Append;

/// A lane with more streams forgets them all and learns the places of those in use again.
const STREAMS_MAX: usize = 100_000;

/// Places by stream, bounded.
#[derive(Debug, Default)]
pub struct Places(HashMap<StreamId, Place>);

impl Places {
    /// The row of a stream is there now.
    pub fn remember(&mut self, stream: StreamId, place: Place) {
        if self.0.len() >= STREAMS_MAX && !self.0.contains_key(&stream) {
            self.0.clear();
        }
        self.0.insert(stream, place);
    }

    /// Sets apart appends to streams whose place is known, with their places, from the others.
    pub fn split(&self, appends: Vec<Append>) -> ((Vec<Append>, Vec<Place>), Vec<Append>) {
        let (mut known, mut unknown) = ((Vec::new(), Vec::new()), Vec::new());
        for append in appends {
            match self.0.get(&append.stream) {
                Some(place) => known.extend([(append, *place)]),
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

    fn append(stream: i64) -> Append {
        Append { stream: StreamId(stream), message_count: 1, payload: Bytes::new() }
    }

    #[test]
    fn the_last_place_counts() {
        let mut places = Places::default();
        places.remember(StreamId(1), Place { block: 1, line: 1 });
        places.remember(StreamId(1), Place { block: 2, line: 3 });
        let ((known, at), unknown) = places.split(vec![append(1), append(2)]);
        assert_eq!((known[0].stream, &at[..]), (StreamId(1), &[Place { block: 2, line: 3 }][..]));
        assert_eq!((known.len(), unknown.len(), unknown[0].stream), (1, 1, StreamId(2)));
    }

    #[test]
    fn there_are_never_too_many() {
        let mut places = Places::default();
        for stream in 0..=i64::try_from(STREAMS_MAX).expect("small") {
            places.remember(StreamId(stream), Place { block: 0, line: 1 });
        }
        assert_eq!(places.0.len(), 1);
    }
}
