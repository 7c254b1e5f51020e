//! Recent segments in memory: consumers mostly want what was just sent through this replica.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::StreamId;
use crate::domain::lease::MessageRef;
use crate::domain::message::Message;
use crate::store::log::segments::Segment;

/// What a segment costs beside its payload.
const SEGMENT_OVERHEAD_BYTES: usize = 256;
/// What a decoded message costs beside its bytes.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 184;

#[derive(Debug, Default)]
struct Inner {
    segments: BTreeMap<(StreamId, i64), Arc<Segment>>,
    by_age: VecDeque<(StreamId, i64)>,
    bytes: usize,
    epoch: Epoch,
}

/// Tells what was committed or read before the cache was last cleared from what was afterwards.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// The newest segments, bounded in bytes; the oldest goes first.
#[derive(Debug)]
pub(crate) struct SegmentCache {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

impl SegmentCache {
    /// An empty cache.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::new(Inner::default()), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has to be asked for before a segment is committed or read that is to be kept.
    pub(crate) fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    /// Adds a committed segment, unless all was forgotten since `epoch`: a crash of Postgres may have taken it back.
    pub(crate) fn insert(&self, epoch: Epoch, segment: Arc<Segment>) {
        let size = cost(&segment);
        let mut inner = self.lock();
        if size > self.bytes_max || inner.epoch != epoch {
            return;
        }
        let key = (segment.stream, segment.base_offset);
        inner.bytes += size;
        match inner.segments.insert(key, segment) {
            Some(replaced) => inner.bytes -= cost(&replaced),
            None => inner.by_age.push_back(key),
        }
        while inner.bytes > self.bytes_max
            && let Some(oldest) = inner.by_age.pop_front()
        {
            if let Some(segment) = inner.segments.remove(&oldest) {
                inner.bytes -= cost(&segment);
            }
        }
    }

    /// Bytes kept.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Forgets all, also what is about to be added.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        let epoch = Epoch(inner.epoch.0 + 1);
        *inner = Inner { epoch, ..Inner::default() };
    }

    /// The segment that holds an offset.
    pub(crate) fn get(&self, stream: StreamId, offset: i64) -> Option<Arc<Segment>> {
        let inner = self.lock();
        let (key, segment) = inner.segments.range(..=(stream, offset)).next_back()?;
        (key.0 == stream && offset < segment.end_offset()).then(|| Arc::clone(segment))
    }

    /// The first segment that begins behind an offset.
    pub(crate) fn next_behind(&self, stream: StreamId, offset: i64) -> Option<Arc<Segment>> {
        let inner = self.lock();
        let (key, segment) = inner.segments.range((Bound::Excluded((stream, offset)), Bound::Unbounded)).next()?;
        (key.0 == stream).then(|| Arc::clone(segment))
    }

    /// The segment that holds a message. An offset alone may mean another one, when Postgres has crashed since.
    pub(crate) fn holding(&self, stream: StreamId, at: MessageRef) -> Option<Arc<Segment>> {
        self.get(stream, at.offset).filter(|segment| segment.appended_at == at.appended_at)
    }

    /// A message.
    pub(crate) fn message(&self, stream: StreamId, at: MessageRef) -> Option<Message> {
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
        cache.insert(cache.epoch(), segment(10, 100));
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
            cache.insert(cache.epoch(), segment(base, 500));
        }
        assert!(cache.get(StreamId(1), 0).is_none());
        assert!(cache.get(StreamId(1), 10).is_some() && cache.get(StreamId(1), 20).is_some());
        cache.insert(cache.epoch(), segment(30, 5_000));
        assert!(cache.get(StreamId(1), 30).is_none(), "larger than the whole cache");
    }

    #[test]
    fn the_bytes_of_a_replaced_segment_are_given_back() {
        let cache = SegmentCache::new(2_000);
        for payload_bytes in [500, 100, 1_000] {
            cache.insert(cache.epoch(), segment(0, payload_bytes));
            assert_eq!(cache.bytes(), cost(&segment(0, payload_bytes)));
        }
        cache.insert(cache.epoch(), segment(10, 500));
        cache.insert(cache.epoch(), segment(10, 1_000));
        assert_eq!(cache.bytes(), cost(&segment(0, 1_000)), "the older one has made room");
        assert!(cache.get(StreamId(1), 0).is_none());
    }

    #[test]
    fn what_was_committed_before_all_was_forgotten_is_not_kept() {
        let cache = SegmentCache::new(10_000);
        let before = cache.epoch();
        cache.clear();
        cache.insert(before, segment(0, 100));
        assert_eq!((cache.bytes(), cache.get(StreamId(1), 0).is_some()), (0, false));
        cache.insert(cache.epoch(), segment(0, 100));
        assert!(cache.get(StreamId(1), 0).is_some());
    }
}
