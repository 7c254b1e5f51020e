//! What happened, as the clients saw it: every answered send, every delivery, every acknowledgement with its answer, and the
//! crashes of Postgres. Plain data: the recorder fills it, the checker reads it.

use std::fmt;
use std::time::Duration;

use crate::chaos::api::{AckOutcome, AckStatus, GroupCounters};

/// Microseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Moment(pub u64);

impl Moment {
    /// So much later.
    pub(super) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// So much earlier, but not before the start.
    pub(super) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0 as f64 / 1e6)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// From before a call to after its answer: what the call did, it did within.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Window {
    /// Before the call.
    pub began: Moment,
    /// After its answer.
    pub ended: Moment,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.began, self.ended)
    }
}

/// A message as its sender numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MessageId {
    /// Its producer, who sends to one queue.
    pub producer: u32,
    /// Counted from 0 by the producer.
    pub sequence: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}.{}", self.producer, self.sequence)
    }
}

/// One send. A producer has one in flight, and numbers its messages in the order it sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendCall {
    /// Index of the queue.
    pub queue: usize,
    /// Its first message; the others follow.
    pub first: MessageId,
    /// Its messages.
    pub count: u32,
    /// Of the call.
    pub window: Window,
    /// Answered with success; otherwise it may or may not have been stored.
    pub answered: bool,
}

/// One message in the answer to a consume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Which.
    pub message: MessageId,
    /// Counted deliveries as the answer told them, if it did: this one included, or those that made it a dead letter.
    pub attempts: Option<u8>,
}

/// The answer to a consume that brought something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Of the call.
    pub window: Window,
    /// For how long the messages were leased.
    pub lease: Duration,
    /// In the order of the answer.
    pub deliveries: Vec<Delivery>,
}

/// A delivery of one reader, by the index of its batch and its place in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeliveryRef {
    /// Index of the batch.
    pub batch: u32,
    /// Index in the batch.
    pub index: u8,
}

/// One entry of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AckEntry {
    /// Whose handler it gave.
    pub delivery: DeliveryRef,
    /// What it said.
    pub status: AckStatus,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AckAnswer {
    /// One outcome an entry. An entry behind the first that was not acknowledged is [`AckOutcome::AfterFailure`], which may
    /// have failed or not, and so is that first one where the answer doesn't tell why.
    Outcomes(Vec<AckOutcome>),
    /// Refused as a whole, because its first handler is not valid: nothing changed.
    Refused,
    /// No answer, or one that leaves it open.
    Unknown,
}

/// One acknowledgement, with handlers of the reader it was sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AckCall {
    /// Of the call.
    pub window: Window,
    /// In the order of the request.
    pub entries: Vec<AckEntry>,
    /// The answer.
    pub answer: AckAnswer,
}

/// A consume without an answer, which may have leased messages that nobody was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// Before the call.
    pub began: Moment,
    /// Messages that it asked for.
    pub max: u32,
}

/// What went through one stream of one group.
#[derive(Debug, Clone, Default)]
pub(super) struct ReaderLog {
    /// By the order of their answers.
    pub batches: Vec<Batch>,
    /// By the order in which they were given up.
    pub unanswered: Vec<Unanswered>,
    /// By the order of their answers.
    pub acks: Vec<AckCall>,
}

/// One group of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupLog {
    /// Index of its queue.
    pub queue: usize,
    /// The messages of the queue.
    pub normal: ReaderLog,
    /// Its dead letters.
    pub dead_letters: ReaderLog,
    /// What the service counted at the end, when nothing was left.
    pub counters: Option<GroupCounters>,
}

/// How a queue treats its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct QueueRules {
    /// Delivered in order, one batch at a time to a group.
    pub fifo: bool,
    /// Counted deliveries that make a dead letter.
    pub max_consume_count: Option<u32>,
}

/// What no violation is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Allowance {
    /// How far the clocks of two replicas may be apart.
    pub clock_error: Duration,
    /// A crash of Postgres may take back leases given out so long before it; `None` when they are on disk first.
    pub taken_back: Option<Duration>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// The queues.
    pub queues: Vec<QueueRules>,
    /// The groups of all queues.
    pub groups: Vec<GroupLog>,
    /// The sends, each producer's in its order.
    pub sends: Vec<SendCall>,
    /// Crashes of Postgres: from before the signal to after it.
    pub crashes: Vec<Window>,
    /// Steps of Postgres's clock.
    pub clock_steps: Vec<Window>,
    /// What has to be allowed for.
    pub allowance: Allowance,
}
