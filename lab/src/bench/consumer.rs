//! A client task that consumes and acks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::client::{Client, Delivered, Receipt, Topic};
use super::load::Load;
use super::meter::{Call, Meter, back_off};
use crate::bench::args::System;
use crate::harness::payload::MessageId;

/// How long messages are hidden from the other consumers.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How long a consume waits for messages.
pub(super) const WAIT: Duration = Duration::from_secs(1);

/// Consumes batches and acks each with success, until done.
pub(super) async fn consume(load: Arc<Load>, meter: Arc<Meter>, client: Client, index: u32, done: CancellationToken) {
    let mut consumer = Consumer::new(load, meter, client, index);
    let topic = consumer.load.topics[consumer.queue].clone();
    let batch = consumer.load.workload.batch;
    loop {
        let began = Instant::now();
        let answer = tokio::select! {
            biased;
            () = done.cancelled() => return,
            answer = consumer.client.consume(&topic, consumer.group, batch) => answer,
        };
        match answer {
            Ok(delivered) => consumer.settle(began, &topic, delivered).await,
            Err(status) => consumer.fail(Call::Consume, &status).await,
        }
    }
}

struct Consumer {
    load: Arc<Load>,
    meter: Arc<Meter>,
    client: Client,
    /// Index of its queue.
    queue: usize,
    /// Index of its group.
    group: usize,
    /// The last message of each producer that it got.
    last: HashMap<u32, u32>,
}

impl Consumer {
    /// The groups of all queues get as many consumers each, give or take one.
    fn new(load: Arc<Load>, meter: Arc<Meter>, client: Client, index: u32) -> Self {
        let queue = index as usize % load.topics.len();
        let group = index as usize / load.topics.len() % load.topics[queue].group_ids.len();
        Self { load, meter, client, queue, group, last: HashMap::new() }
    }

    async fn fail(&self, call: Call, status: &Status) {
        self.meter.failed(call, status);
        sleep(back_off(status)).await;
    }

    async fn settle(&mut self, began: Instant, topic: &Topic, delivered: Vec<Delivered>) {
        if delivered.is_empty() {
            return;
        }
        self.meter.answered(Call::Consume, began, delivered.len() as u64);
        let ids = self.read_bodies(&delivered);
        self.check_order(&ids);
        let receipts = delivered.into_iter().map(|delivered| delivered.receipt).collect();
        self.ack(&ids, topic, receipts).await;
    }

    /// The messages of a producer come in the order it sent them: the service claims in order, and each consumer asks again
    /// only after its answer. A batch that comes again after its lease has ended is older; the benchmark acks long before.
    fn check_order(&mut self, ids: &[Option<MessageId>]) {
        if self.load.topics.len() > 1 {
            return;
        }
        for id in ids.iter().flatten() {
            match self.last.insert(id.producer, id.sequence) {
                Some(last) if last >= id.sequence => self.load.count_disordered(),
                _ => {}
            }
        }
    }

    /// The id of each message, `None` where the body is not what was sent to this queue.
    fn read_bodies(&self, messages: &[Delivered]) -> Vec<Option<MessageId>> {
        let now = self.load.clock(Instant::now());
        let mut latencies = Vec::with_capacity(messages.len());
        let normalized = self.load.workload.system == System::Pgmq;
        let ids = messages.iter().map(|delivered| {
            let (id, sent) = match normalized {
                true => self.load.payloads.read_normalized(&delivered.body)?,
                false => self.load.payloads.read(&delivered.body)?,
            };
            latencies.push(now.saturating_sub(sent));
            (id.queue as usize == self.queue).then_some(id)
        });
        let ids: Vec<_> = ids.collect();
        ids.iter().filter(|id| id.is_none()).for_each(|_| self.load.count_damaged());
        self.meter.arrived(&latencies);
        ids
    }

    async fn ack(&mut self, ids: &[Option<MessageId>], topic: &Topic, receipts: Vec<Receipt>) {
        let began = Instant::now();
        let settled = match self.client.ack(topic, self.group, receipts).await {
            Ok(outcomes) => self.mark_outcomes(began, ids, &outcomes),
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
    fn mark_outcomes(&self, began: Instant, ids: &[Option<MessageId>], outcomes: &[bool]) -> u32 {
        let acked = outcomes.iter().filter(|acked| **acked).count();
        self.meter.answered(Call::Ack, began, acked as u64);
        if outcomes.len() != ids.len() || acked < ids.len() && is_young(began) {
            self.load.count_wrong_answer();
        }
        let acked_ids = ids.iter().zip(outcomes).filter(|(_, acked)| **acked).filter_map(|(id, _)| *id);
        self.load.ledger.mark_acked(self.group, acked_ids, true);
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
        self.load.ledger.mark_acked(self.group, ids.iter().copied().flatten(), false);
        u32::try_from(ids.len()).unwrap_or(u32::MAX)
    }
}

/// Whether the lease of messages that were delivered just before cannot have ended yet.
fn is_young(delivered: Instant) -> bool {
    delivered.elapsed() < LEASE / 2
}
