//! Sends: encoded by the caller's task, committed by a lane, one segment per stream and flush.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Broker;
use super::core::Core;
use super::lane::LaneQueue;
use super::places::Places;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MessageId, ProjectId, QueueId, StreamId};
use crate::domain::message::{Message, NewMessage, fit_mode};
use crate::domain::{Error, Result};
use crate::store;
use crate::store::codec;
use crate::store::connection::{Durability, LaneConnection, flush};
use crate::store::delayed::DelayedRecord;
use crate::store::segments::{Append, Appended, Landed, Segment};

/// One send on its way to the log.
#[derive(Debug)]
pub struct AppendRequest {
    stream: StreamId,
    /// Records of the messages without delay, see [`codec`].
    payload: BytesMut,
    message_count: i32,
    delayed: Vec<DelayedRecord>,
    /// Whether the stream was there.
    reply: oneshot::Sender<Result<bool>>,
}

impl Broker {
    /// Sends a checked batch, all or nothing; answered after its commit.
    ///
    /// # Errors
    /// `QueueNotFound`, `RequestFormat` for a delay on a Kafka queue, `Overloaded`, `Unavailable` (the batch may or may not
    /// have been stored).
    pub async fn send(
        &self,
        project: &ProjectId,
        queue: QueueId,
        mut messages: Vec<NewMessage>,
    ) -> Result<Vec<MessageId>> {
        let entry = self.core.catalog.queue(project, queue).await?;
        fit_mode(entry.queue.mode, &mut messages)?;
        let size = messages.iter().map(NewMessage::size_bytes).sum();
        let (reply, answer) = oneshot::channel();
        let payload = BytesMut::with_capacity(size + messages.len() * codec::RECORD_OVERHEAD_BYTES);
        let request =
            AppendRequest { stream: entry.queue.stream, payload, message_count: 0, delayed: Vec::new(), reply };
        let (request, ids) = encode(request, messages, self.core.clock.now());
        self.core.append_lane(&entry.queue).push(request, size)?;
        let stored = answer.await.map_err(|_| Error::unavailable("the service is shutting down"))??;
        if !stored {
            self.core.catalog.forget(queue);
            return Err(store::queues::not_found(queue));
        }
        Ok(ids)
    }
}

fn encode(mut request: AppendRequest, new: Vec<NewMessage>, now: Timestamp) -> (AppendRequest, Vec<MessageId>) {
    let mut ids = Vec::with_capacity(new.len());
    for message in new {
        let id = MessageId(Uuid::now_v7());
        ids.push(id);
        let delay = message.delay;
        let NewMessage { body, attributes, tags, .. } = message;
        let message = Message { id, body, attributes, tags, dead_letter: None };
        if delay.is_zero() {
            codec::encode(&message, &mut request.payload);
            request.message_count += 1;
        } else {
            let mut record = BytesMut::new();
            codec::encode(&message, &mut record);
            request.delayed.push(DelayedRecord {
                stream: request.stream,
                due_at: now.plus(delay),
                record: record.freeze(),
            });
        }
    }
    (request, ids)
}

/// What a flush did to each stream that exists: where its append landed, if it had one.
type Stored = BTreeMap<StreamId, Result<Option<Appended>>>;

/// Commits sends until the lane is closed and empty.
pub async fn run(core: Arc<Core>, queue: Arc<LaneQueue<AppendRequest>>, durability: Durability) {
    let connection = LaneConnection::new(&core.store, "dms-append", durability);
    let mut lane = AppendLane { connection, places: Places::default() };
    while let Some(requests) = queue.next().await {
        let flush = Flush::new(requests);
        let stored = lane.commit(&core, &flush).await;
        flush.answer(&core, stored);
    }
    lane.connection.close().await;
}

struct AppendLane {
    connection: LaneConnection,
    places: Places,
}

impl AppendLane {
    async fn commit(&mut self, core: &Core, flush: &Flush) -> Stored {
        let now = core.clock.now();
        if let Err(error) = core.ensure_partitions(now).await {
            return failed(flush.streams.keys(), &error);
        }
        let appends: Vec<Append> = flush.streams.values().filter_map(|flush| flush.append.clone()).collect();
        if flush.delayed.is_empty() {
            return self.append(appends, now).await;
        }
        let streams: Vec<StreamId> = flush.streams.keys().copied().collect();
        let delayed = &flush.delayed;
        let stored =
            flush!(self.connection, conn => store::delayed::append_and_delay(conn, &streams, &appends, delayed, now));
        match stored {
            Ok(stored) => {
                stored.into_iter().map(|(stream, landed)| (stream, Ok(landed.map(|at| self.landed(at))))).collect()
            }
            Err(error) => failed(&streams, &error),
        }
    }

    /// Appends where the rows of the streams were last seen, then by key to those whose rows are elsewhere: each a statement
    /// and a transaction of its own, so that row locks are taken in order.
    async fn append(&mut self, appends: Vec<Append>, now: Timestamp) -> Stored {
        let mut stored = Stored::new();
        let ((known, places), mut rest) = self.places.split(appends);
        if !known.is_empty() {
            match flush!(self.connection, conn => store::segments::append_at(conn, &known, &places, now)) {
                Ok(landed) => self.add(&mut stored, landed),
                Err(error) => return failed(known.iter().chain(&rest).map(|append| &append.stream), &error),
            }
            rest.extend(known.into_iter().filter(|append| !stored.contains_key(&append.stream)));
        }
        if !rest.is_empty() {
            match flush!(self.connection, conn => store::segments::append(conn, &rest, now)) {
                Ok(landed) => self.add(&mut stored, landed),
                Err(error) => stored.extend(failed(rest.iter().map(|append| &append.stream), &error)),
            }
        }
        stored
    }

    fn add(&mut self, stored: &mut Stored, landed: Vec<Landed>) {
        stored.extend(landed.into_iter().map(|landed| (landed.at.stream_id, Ok(Some(self.landed(landed))))));
    }

    fn landed(&mut self, landed: Landed) -> Appended {
        self.places.remember(landed.at.stream_id, landed.place);
        landed.at
    }
}

fn failed<'a>(streams: impl IntoIterator<Item = &'a StreamId>, error: &Error) -> Stored {
    streams.into_iter().map(|stream| (*stream, Err(error.clone()))).collect()
}

struct StreamFlush {
    append: Option<Append>,
    replies: Vec<oneshot::Sender<Result<bool>>>,
}

struct Flush {
    streams: BTreeMap<StreamId, StreamFlush>,
    delayed: Vec<DelayedRecord>,
}

impl Flush {
    fn new(requests: Vec<AppendRequest>) -> Self {
        let mut by_stream: BTreeMap<StreamId, Vec<AppendRequest>> = BTreeMap::new();
        for request in requests {
            by_stream.entry(request.stream).or_default().push(request);
        }
        let mut delayed = Vec::new();
        let streams = by_stream
            .into_iter()
            .map(|(stream, requests)| (stream, StreamFlush::new(stream, requests, &mut delayed)))
            .collect();
        Self { streams, delayed }
    }

    fn answer(self, core: &Core, mut stored: Stored) {
        for (stream, flush) in self.streams {
            let outcome = stored.remove(&stream).transpose();
            let answer = outcome.as_ref().map(Option::is_some).map_err(Error::clone);
            // A caller that has gone away needs no answer.
            flush.replies.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
            if let (Ok(Some(Some(at))), Some(Append { message_count, payload, .. })) = (outcome, flush.append) {
                // Bodies become slices of the payload, so that what the callers sent them in is freed.
                core.appended(Segment::decode(at, message_count, codec::CODEC_PLAIN, payload));
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
