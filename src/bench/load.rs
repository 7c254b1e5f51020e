//! What the client tasks of one load share, and how they are started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::ledger::{Faults, Ledger};
use super::meter::Meter;
use super::payload::{MessageId, Payloads};
use super::site::{Site, Topic};
use super::{consumer, producer};
use crate::config::BenchArgs;
use crate::proto::v1::message_service_client::MessageServiceClient;

/// When producers stop: at whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    /// No send begins after this instant.
    pub deadline: Instant,
    /// Messages of each producer.
    pub messages: u64,
}

/// One load on a set of fresh queues.
#[derive(Debug)]
pub struct Load {
    /// Project of the queues.
    pub project_id: String,
    /// The queues and their groups.
    pub topics: Vec<Topic>,
    /// Messages of one call.
    pub batch: u32,
    /// Producers, and consumers.
    pub clients: u32,
    /// Writes and checks bodies.
    pub payloads: Payloads,
    /// Follows every message.
    pub ledger: Ledger,
    /// Keeps producers from running away from consumers; absent when they don't run together.
    pub lead: Option<Lead>,
    epoch: Instant,
    channels: Vec<Channel>,
    damaged: AtomicU64,
    wrong_answers: AtomicU64,
}

impl Load {
    /// A load on these queues, with nothing sent yet.
    pub fn new(site: &Site, args: &BenchArgs, topics: Vec<Topic>, lead: Option<Lead>) -> Self {
        Self {
            project_id: site.project_id.clone(),
            topics,
            batch: args.batch,
            clients: args.clients,
            // Bounded by the limit of a batch, far below usize on every platform.
            payloads: Payloads::new(usize::try_from(args.size).unwrap_or(usize::MAX), rand::random()),
            ledger: Ledger::new(args.groups),
            lead,
            epoch: Instant::now(),
            channels: site.channels.clone(),
            damaged: AtomicU64::new(0),
            wrong_answers: AtomicU64::new(0),
        }
    }

    /// The client of one task, on a connection that it shares with others.
    pub fn client(&self, index: u32) -> MessageServiceClient<Channel> {
        MessageServiceClient::new(self.channels[index as usize % self.channels.len()].clone())
    }

    /// Time since the load was made; the clock of the bodies.
    pub fn elapsed(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The ids of `count` messages are told by the first one: where the next send of a producer goes.
    pub fn next_id(&self, producer: u32, sequence: u32) -> MessageId {
        let queues = self.topics.len();
        // Producers start evenly spread and each goes round all queues.
        let start = producer as usize * queues / self.clients as usize;
        let queue = (start + (sequence / self.batch) as usize) % queues;
        MessageId { queue: u32::try_from(queue).unwrap_or(u32::MAX), producer, sequence }
    }

    /// A body came back changed or through another queue.
    pub fn count_damaged(&self) {
        self.damaged.fetch_add(1, Relaxed);
    }

    /// An answer contradicts the contract.
    pub fn count_wrong_answer(&self) {
        self.wrong_answers.fetch_add(1, Relaxed);
    }

    /// Everything that turned out wrong.
    pub fn faults(&self) -> Faults {
        Faults {
            damaged: self.damaged.load(Relaxed),
            wrong_answers: self.wrong_answers.load(Relaxed),
            ..self.ledger.faults()
        }
    }

    /// Starts all producers.
    pub fn start_producers(self: &Arc<Self>, meter: &Arc<Meter>, until: Until) -> JoinSet<()> {
        (0..self.clients).map(|index| producer::produce(self.clone(), meter.clone(), index, until)).collect()
    }

    /// Starts all consumers; they run until `done`.
    pub fn start_consumers(self: &Arc<Self>, meter: &Arc<Meter>, done: &CancellationToken) -> JoinSet<()> {
        (0..self.clients).map(|index| consumer::consume(self.clone(), meter.clone(), index, done.clone())).collect()
    }
}

/// Lets producers be a bounded number of messages ahead of each group, so that a live load settles at the rate of the whole
/// cycle and end-to-end latency means something.
#[derive(Debug)]
pub struct Lead {
    by_group: Vec<Semaphore>,
}

impl Lead {
    /// At most `messages` ahead of each group.
    pub fn new(groups: u32, messages: u32) -> Self {
        Self { by_group: (0..groups).map(|_| Semaphore::new(messages as usize)).collect() }
    }

    /// Waits until all groups are close enough for `count` more messages; `false` when that takes until the deadline.
    pub async fn reserve(&self, count: u32, deadline: Instant) -> bool {
        for group in &self.by_group {
            match timeout_at(deadline, group.acquire_many(count)).await {
                Ok(Ok(permit)) => permit.forget(),
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        true
    }

    /// A send failed: its messages will probably not come.
    pub fn give_back(&self, count: u32) {
        (0..self.by_group.len()).for_each(|group| self.settled(group, count));
    }

    /// A group settled messages.
    pub fn settled(&self, group: usize, count: u32) {
        self.by_group[group].add_permits(count as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn producers_wait_for_the_slowest_group() {
        let lead = Lead::new(2, 10);
        let soon = || Instant::now() + Duration::from_millis(5);
        assert!(lead.reserve(10, soon()).await);
        lead.settled(0, 10);
        assert!(!lead.reserve(10, soon()).await);
        lead.settled(1, 10);
        lead.settled(0, 10);
        assert!(lead.reserve(10, soon()).await);
    }
}
