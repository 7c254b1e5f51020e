//! Messages: delivered, settled, and those that nobody can have any more. Counted by the batch.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::domain::ids::SubscriptionKey;

/// Subscriptions whose messages are counted one by one when they are redelivered; beyond that all of them are counted anew from zero, as after a
/// restart.
const SUBSCRIPTIONS_MAX: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Messages that have expired before their group had acknowledged them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Nobody has ever had them.
    Unread(i64),
    /// They had failed, and were to be redelivered.
    Failed(i64),
}

impl Expired {
    /// How many.
    pub fn count(self) -> i64 {
        match self {
            Self::Unread(count) | Self::Failed(count) => count,
        }
    }
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
    expired_unread: Counter,
    expired_failed: Counter,
    /// By subscription, of those with any.
    redelivered: Mutex<HashMap<SubscriptionKey, u64>>,
}

impl Messages {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let delivered: Family<Kind, Counter> = Family::default();
        let settled: Family<Outcome, Counter> = Family::default();
        let gone: Family<Kind, Counter> = Family::default();
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
            expired_unread: gone.get_or_create_owned(&Kind { kind: "unread" }),
            expired_failed: gone.get_or_create_owned(&Kind { kind: "failed" }),
            redelivered: Mutex::default(),
        };
        registry.register("delivered_messages", "Messages given to consumers, for the first time or again", delivered);
        registry.register("settled_messages", "Deliveries that have ended, by what became of them", settled);
        let help = "Messages that could not be read, counted whenever their segment is read from the log";
        registry.register("corrupt_messages", help, messages.corrupt.clone());
        let help = "Messages that failed for the last time and could not be read to become dead letters";
        registry.register("dead_letters_lost", help, messages.dead_letters_lost.clone());
        let help = "Messages that have expired before their group had acknowledged them, as it came across them";
        registry.register("expired_messages", help, gone);
        messages
    }

    /// A batch of a subscription was given to a consumer.
    pub fn delivered(&self, subscription: SubscriptionKey, first: usize, again: usize) {
        add(&self.first, first);
        add(&self.again, again);
        if again > 0 {
            let mut redelivered = self.redelivered.lock().unwrap_or_else(PoisonError::into_inner);
            if redelivered.len() >= SUBSCRIPTIONS_MAX {
                redelivered.clear();
            }
            *redelivered.entry(subscription).or_default() += u64::try_from(again).unwrap_or(u64::MAX);
        }
    }

    /// How many messages of a subscription this replica has redelivered.
    pub(crate) fn redelivered(&self, subscription: SubscriptionKey) -> u64 {
        self.redelivered.lock().unwrap_or_else(PoisonError::into_inner).get(&subscription).copied().unwrap_or_default()
    }

    /// The subscriptions to which this replica has given most messages again, at most so many, with how many.
    pub(crate) fn most_redelivered(&self, limit: usize) -> Vec<(SubscriptionKey, u64)> {
        let redelivered = self.redelivered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut most: Vec<(SubscriptionKey, u64)> =
            redelivered.iter().map(|(subscription, count)| (*subscription, *count)).collect();
        drop(redelivered);
        most.sort_by_key(|(subscription, count)| (std::cmp::Reverse(*count), *subscription));
        most.truncate(limit);
        most
    }

    /// Messages were passed over, or dropped, since they have expired.
    pub fn expired(&self, expired: Expired) {
        let counter = match expired {
            Expired::Unread(_) => &self.expired_unread,
            Expired::Failed(_) => &self.expired_failed,
        };
        add(counter, usize::try_from(expired.count()).unwrap_or(0));
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
    pub(crate) fn corrupt(&self, count: usize) {
        add(&self.corrupt, count);
    }

    /// Messages should have become dead letters, and are lost.
    pub(crate) fn dead_letters_lost(&self, count: usize) {
        add(&self.dead_letters_lost, count);
    }
}

/// Mostly nothing, which leaves the counter's memory alone.
fn add(counter: &Counter, count: usize) {
    if count > 0 {
        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
