//! Decides what becomes of deliveries that are settled one by one: acknowledged, redelivered, dead letter, or expired.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::clock::Timestamp;
use crate::domain::handler::Handler;
use crate::domain::handler_fault::{Foreign, HandlerFault};
use crate::domain::ids::SubscriptionKey;
use crate::domain::lease::{Lease, MessageRef};
use crate::domain::limits::{RETENTION_DEFAULT, retention};
use crate::domain::message::DeadLetterReason;
use crate::domain::settle::{self, AckOutcome, AckStatus, Acknowledged};
use crate::observe::metrics::SettledCounts;
use crate::store::metadata::groups::SubscriptionPolicy;
use crate::store::subscriptions::leases::LeaseKey;
use crate::store::subscriptions::settlement::{DeadMessage, Settlement};

/// One thing to settle.
#[derive(Debug)]
pub(crate) enum Op {
    /// Entries of an acknowledgement by a subscription.
    Ack {
        /// The subscription that the caller named.
        key: SubscriptionKey,
        /// Handlers and statuses in order.
        entries: Vec<(Option<Handler>, AckStatus)>,
    },
    /// A lease that may have ended.
    Expire(LeaseKey),
    /// A lease that nobody has seen.
    Release(LeaseKey),
}

impl Op {
    /// The leases it may change.
    pub(crate) fn leases(&self) -> Vec<LeaseKey> {
        match self {
            Self::Ack { key, entries } => {
                let handlers = entries.iter().filter_map(|(handler, _)| *handler);
                let own = handlers.filter(|handler| handler.key == *key);
                own.map(|handler| LeaseKey { subscription: *key, id: handler.lease }).collect()
            }
            Self::Expire(lease) | Self::Release(lease) => vec![*lease],
        }
    }
}

/// Outcomes of the acknowledgements, by index of their op.
pub(crate) type Outcomes = BTreeMap<usize, Acknowledged>;

/// What the callers and the metrics are told once it is committed.
#[derive(Debug)]
pub(crate) struct Decided {
    /// For the callers.
    pub outcomes: Outcomes,
    /// For the metrics.
    pub counts: SettledCounts,
}

/// The time to decide by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present {
    /// By which leases end.
    pub now: Timestamp,
    /// By which messages expire, see [`crate::domain::clock::Clock::expiry_now`].
    pub(crate) expiry_now: Timestamp,
}

/// Applies the ops one after the other to the leases as they are.
pub(crate) fn decide(
    ops: &[&Op],
    leases: Vec<Lease>,
    policies: &[SubscriptionPolicy],
    at: Present,
) -> (Settlement, Decided) {
    let leases = leases.into_iter().map(|lease| (LeaseKey { subscription: lease.key, id: lease.id }, lease)).collect();
    let (settlement, counts) = (Settlement::default(), SettledCounts::default());
    let mut table = Table { leases, policies, at, changed: BTreeSet::new(), settlement, counts };
    let mut outcomes = Outcomes::new();
    for (index, op) in ops.iter().enumerate() {
        match op {
            Op::Ack { key, entries } => drop(outcomes.insert(index, table.ack(*key, entries))),
            Op::Expire(lease) => table.expire(*lease),
            Op::Release(lease) => table.release(*lease),
        }
    }
    let counts = table.counts;
    (table.finish(), Decided { outcomes, counts })
}

struct Table<'a> {
    leases: BTreeMap<LeaseKey, Lease>,
    policies: &'a [SubscriptionPolicy],
    at: Present,
    changed: BTreeSet<LeaseKey>,
    settlement: Settlement,
    counts: SettledCounts,
}

impl Table<'_> {
    fn ack(&mut self, key: SubscriptionKey, entries: &[(Option<Handler>, AckStatus)]) -> Acknowledged {
        let live = self.live_entries(key, entries);
        let statuses: Vec<AckStatus> = entries.iter().map(|(_, status)| *status).collect();
        let outcomes = settle::walk(&statuses, |index| live[index].is_ok());
        let invalid = outcomes.iter().position(|outcome| *outcome == AckOutcome::InvalidHandler);
        let fault = invalid.and_then(|index| live[index].err());
        if invalid == Some(0) {
            // The whole request is refused: nothing changes.
            return Acknowledged { outcomes, fault };
        }
        for (outcome, live) in outcomes.iter().zip(live) {
            let Ok((lease, offset)) = live else { continue };
            let Some(message) = self.leases.get_mut(&lease).and_then(|lease| lease.take(offset)) else { continue };
            self.changed.insert(lease);
            if *outcome == AckOutcome::Acked {
                self.counts.acked += 1;
            } else {
                self.fail(key, message, DeadLetterReason::AckFail);
            }
        }
        Acknowledged { outcomes, fault }
    }

    /// For each entry the lease and offset it means, if the lease is live, holds it, and no entry before meant the same.
    fn live_entries(
        &self,
        key: SubscriptionKey,
        entries: &[(Option<Handler>, AckStatus)],
    ) -> Vec<Result<(LeaseKey, i64), HandlerFault>> {
        let mut seen = BTreeMap::new();
        let live = |(index, (handler, _)): (usize, &(Option<Handler>, AckStatus))| {
            let entry = self.live_entry(key, *handler)?;
            let first = *seen.entry(entry).or_insert(index);
            if first == index { Ok(entry) } else { Err(HandlerFault::NamedBefore { entry: first }) }
        };
        entries.iter().enumerate().map(live).collect()
    }

    fn live_entry(&self, key: SubscriptionKey, handler: Option<Handler>) -> Result<(LeaseKey, i64), HandlerFault> {
        let handler = handler.ok_or(HandlerFault::Unparsable)?;
        if handler.key != key {
            return Err(HandlerFault::Foreign(Foreign::of(handler, key)));
        }
        let lease = LeaseKey { subscription: key, id: handler.lease };
        match self.leases.get(&lease) {
            None => Err(HandlerFault::Gone),
            Some(row) if row.expires_at <= self.at.now => Err(HandlerFault::LeaseEnded { at: row.expires_at }),
            Some(row) if !row.holds(handler.offset) => Err(HandlerFault::Settled),
            Some(_) => Ok((lease, handler.offset)),
        }
    }

    fn expire(&mut self, key: LeaseKey) {
        let Some(lease) = self.leases.get_mut(&key).filter(|lease| lease.expires_at <= self.at.now) else { return };
        self.changed.insert(key);
        for message in std::mem::take(&mut lease.messages) {
            self.fail(key.subscription, message, DeadLetterReason::LeaseExpired);
        }
    }

    fn release(&mut self, key: LeaseKey) {
        let Some(lease) = self.leases.get_mut(&key) else { return };
        self.changed.insert(key);
        for message in std::mem::take(&mut lease.messages) {
            let attempts = (message.attempts - 1).max(0);
            self.settlement.retries.push((key.subscription, MessageRef { attempts, ..message }));
        }
    }

    /// A counted delivery has failed.
    fn fail(&mut self, key: SubscriptionKey, message: MessageRef, reason: DeadLetterReason) {
        let Some(policy) = self.policies.iter().find(|policy| policy.subscription == key.subscription) else { return };
        let normal = key.stream == policy.stream;
        let retention = if normal { retention(policy.retention_hours) } else { RETENTION_DEFAULT };
        if message.appended_at <= self.at.expiry_now.minus(retention) {
            self.counts.expired += 1;
            return self.settlement.expired.push(key);
        }
        match policy.redrive {
            Some((max_consume_count, to)) if normal && message.attempts >= max_consume_count => {
                self.counts.dead += 1;
                self.settlement.dead.push(DeadMessage { key, message, reason, policy: *policy, to });
            }
            _ => {
                *self.due_again(reason) += 1;
                self.settlement.retries.push((key, message));
            }
        }
    }

    fn due_again(&mut self, reason: DeadLetterReason) -> &mut usize {
        match reason {
            DeadLetterReason::AckFail => &mut self.counts.failed,
            DeadLetterReason::LeaseExpired => &mut self.counts.lease_expired,
        }
    }

    fn finish(mut self) -> Settlement {
        let changed = self.changed.iter().filter_map(|key| self.leases.remove(key));
        self.settlement.leases = changed.collect();
        // Dead letters keep the order of the stream they come from.
        self.settlement.dead.sort_by_key(|dead| (dead.key, dead.message.offset));
        self.settlement
    }
}
