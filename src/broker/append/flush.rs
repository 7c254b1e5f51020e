//! The sends of one flush, by stream, and their answers.

use std::collections::BTreeMap;

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::AppendRequest;
use crate::broker::cache::Epoch;
use crate::broker::core::Core;
use crate::domain::ids::StreamId;
use crate::domain::{Error, Result};
use crate::store::codec;
use crate::store::delayed::DelayedRecord;
use crate::store::segments::{Append, Appended, Segment};

/// What a flush did to each stream that exists: where its append landed, if it had one.
pub(super) type Stored = BTreeMap<StreamId, Result<Option<Appended>>>;

/// The same error for all.
pub(super) fn failed<'a>(streams: impl IntoIterator<Item = &'a StreamId>, error: &Error) -> Stored {
    streams.into_iter().map(|stream| (*stream, Err(error.clone()))).collect()
}

/// What goes to one stream.
pub(super) struct StreamFlush {
    pub append: Option<Append>,
    replies: Vec<oneshot::Sender<Result<bool>>>,
}

/// What is committed together.
pub(super) struct Flush {
    pub streams: BTreeMap<StreamId, StreamFlush>,
    pub delayed: Vec<DelayedRecord>,
    /// Of the cache, before any of it is committed.
    epoch: Epoch,
}

impl Flush {
    /// One segment for each stream.
    pub fn new(requests: Vec<AppendRequest>, epoch: Epoch) -> Self {
        let mut by_stream: BTreeMap<StreamId, Vec<AppendRequest>> = BTreeMap::new();
        for request in requests {
            by_stream.entry(request.stream).or_default().push(request);
        }
        let mut delayed = Vec::new();
        let streams = by_stream
            .into_iter()
            .map(|(stream, requests)| (stream, StreamFlush::new(stream, requests, &mut delayed)))
            .collect();
        Self { streams, delayed, epoch }
    }

    /// What it writes to the log.
    pub fn size_bytes(&self) -> usize {
        self.streams.values().filter_map(|flush| flush.append.as_ref()).map(|append| append.payload.len()).sum()
    }

    /// Tells the callers, and the consumers that wait.
    pub fn answer(self, core: &Core, mut stored: Stored) {
        for (stream, flush) in self.streams {
            let outcome = stored.remove(&stream).transpose();
            let answer = outcome.as_ref().map(Option::is_some).map_err(Error::clone);
            // A caller that has gone away needs no answer.
            flush.replies.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
            if let (Ok(Some(Some(at))), Some(Append { message_count, payload, .. })) = (outcome, flush.append) {
                // Bodies become slices of the payload, so that what the callers sent them in is freed.
                core.appended(self.epoch, Segment::decode(at, message_count, codec::CODEC_PLAIN, payload));
            }
        }
        if !self.delayed.is_empty() {
            core.delays.notify_one();
        }
    }
}

impl StreamFlush {
    fn new(stream: StreamId, mut requests: Vec<AppendRequest>, delayed: &mut Vec<DelayedRecord>) -> Self {
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
        let mut replies = Vec::with_capacity(requests.len());
        for request in requests {
            delayed.extend(request.delayed);
            replies.push(request.reply);
        }
        Self { append, replies }
    }
}
