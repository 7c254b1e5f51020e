//! A client task that consumes and acks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::load::Load;
use super::meter::{Call, Meter, back_off};
use super::payload::MessageId;
use crate::proto::v1::{
    AckEntry, AckMessagesRequest, AckOutcome, ConsumeMessagesRequest, ConsumeOptions, LeasedMessage,
};

/// How long messages are hidden from the other consumers.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long a consume waits for messages.
const WAIT: Duration = Duration::from_secs(1);

/// Consumes batches and acks each with success, until done.
pub async fn consume(load: Arc<Load>, meter: Arc<Meter>, index: u32, done: CancellationToken) {
    let mut consumer = Consumer::new(load, meter, index);
    loop {
        let began = Instant::now();
        let request = consumer.request();
        let answer = tokio::select! {
            biased;
            () = done.cancelled() => return,
            answer = consumer.client.consume_messages(request) => answer,
        };
        match answer {
            Ok(response) => consumer.settle(began, response.into_inner().messages).await,
            Err(status) => consumer.fail(Call::Consume, &status).await,
        }
    }
}

type Client = crate::proto::v1::message_service_client::MessageServiceClient<tonic::transport::Channel>;

struct Consumer {
    load: Arc<Load>,
    meter: Arc<Meter>,
    client: Client,
    /// Index of its queue.
    queue: usize,
    /// Index of its group.
    group: usize,
}

impl Consumer {
    /// The groups of all queues get as many consumers each, give or take one.
    fn new(load: Arc<Load>, meter: Arc<Meter>, index: u32) -> Self {
        let client = load.client(index);
        let queue = index as usize % load.topics.len();
        let group = index as usize / load.topics.len() % load.topics[queue].group_ids.len();
        Self { load, meter, client, queue, group }
    }

    fn request(&self) -> ConsumeMessagesRequest {
        let seconds =
            |duration: Duration| prost_types::Duration { seconds: duration.as_secs().cast_signed(), nanos: 0 };
        let topic = &self.load.topics[self.queue];
        ConsumeMessagesRequest {
            project_id: self.load.project_id.clone(),
            queue_id: topic.queue_id.clone(),
            group_id: topic.group_ids[self.group].clone(),
            options: Some(ConsumeOptions {
                max_messages: Some(self.load.batch.cast_signed()),
                wait: Some(seconds(WAIT)),
                lease: Some(seconds(LEASE)),
            }),
            ..ConsumeMessagesRequest::default()
        }
    }

    async fn fail(&self, call: Call, status: &Status) {
        self.meter.failed(call, status);
        sleep(back_off(status)).await;
    }

    async fn settle(&mut self, began: Instant, messages: Vec<LeasedMessage>) {
        if messages.is_empty() {
            return;
        }
        self.meter.answered(Call::Consume, began, messages.len() as u64);
        let ids = self.read_bodies(&messages);
        let entries: Vec<_> =
            messages.into_iter().map(|leased| AckEntry { handler: leased.handler, ..AckEntry::default() }).collect();
        self.ack(&ids, entries).await;
    }

    /// The id of each message, `None` where the body is not what was sent to this queue.
    fn read_bodies(&self, messages: &[LeasedMessage]) -> Vec<Option<MessageId>> {
        let now = self.load.elapsed();
        let mut latencies = Vec::with_capacity(messages.len());
        let ids = messages.iter().map(|leased| {
            let (id, sent) = self.load.payloads.read(&leased.message.as_ref()?.body)?;
            latencies.push(now.saturating_sub(sent));
            (id.queue as usize == self.queue).then_some(id)
        });
        let ids: Vec<_> = ids.collect();
        ids.iter().filter(|id| id.is_none()).for_each(|_| self.load.count_damaged());
        self.meter.arrived(&latencies);
        ids
    }

    async fn ack(&mut self, ids: &[Option<MessageId>], entries: Vec<AckEntry>) {
        let began = Instant::now();
        let topic = &self.load.topics[self.queue];
        let request = AckMessagesRequest {
            project_id: self.load.project_id.clone(),
            queue_id: topic.queue_id.clone(),
            group_id: topic.group_ids[self.group].clone(),
            entries,
        };
        let settled = match self.client.ack_messages(request).await {
            Ok(response) => self.mark_outcomes(began, ids, &response.into_inner().result.unwrap_or_default().outcomes),
            Err(status) => {
                self.fail(Call::Ack, &status).await;
                self.mark_unanswered(began, ids, status.code())
            }
        };
        if let Some(lead) = &self.load.lead {
            lead.settled(self.group, settled);
        }
    }

    /// Marks what an answered ack did; how many it acked.
    fn mark_outcomes(&self, began: Instant, ids: &[Option<MessageId>], outcomes: &[i32]) -> u32 {
        let acked = outcomes.iter().filter(|outcome| **outcome == AckOutcome::Acked as i32).count();
        self.meter.answered(Call::Ack, began, acked as u64);
        if outcomes.len() != ids.len() || acked < ids.len() && is_young(began) {
            self.load.count_wrong_answer();
        }
        for (id, _) in ids.iter().zip(outcomes).filter(|(_, outcome)| **outcome == AckOutcome::Acked as i32) {
            if let Some(id) = id {
                self.load.ledger.mark_acked(self.group, *id, true);
            }
        }
        u32::try_from(acked).unwrap_or(u32::MAX)
    }

    /// Marks what a failed ack may have done. A refused handler did nothing and its messages come again.
    fn mark_unanswered(&self, began: Instant, ids: &[Option<MessageId>], code: Code) -> u32 {
        if code == Code::FailedPrecondition {
            if is_young(began) {
                self.load.count_wrong_answer();
            }
            return 0;
        }
        ids.iter().flatten().for_each(|id| self.load.ledger.mark_acked(self.group, *id, false));
        u32::try_from(ids.len()).unwrap_or(u32::MAX)
    }
}

/// Whether the lease of messages that were delivered just before cannot have ended yet.
fn is_young(delivered: Instant) -> bool {
    delivered.elapsed() < LEASE / 2
}
