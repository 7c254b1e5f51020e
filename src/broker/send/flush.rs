//! The sends of one flush, by stream, and their answers.

use std::collections::BTreeMap;

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::AppendRequest;
use crate::broker::core::Core;
use crate::broker::replicas::cache::Epoch;
use crate::broker::replicas::wakeups::Wakeup;
use crate::domain::ids::StreamId;
use crate::domain::{Error, Result};
use crate::store::log::codec;
use crate::store::log::delayed::DelayedRecord;
use crate::store::log::segments::{Append, Segment, SegmentKey};

/// What a call keeps in memory beside its messages.
const CALL_BYTES: usize = 64;

/// What a flush did to each stream that exists: the segment of its append, if it had one.
pub(super) type FlushResults = BTreeMap<StreamId, Result<Option<SegmentKey>>>;

/// What goes to one stream.
pub(super) struct StreamFlush {
    append: Option<Append>,
    delayed: Vec<DelayedRecord>,
    replies: Vec<oneshot::Sender<Result<bool>>>,
}

/// What is committed together.
pub(super) struct Flush {
    streams: BTreeMap<StreamId, StreamFlush>,
    /// Of the cache, before any of it is committed.
    epoch: Epoch,
}

impl Flush {
    /// One segment for each stream.
    pub(super) fn new(requests: Vec<AppendRequest>, epoch: Epoch) -> Self {
        let mut by_stream: BTreeMap<StreamId, Vec<AppendRequest>> = BTreeMap::new();
        for request in requests {
            by_stream.entry(request.stream).or_default().push(request);
        }
        let streams =
            by_stream.into_iter().map(|(stream, requests)| (stream, StreamFlush::new(stream, requests))).collect();
        Self { streams, epoch }
    }

    /// What goes to one stream alone.
    pub(super) fn of(stream: StreamId, flush: StreamFlush, epoch: Epoch) -> Self {
        Self { streams: BTreeMap::from([(stream, flush)]), epoch }
    }

    /// The streams it writes to.
    pub(super) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.streams.keys().copied()
    }

    /// Whether it writes to none.
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether it has messages that are to be hidden for a while.
    pub(super) fn has_delayed(&self) -> bool {
        self.streams.values().any(|flush| !flush.delayed.is_empty())
    }

    /// What it writes to the log.
    pub(super) fn size_bytes(&self) -> usize {
        self.streams.values().filter_map(|flush| flush.append.as_ref()).map(|append| append.payload.len()).sum()
    }

    /// What is appended to some of its streams.
    pub(super) fn appends(&self, streams: &[StreamId]) -> Vec<Append> {
        streams.iter().filter_map(|stream| self.streams.get(stream)?.append.clone()).collect()
    }

    /// What is hidden for a while of some of its streams.
    pub(super) fn delayed(&self, streams: &[StreamId]) -> Vec<DelayedRecord> {
        streams.iter().filter_map(|stream| self.streams.get(stream)).flat_map(|flush| flush.delayed.clone()).collect()
    }

    /// Takes out what goes to a stream.
    pub(super) fn take(&mut self, stream: StreamId) -> Option<StreamFlush> {
        self.streams.remove(&stream)
    }

    /// Tells the callers, and the consumers that wait.
    pub(super) fn answer(self, core: &Core, mut results: FlushResults) {
        let delayed = self.streams.values().flat_map(|flush| &flush.delayed);
        let due = delayed.map(|record| record.due_at).min();
        for (stream, flush) in self.streams {
            let outcome = results.remove(&stream).transpose();
            let answer = outcome.as_ref().map(Option::is_some).map_err(Error::clone);
            // A caller that has gone away needs no answer.
            flush.replies.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
            if let (Ok(Some(Some(segment))), Some(Append { message_count, payload, .. })) = (outcome, flush.append) {
                // Bodies become slices of the payload, so that what the callers sent them in is freed.
                core.appended(self.epoch, Segment::decode(segment, message_count, codec::CODEC_PLAIN, payload));
            }
        }
        if let Some(due) = due {
            core.delays.stored(due);
            // Another replica may be the one that ends delays.
            core.notify_buffer.push(Wakeup::Delayed(due));
        }
    }
}

impl StreamFlush {
    fn new(stream: StreamId, mut requests: Vec<AppendRequest>) -> Self {
        let message_count = requests.iter().map(|request| request.message_count).sum();
        let payload = match &mut requests[..] {
            [one] => std::mem::take(&mut one.payload),
            many => {
                let bytes = many.iter().map(|request| request.payload.len()).sum();
                let mut payload = BytesMut::with_capacity(bytes);
                many.iter().for_each(|request| payload.extend_from_slice(&request.payload));
                payload
            }
        };
        let append = (message_count > 0).then(|| Append { stream, message_count, payload: payload.freeze() });
        let (mut delayed, mut replies) = (Vec::new(), Vec::with_capacity(requests.len()));
        for request in requests {
            delayed.extend(request.delayed);
            replies.push(request.reply);
        }
        Self { append, delayed, replies }
    }

    /// What it keeps in memory.
    pub(super) fn bytes(&self) -> usize {
        let append = self.append.as_ref().map_or(0, |append| append.payload.len());
        append + self.delayed.iter().map(|record| record.record.len()).sum::<usize>() + CALL_BYTES * self.replies.len()
    }

    /// Whether every caller has given up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.replies.iter().all(oneshot::Sender::is_closed)
    }

    /// Answers that nothing was written.
    pub(super) fn refuse(self, error: &Error) {
        self.replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
    }
}
