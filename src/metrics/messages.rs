//! Messages: delivered, settled, and those that nobody can have any more. Counted by the batch.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What became of deliveries, in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SettledCounts {
    /// Acknowledged with success.
    pub acked: usize,
    /// Due again: answered with a failure, or behind one that was.
    pub failed: usize,
    /// Due again: their lease has ended.
    pub lease_expired: usize,
    /// Failed for the last time, either way.
    pub dead: usize,
    /// Failed when their retention had ended.
    pub expired: usize,
}

/// All messages that pass through this replica, dead letters too.
#[derive(Debug)]
pub struct Messages {
    first: Counter,
    again: Counter,
    acked: Counter,
    failed: Counter,
    lease_expired: Counter,
    dead: Counter,
    expired: Counter,
    corrupt: Counter,
    dead_letters_lost: Counter,
}

impl Messages {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let delivered: Family<Kind, Counter> = Family::default();
        let settled: Family<Outcome, Counter> = Family::default();
        let of_kind = |kind| delivered.get_or_create_owned(&Kind { kind });
        let with_outcome = |outcome| settled.get_or_create_owned(&Outcome { outcome });
        let messages = Self {
            first: of_kind("first"),
            again: of_kind("again"),
            acked: with_outcome("acked"),
            failed: with_outcome("failed"),
            lease_expired: with_outcome("lease_expired"),
            dead: with_outcome("dead"),
            expired: with_outcome("expired"),
            corrupt: Counter::default(),
            dead_letters_lost: Counter::default(),
        };
        registry.register("delivered_messages", "Messages given to consumers, for the first time or again", delivered);
        registry.register("settled_messages", "Deliveries that have ended, by what became of them", settled);
        let help = "Messages that could not be read, counted whenever their segment is read from the log";
        registry.register("corrupt_messages", help, messages.corrupt.clone());
        let help = "Messages that failed for the last time and could not be read to become dead letters";
        registry.register("dead_letters_lost", help, messages.dead_letters_lost.clone());
        messages
    }

    /// A batch was given to a consumer.
    pub fn delivered(&self, first: usize, again: usize) {
        add(&self.first, first);
        add(&self.again, again);
    }

    /// Deliveries have ended.
    pub fn settled(&self, counts: SettledCounts) {
        add(&self.acked, counts.acked);
        add(&self.failed, counts.failed);
        add(&self.lease_expired, counts.lease_expired);
        add(&self.dead, counts.dead);
        add(&self.expired, counts.expired);
    }

    /// Messages of a segment of the log cannot be read.
    pub fn corrupt(&self, count: usize) {
        add(&self.corrupt, count);
    }

    /// Messages should have become dead letters, and are lost.
    pub fn dead_letters_lost(&self, count: usize) {
        add(&self.dead_letters_lost, count);
    }
}

/// Mostly nothing, which leaves the counter's memory alone.
fn add(counter: &Counter, count: usize) {
    if count > 0 {
        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
