//! Recent segments in memory: consumers mostly want what was just sent through this replica.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::StreamId;
use crate::domain::lease::MessageRef;
use crate::domain::message::Message;
use crate::store::segments::Segment;

/// What a segment costs beside its payload.
const SEGMENT_OVERHEAD_BYTES: usize = 256;
const MESSAGE_OVERHEAD_BYTES: usize = 184;

#[derive(Debug, Default)]
struct Inner {
    segments: BTreeMap<(StreamId, i64), Arc<Segment>>,
    by_age: VecDeque<(StreamId, i64)>,
    bytes: usize,
}

/// The newest segments, bounded in bytes; the oldest goes first.
#[derive(Debug)]
pub struct SegmentCache {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

impl SegmentCache {
    /// An empty cache.
    pub fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::new(Inner::default()), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a committed segment.
    pub fn insert(&self, segment: Arc<Segment>) {
        let size = cost(&segment);
        if size > self.bytes_max {
            return;
        }
        let key = (segment.stream, segment.base_offset);
        let mut inner = self.lock();
        if inner.segments.insert(key, segment).is_some() {
            return;
        }
        inner.by_age.push_back(key);
        inner.bytes += size;
        while inner.bytes > self.bytes_max
            && let Some(oldest) = inner.by_age.pop_front()
        {
            if let Some(segment) = inner.segments.remove(&oldest) {
                inner.bytes -= cost(&segment);
            }
        }
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Forgets all.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// The segment that holds an offset.
    pub fn get(&self, stream: StreamId, offset: i64) -> Option<Arc<Segment>> {
        let inner = self.lock();
        let (key, segment) = inner.segments.range(..=(stream, offset)).next_back()?;
        (key.0 == stream && offset < segment.end_offset()).then(|| Arc::clone(segment))
    }

    /// The first segment that begins behind an offset.
    pub fn next_behind(&self, stream: StreamId, offset: i64) -> Option<Arc<Segment>> {
        let inner = self.lock();
        let (key, segment) = inner.segments.range((Bound::Excluded((stream, offset)), Bound::Unbounded)).next()?;
        (key.0 == stream).then(|| Arc::clone(segment))
    }

    /// The segment that holds a message. An offset alone may mean another one, when Postgres has crashed since.
    pub fn holding(&self, stream: StreamId, at: MessageRef) -> Option<Arc<Segment>> {
        self.get(stream, at.offset).filter(|segment| segment.appended_at == at.appended_at)
    }

    /// A message.
    pub fn message(&self, stream: StreamId, at: MessageRef) -> Option<Message> {
        self.holding(stream, at)?.message(at.offset).cloned()
    }
}

fn cost(segment: &Segment) -> usize {
    let messages = segment.messages.len();
    segment.payload_bytes + SEGMENT_OVERHEAD_BYTES + messages * MESSAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Timestamp;

    fn segment(base_offset: i64, payload_bytes: usize) -> Arc<Segment> {
        let messages = Vec::new();
        let (stream, appended_at) = (StreamId(1), Timestamp(0));
        Arc::new(Segment { stream, base_offset, appended_at, message_count: 10, messages, payload_bytes })
    }

    #[test]
    fn finds_by_any_offset_inside() {
        let cache = SegmentCache::new(10_000);
        cache.insert(segment(10, 100));
        assert!(cache.get(StreamId(1), 9).is_none());
        assert!(cache.get(StreamId(1), 10).is_some());
        assert!(cache.get(StreamId(1), 19).is_some());
        assert!(cache.get(StreamId(1), 20).is_none());
        assert!(cache.get(StreamId(2), 15).is_none());
    }

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let cache = SegmentCache::new(2_000);
        for base in [0, 10, 20] {
            cache.insert(segment(base, 500));
        }
        assert!(cache.get(StreamId(1), 0).is_none());
        assert!(cache.get(StreamId(1), 10).is_some() && cache.get(StreamId(1), 20).is_some());
        cache.insert(segment(30, 5_000));
        assert!(cache.get(StreamId(1), 30).is_none(), "larger than the whole cache");
    }
}
