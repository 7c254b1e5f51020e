//! Sends: encoded by the caller's task, committed by a lane, one segment per stream and flush.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Broker;
use super::core::Core;
use super::lane::LaneQueue;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MessageId, ProjectId, QueueId, StreamId};
use crate::domain::message::{Message, NewMessage, fit_mode};
use crate::domain::{Error, Result};
use crate::store;
use crate::store::codec;
use crate::store::connection::{Durability, LaneConnection, flush};
use crate::store::delayed::DelayedRecord;
use crate::store::segments::{Append, Appended, Segment};

/// One send on its way to the log.
#[derive(Debug)]
pub struct AppendRequest {
    stream: StreamId,
    payload: BytesMut,
    messages: Vec<Message>,
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
        let (request, ids) = encode(entry.queue.stream, messages, self.core.clock.now(), reply);
        self.core.append_lane(&entry.queue).push(request, size)?;
        let stored = answer.await.map_err(|_| Error::unavailable("the service is shutting down"))??;
        if !stored {
            self.core.catalog.forget(queue);
            return Err(store::queues::not_found(queue));
        }
        Ok(ids)
    }
}

fn encode(
    stream: StreamId,
    new: Vec<NewMessage>,
    now: Timestamp,
    reply: oneshot::Sender<Result<bool>>,
) -> (AppendRequest, Vec<MessageId>) {
    let mut request =
        AppendRequest { stream, payload: BytesMut::new(), messages: Vec::new(), delayed: Vec::new(), reply };
    let mut ids = Vec::with_capacity(new.len());
    for message in new {
        let id = MessageId(Uuid::now_v7());
        ids.push(id);
        let delay = message.delay;
        let NewMessage { body, attributes, tags, .. } = message;
        let message = Message { id, body, attributes, tags, dead_letter: None };
        if delay.is_zero() {
            codec::encode(&message, &mut request.payload);
            request.messages.push(message);
        } else {
            let mut record = BytesMut::new();
            codec::encode(&message, &mut record);
            request.delayed.push(DelayedRecord { stream, due_at: now.plus(delay), record: record.freeze() });
        }
    }
    (request, ids)
}

/// Commits sends until the lane is closed and empty.
pub async fn run(core: Arc<Core>, queue: Arc<LaneQueue<AppendRequest>>, durability: Durability) {
    let mut connection = LaneConnection::new(&core.store, "dms-append", durability);
    while let Some(requests) = queue.next().await {
        let flush = Flush::new(requests);
        let outcome = flush.commit(&core, &mut connection).await;
        flush.answer(&core, outcome);
    }
    connection.close().await;
}

struct StreamFlush {
    append: Option<Append>,
    messages: Vec<Message>,
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

    async fn commit(&self, core: &Core, connection: &mut LaneConnection) -> Result<Vec<(StreamId, Option<Appended>)>> {
        let now = core.clock.now();
        core.ensure_partitions(now).await?;
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        let appends: Vec<Append> = self.streams.values().filter_map(|flush| flush.append.clone()).collect();
        if self.delayed.is_empty() {
            let appended = flush!(connection, conn => store::segments::append(conn, &appends, now))?;
            return Ok(appended.into_iter().map(|at| (at.stream_id, Some(at))).collect());
        }
        flush!(connection, conn => store::delayed::append_and_delay(conn, &streams, &appends, &self.delayed, now))
    }

    fn answer(self, core: &Core, outcome: Result<Vec<(StreamId, Option<Appended>)>>) {
        let stored = match outcome {
            Ok(stored) => stored.into_iter().collect::<BTreeMap<_, _>>(),
            Err(error) => {
                let replies = self.streams.into_values().flat_map(|flush| flush.replies);
                // A caller that has gone away needs no answer, here and below.
                return replies.for_each(|reply| drop(reply.send(Err(error.clone()))));
            }
        };
        for (stream, flush) in self.streams {
            let at = stored.get(&stream);
            if let (Some(Some(at)), Some(append)) = (at, flush.append) {
                core.appended(Segment {
                    stream,
                    base_offset: at.base_offset,
                    appended_at: at.appended_at,
                    message_count: i64::from(append.message_count),
                    messages: Some(flush.messages),
                    payload_bytes: append.payload.len(),
                });
            }
            flush.replies.into_iter().for_each(|reply| drop(reply.send(Ok(at.is_some()))));
        }
        if !self.delayed.is_empty() {
            core.delays.notify_one();
        }
    }
}

impl StreamFlush {
    fn new(stream: StreamId, requests: Vec<AppendRequest>, delayed: &mut Vec<DelayedRecord>) -> Self {
        let mut payload = BytesMut::new();
        let mut flush = Self { append: None, messages: Vec::new(), replies: Vec::with_capacity(requests.len()) };
        for request in requests {
            if payload.is_empty() {
                payload = request.payload;
            } else {
                payload.extend_from_slice(&request.payload);
            }
            flush.messages.extend(request.messages);
            delayed.extend(request.delayed);
            flush.replies.push(request.reply);
        }
        if !flush.messages.is_empty() {
            let message_count = i32::try_from(flush.messages.len()).unwrap_or(i32::MAX);
            flush.append = Some(Append { stream, message_count, payload: Bytes::from(payload) });
        }
        flush
    }
}
