//! Sends: encoded by the caller's task, committed by a lane, one segment per stream and flush.

mod appender;
mod flush;
mod lane;
pub(super) mod row_locations;

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

pub(super) use self::lane::run;

use super::Broker;
use super::batching::flush_cycle;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MessageId, ProjectId, QueueId, StreamId};
use crate::domain::message::{Message, NewMessage, apply_mode_rules};
use crate::domain::{Error, Result};
use crate::memory::Arrival;
use crate::store::log::codec;
use crate::store::log::delayed::DelayedRecord;
use crate::store::metadata::queues;

/// One send on its way to the log.
#[derive(Debug)]
pub(super) struct AppendRequest {
    stream: StreamId,
    /// Records of the messages without delay, see [`codec`].
    payload: BytesMut,
    message_count: i32,
    delayed: Vec<DelayedRecord>,
    caller: Span,
    /// Whether the stream was there.
    reply: oneshot::Sender<Result<bool>>,
}

impl Broker {
    /// Sends a checked batch, all or nothing; answered after its commit. What `arrival` holds is kept by the lane once it waits there.
    ///
    /// # Errors
    /// `QueueNotFound`, `RequestFormat` for a delay on a Kafka queue, `Overloaded`, `Unavailable` (the batch may or may not
    /// have been stored).
    pub async fn send(
        &self,
        project: &ProjectId,
        queue: QueueId,
        messages: Vec<NewMessage>,
        arrival: Option<Arc<Arrival>>,
    ) -> Result<Vec<MessageId>> {
        let span = tracing::debug_span!("send", %project, %queue, messages = messages.len());
        self.append(project, queue, messages, arrival).instrument(span).await
    }

    async fn append(
        &self,
        project: &ProjectId,
        queue: QueueId,
        mut messages: Vec<NewMessage>,
        arrival: Option<Arc<Arrival>>,
    ) -> Result<Vec<MessageId>> {
        let entry = self.core.catalog.queue(project, queue).await?;
        apply_mode_rules(entry.queue.mode, &mut messages)?;
        let size = messages.iter().map(NewMessage::size_bytes).sum();
        let (reply, answer) = oneshot::channel();
        let payload = BytesMut::with_capacity(messages.iter().map(codec::record_capacity).sum());
        let (stream, caller) = (entry.queue.stream, flush_cycle::caller());
        let request = AppendRequest { stream, payload, message_count: 0, delayed: Vec::new(), caller, reply };
        let (request, ids) = encode(request, messages, self.core.clock.now());
        self.core.append_lane(&entry.queue).push(project, request, size)?;
        arrival.iter().for_each(|arrival| arrival.release());
        drop(arrival);
        let stored = answer.await.map_err(|_| Error::unavailable("the service is shutting down"))??;
        if !stored {
            self.core.catalog.forget(queue);
            return Err(queues::not_found(queue));
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
        let NewMessage { body, attributes, tags, trace, .. } = message;
        let message = Message { id, body, attributes, tags, dead_letter: None, trace };
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
