//! Small histories made by hand: for each rule one that it lets pass, and ones that it does not.

mod ends;
mod fifo;
mod leases;
mod starved;

use std::time::Duration;

use super::{Findings, Rule, check};
use crate::chaos::api::AckOutcome::{self, Acked, Failed};
use crate::chaos::api::{AckStatus, GroupCounters};
use crate::chaos::history::{
    AckAnswer, AckCall, AckEntry, Allowance, Batch, Delivery, DeliveryRef, GroupLog, History, MessageId, Moment,
    QueueRules, ReaderLog, SendCall, Unanswered, Window,
};

/// Of every batch here.
const LEASE: Duration = Duration::from_secs(15);

/// A history of one queue with one group.
struct Script(History);

/// Which of the group's streams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Normal,
    DeadLetters,
}

impl Script {
    fn new(rules: QueueRules) -> Self {
        let allowance = Allowance { clock_error: Duration::from_millis(100), taken_back: Some(Duration::from_secs(1)) };
        Self(History { queues: vec![rules], groups: vec![GroupLog::default()], allowance, ..History::default() })
    }

    fn normal() -> Self {
        Self::new(QueueRules::default())
    }

    fn redrive(max_consume_count: u32) -> Self {
        Self::new(QueueRules { fifo: false, max_consume_count: Some(max_consume_count) })
    }

    fn fifo() -> Self {
        Self::new(QueueRules { fifo: true, max_consume_count: None })
    }

    /// Messages 0.. of producer 0, answered.
    fn sent(self, count: u32) -> Self {
        self.sent_by(0, count, 500)
    }

    /// Messages 0.. of a producer, answered at this millisecond.
    fn sent_by(mut self, producer: u32, count: u32, ended_ms: u64) -> Self {
        let first = MessageId { producer, sequence: 0 };
        self.0.sends.push(SendCall { queue: 0, first, count, window: window(ended_ms), answered: true });
        self
    }

    fn reader(&mut self, stream: Stream) -> &mut ReaderLog {
        let group = &mut self.0.groups[0];
        if stream == Stream::Normal { &mut group.normal } else { &mut group.dead_letters }
    }

    /// A batch claimed in a call of 100 ms that ended at this millisecond.
    fn batch(self, ended_ms: u64, sequences: &[u32]) -> Self {
        self.batch_of(Stream::Normal, ended_ms, &sequences.iter().map(|sequence| (*sequence, None)).collect::<Vec<_>>())
    }

    fn batch_of(mut self, stream: Stream, ended_ms: u64, messages: &[(u32, Option<u8>)]) -> Self {
        let delivery =
            |(sequence, attempts): &(u32, Option<u8>)| Delivery { message: id(*sequence), attempts: *attempts };
        let deliveries = messages.iter().map(delivery).collect();
        self.reader(stream).batches.push(Batch { window: window(ended_ms), lease: LEASE, deliveries });
        self
    }

    /// An acknowledgement of entries of one batch, in a call of 100 ms that ended at this millisecond.
    fn ack(self, ended_ms: u64, batch: u32, outcomes: &[AckOutcome]) -> Self {
        self.ack_of(Stream::Normal, ended_ms, batch, outcomes)
    }

    fn ack_of(mut self, stream: Stream, ended_ms: u64, batch: u32, outcomes: &[AckOutcome]) -> Self {
        let entry = |(index, outcome): (u8, &AckOutcome)| AckEntry {
            delivery: DeliveryRef { batch, index },
            status: if *outcome == Failed { AckStatus::Fail } else { AckStatus::Success },
        };
        let entries = (0..).zip(outcomes).map(entry).collect();
        let answer = AckAnswer::Outcomes(outcomes.to_vec());
        self.reader(stream).acks.push(AckCall { window: window(ended_ms), entries, answer });
        self
    }

    /// An acknowledgement of the first message of a batch that was not answered with an outcome.
    fn ack_without_outcome(mut self, ended_ms: u64, batch: u32, answer: AckAnswer) -> Self {
        let entries = vec![AckEntry { delivery: DeliveryRef { batch, index: 0 }, status: AckStatus::Success }];
        self.reader(Stream::Normal).acks.push(AckCall { window: window(ended_ms), entries, answer });
        self
    }

    fn crash(mut self, ended_ms: u64) -> Self {
        self.0.crashes.push(window(ended_ms));
        self
    }

    /// Counters of a group that has acknowledged so many of so many messages and has so many dead letters.
    fn counters(mut self, produced: i64, consumed: i64, dead: i64) -> Self {
        self.0.groups[0].counters = Some(GroupCounters {
            produced_messages: produced,
            consumed_messages: consumed,
            produced_dead_letters: dead,
            ..GroupCounters::default()
        });
        self
    }

    /// The rules that are violated, leaving out what an unfinished history lacks.
    fn violates(self) -> Vec<Rule> {
        let mut rules = self.violates_at_the_end();
        rules.retain(|rule| !matches!(rule, Rule::Lost | Rule::Counters));
        rules
    }

    fn violates_at_the_end(self) -> Vec<Rule> {
        let mut findings = Findings::default();
        check(&self.0, &mut findings);
        findings.rules()
    }
}

fn id(sequence: u32) -> MessageId {
    MessageId { producer: 0, sequence }
}

fn window(ended_ms: u64) -> Window {
    Window { began: Moment((ended_ms - 100) * 1000), ended: Moment(ended_ms * 1000) }
}

/// A complete run: sent, delivered, acknowledged.
#[test]
fn a_right_run_passes() {
    let script = Script::normal().sent(3).batch(1_000, &[0, 1, 2]).ack(1_200, 0, &[Acked; 3]).counters(3, 3, 0);
    assert_eq!(script.violates_at_the_end(), []);
}
