//! What the clients of a run share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::checker::Rule;
use super::client::{Caller, Doors, Entry, Failure, Target};
use super::history::{AckAnswer, AckCall, AckEntry, DeliveryRef, MessageId};
use super::recorder::{ReaderId, Recorder};
use super::topology::Topology;
use crate::chaos::api::{AckOutcome, AckStatus};
use crate::harness::payload::{self, Payloads};

/// The shortest lease there is.
pub(super) const LEASE: Duration = Duration::from_secs(15);
const SMALL_BYTES: usize = 200;
/// Ten of them are more than what a send lane commits before it is on disk, and less than one send may carry.
const LARGE_BYTES: usize = 24 * 1024;
/// Handlers kept for whoever has no right to them.
const STRAY_MAX: usize = 2_000;
/// Codes of refusals that are nothing special.
const OVERLOADED: &str = "DMS.10240407";
const HANDLER_INVALID: &str = "DMS.10542209";

/// One run.
#[derive(Debug)]
pub(super) struct Load {
    /// The queues and groups.
    pub topology: Topology,
    /// The replicas.
    pub doors: Arc<[Doors]>,
    /// Takes everything down.
    pub recorder: Arc<Recorder>,
    /// Writes and checks bodies.
    pub bodies: Bodies,
    /// Handlers that were seen.
    pub strays: Strays,
    /// Nothing more is sent.
    pub sent: CancellationToken,
    /// Everybody behaves.
    pub calm: CancellationToken,
    /// Everything is over.
    pub done: CancellationToken,
    /// Acknowledgements that come late.
    pub late: TaskTracker,
}

impl Load {
    /// Nothing has happened yet.
    pub(super) fn new(topology: Topology, doors: Arc<[Doors]>, recorder: Arc<Recorder>, seed: u64) -> Self {
        Self {
            topology,
            doors,
            recorder,
            bodies: Bodies { small: Payloads::new(SMALL_BYTES, seed), large: Payloads::new(LARGE_BYTES, seed) },
            strays: Strays::default(),
            sent: CancellationToken::new(),
            calm: CancellationToken::new(),
            done: CancellationToken::new(),
            late: TaskTracker::new(),
        }
    }

    /// Acknowledges deliveries of a reader and takes down what became of it.
    pub(super) async fn ack(
        &self,
        caller: &mut Caller,
        reader: ReaderId,
        deliveries: &[Handled],
    ) -> Result<(), Failure> {
        let target = self.topology.target(reader);
        let entries: Vec<Entry> = deliveries.iter().map(Handled::entry).collect();
        let began = self.recorder.now();
        let result = caller.ack(&target, &entries).await;
        let window = self.recorder.since(began);
        let answer = self.answer(&result, &target);
        if let AckAnswer::Outcomes(outcomes) = &answer {
            let acked = outcomes.iter().filter(|outcome| **outcome == AckOutcome::Acked).count();
            self.recorder.ended(reader.group, acked);
        }
        let entries = deliveries.iter().map(|handled| AckEntry { delivery: handled.delivery, status: handled.status });
        self.recorder.ack(reader, AckCall { window, entries: entries.collect(), answer });
        result.map(drop)
    }

    fn answer(&self, result: &Result<Vec<AckOutcome>, Failure>, target: &Target) -> AckAnswer {
        match result {
            Ok(outcomes) => AckAnswer::Outcomes(outcomes.clone()),
            Err(Failure::Refused(code)) if code == HANDLER_INVALID => AckAnswer::Refused,
            Err(failure) => {
                self.failed("ack", failure, target);
                AckAnswer::Unknown
            }
        }
    }

    /// Counts a failed call. A refusal that is neither overload nor explained by a handler is one too many.
    pub(super) fn failed(&self, call: &str, failure: &Failure, target: &Target) {
        self.recorder.error(format!("{call} {}", failure.label()));
        if let Failure::Refused(code) = failure
            && code != OVERLOADED
        {
            let Target { queue, group, .. } = target;
            self.recorder
                .violation(Rule::Answer, format!("{call} to queue {queue} group {group} was refused with {code}"));
        }
    }
}

/// A delivery with its handler, and what is to be said of it.
#[derive(Debug, Clone)]
pub(super) struct Handled {
    /// Which.
    pub delivery: DeliveryRef,
    /// Its handler.
    pub handler: String,
    /// Success or failure.
    pub status: AckStatus,
}

impl Handled {
    fn entry(&self) -> Entry {
        Entry { handler: self.handler.clone(), status: self.status }
    }
}

/// Bodies of two sizes.
#[derive(Debug)]
pub(super) struct Bodies {
    small: Payloads,
    large: Payloads,
}

impl Bodies {
    /// `count` bodies from `first` on.
    pub(super) fn batch(&self, queue: usize, first: MessageId, count: u32, large: bool) -> Vec<Bytes> {
        let payloads = if large { &self.large } else { &self.small };
        let queue = u32::try_from(queue).unwrap_or(u32::MAX);
        let first = payload::MessageId { queue, producer: first.producer, sequence: first.sequence };
        payloads.batch(first, count, Duration::ZERO)
    }

    /// Reads a body; `None` unless it is what was written for this queue, byte for byte.
    pub(super) fn read(&self, queue: usize, body: &[u8]) -> Option<MessageId> {
        let payloads = if body.len() == SMALL_BYTES { &self.small } else { &self.large };
        let (id, _) = payloads.read(body)?;
        (id.queue as usize == queue).then_some(MessageId { producer: id.producer, sequence: id.sequence })
    }
}

/// Handlers that lie about, for whoever tries them.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<VecDeque<(ReaderId, Handled)>>);

impl Strays {
    /// Leaves one; the oldest goes.
    pub(super) fn leave(&self, reader: ReaderId, handled: Handled) {
        let mut strays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if strays.len() == STRAY_MAX {
            strays.pop_front();
        }
        strays.push_back((reader, handled));
    }

    /// Any of them; it stays.
    pub(super) fn find(&self, rng: &mut StdRng) -> Option<(ReaderId, Handled)> {
        let strays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!strays.is_empty()).then(|| strays[rng.random_range(0..strays.len())].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_both_sizes_come_back_through_their_own_queue_only() {
        let bodies = Bodies { small: Payloads::new(SMALL_BYTES, 1), large: Payloads::new(LARGE_BYTES, 1) };
        let first = MessageId { producer: 3, sequence: 7 };
        for large in [false, true] {
            let written = bodies.batch(2, first, 2, large);
            assert_eq!(bodies.read(2, &written[1]), Some(MessageId { sequence: 8, ..first }));
            assert_eq!(bodies.read(1, &written[1]), None);
            assert_eq!(bodies.read(2, &written[1][1..]), None);
        }
    }
}
