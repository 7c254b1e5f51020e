//! What the client tasks of one load share, and how they are started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Topic};
use super::ledger::{Faults, Ledger};
use super::meter::Meter;
use super::workload::Workload;
use super::{consumer, producer};
use crate::harness::payload::{MessageId, Payloads};

/// What producers send, and until when: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    /// No send begins after this instant.
    pub deadline: Instant,
    /// Number of the first message of each producer.
    pub first: u32,
    /// Messages of each producer.
    pub messages: u64,
    /// Whether they heed the rate and the lead of the load.
    pub paced: bool,
}

/// One load on a set of fresh queues.
#[derive(Debug)]
pub(super) struct Load {
    /// What it is.
    pub workload: Workload,
    /// The queues and their groups.
    pub topics: Vec<Topic>,
    /// Writes and checks bodies.
    pub payloads: Payloads,
    /// Follows every message.
    pub ledger: Ledger,
    /// Keeps producers from running away from consumers; absent when they don't run together or have a rate.
    pub lead: Option<Lead>,
    epoch: Instant,
    damaged: AtomicU64,
    disordered: AtomicU64,
    wrong_answers: AtomicU64,
}

impl Load {
    /// A load on these queues, with nothing sent yet.
    pub(super) fn new(workload: &Workload, topics: Vec<Topic>, lead: Option<Lead>) -> Self {
        Self {
            topics,
            payloads: Payloads::new(workload.size, rand::random()),
            ledger: Ledger::new(workload.groups),
            lead,
            epoch: Instant::now(),
            damaged: AtomicU64::new(0),
            disordered: AtomicU64::new(0),
            wrong_answers: AtomicU64::new(0),
            workload: workload.clone(),
        }
    }

    /// An instant on the clock of the bodies, which starts when the load is made.
    pub(super) fn clock(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.epoch)
    }

    /// The ids of `count` messages are told by the first one: where the next send of a producer goes.
    pub(super) fn next_id(&self, producer: u32, sequence: u32) -> MessageId {
        let queues = self.topics.len();
        // Producers start evenly spread and each goes round all queues.
        let start = producer as usize * queues / self.workload.clients as usize;
        let queue = (start + (sequence / self.workload.batch) as usize) % queues;
        MessageId { queue: u32::try_from(queue).unwrap_or(u32::MAX), producer, sequence }
    }

    /// A body came back changed or through another queue.
    pub(super) fn count_damaged(&self) {
        self.damaged.fetch_add(1, Relaxed);
    }

    /// A message came before an earlier one of its producer.
    pub(super) fn count_disordered(&self) {
        self.disordered.fetch_add(1, Relaxed);
    }

    /// An answer contradicts the contract.
    pub(super) fn count_wrong_answer(&self) {
        self.wrong_answers.fetch_add(1, Relaxed);
    }

    /// Everything that turned out wrong.
    pub(super) fn faults(&self) -> Faults {
        Faults {
            damaged: self.damaged.load(Relaxed),
            disordered: self.disordered.load(Relaxed),
            wrong_answers: self.wrong_answers.load(Relaxed),
            ..self.ledger.faults()
        }
    }

    /// Starts a producer for each client.
    pub(super) fn start_producers(
        self: &Arc<Self>,
        clients: Vec<Client>,
        meter: &Arc<Meter>,
        until: Until,
    ) -> JoinSet<()> {
        let numbered = (0..).zip(clients);
        numbered.map(|(index, client)| producer::produce(self.clone(), meter.clone(), client, index, until)).collect()
    }

    /// Starts a consumer for each client; they run until `done`.
    pub(super) fn start_consumers(
        self: &Arc<Self>,
        clients: Vec<Client>,
        meter: &Arc<Meter>,
        done: &CancellationToken,
    ) -> JoinSet<()> {
        let consume = |(index, client)| consumer::consume(self.clone(), meter.clone(), client, index, done.clone());
        (0..).zip(clients).map(consume).collect()
    }
}

/// Lets producers be a bounded number of messages ahead of each group, so that a live load settles at the rate of the whole
/// cycle and end-to-end latency means something.
#[derive(Debug)]
pub(super) struct Lead {
    by_group: Vec<Semaphore>,
}

impl Lead {
    /// At most `messages` ahead of each group.
    pub(super) fn new(groups: u32, messages: u32) -> Self {
        Self { by_group: (0..groups).map(|_| Semaphore::new(messages as usize)).collect() }
    }

    /// Waits until all groups are close enough for `count` more messages; `false` when that takes until the deadline.
    pub(super) async fn reserve(&self, count: u32, deadline: Instant) -> bool {
        for group in &self.by_group {
            match timeout_at(deadline, group.acquire_many(count)).await {
                Ok(Ok(permit)) => permit.forget(),
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        true
    }

    /// A send failed: its messages will probably not come.
    pub(super) fn give_back(&self, count: u32) {
        (0..self.by_group.len()).for_each(|group| self.settled(group, count));
    }

    /// A group settled messages.
    pub(super) fn settled(&self, group: usize, count: u32) {
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
