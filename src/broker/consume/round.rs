//! One round of a claim lane: read what has to be read, decide, and carry out all claims in one statement.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

use tracing::Instrument as _;

use super::budget::RoundBudget;
use super::cut::Batch;
use super::failed::FoundFailed;
use super::planned::{Found, Planned};
use super::scan::Candidate;
use super::subscription::{NextSource, Subscription};
use super::{ClaimLane, Granted, RETRY};
use crate::broker::batching::flush_cycle::FlushCycle;
use crate::broker::replicas::wakeups::Wakeup;
use crate::domain::clock::Timestamp;
use crate::domain::handler::Handler;
use crate::domain::ids::SubscriptionKey;
use crate::domain::message::Delivery;
use crate::domain::{ErrorKind, Result};
use crate::observe::metrics::{Expired, Lane};
use crate::store;
use crate::store::session::connection::{Failure, FlushError, try_flush};
use crate::store::subscriptions::claims::Claimed;
use crate::store::subscriptions::leases::LeaseKey;

/// Subscriptions served by one statement.
const SUBSCRIPTIONS_MAX: usize = 256;
/// Subscriptions whose rows are read by one statement, which takes some tens of milliseconds.
pub(super) const STATES_MAX: usize = 2048;
/// Messages looked for on behalf of one subscription in a round, however many its consumers want.
pub(super) const MESSAGES_MAX: usize = 1000;

impl ClaimLane {
    /// Serves subscriptions that are ready.
    pub(super) async fn round(&mut self) {
        let keys: Vec<SubscriptionKey> = self.turns().take(SUBSCRIPTIONS_MAX).collect();
        self.served_last = keys.last().copied().or(self.served_last);
        self.round_of(keys).await;
        // Whoever arrives meanwhile waits for one bounded search, not for all of them.
        if let Some(key) = self.next_search() {
            self.searched_last = Some(key);
            self.round_of(vec![key]).await;
        }
    }

    async fn round_of(&mut self, keys: Vec<SubscriptionKey>) {
        if keys.is_empty() {
            return;
        }
        for key in &keys {
            self.ready.remove(key);
        }
        let begun = Instant::now();
        let waiting = keys.iter().filter_map(|key| self.subscriptions.get(key)?.waiting.front());
        self.cycle = FlushCycle::begin(Lane::Claim, keys.len(), waiting.map(|request| &request.caller));
        let span = self.cycle.span();
        let served = self.serve(&keys).instrument(span).await;
        std::mem::take(&mut self.cycle).end();
        self.core.metrics.lanes().flushed(Lane::Claim, keys.len(), 0, begun.elapsed());
        if let Err(error) = served {
            for key in &keys {
                if let Some(subscription) = self.subscriptions.get_mut(key) {
                    subscription.forget_row();
                    subscription.fail_new(&error);
                }
            }
            // Others are read again when the connection turns out to be a new one.
            self.failed.extend(keys);
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// Ready subscriptions in turn: behind those of the round before, then from the beginning, so that none is left out.
    pub(super) fn turns(&self) -> impl Iterator<Item = SubscriptionKey> {
        in_turn(&self.ready, self.served_last.as_ref()).filter(|key| !self.searching.contains(key))
    }

    /// The subscription whose turn it is to search on.
    fn next_search(&self) -> Option<SubscriptionKey> {
        in_turn(&self.searching, self.searched_last.as_ref()).find(|key| self.ready.contains(key))
    }

    async fn serve(&mut self, keys: &[SubscriptionKey]) -> Result<()> {
        self.same_session().await?;
        self.read_states(keys).await?;
        self.settle_rules(keys).await?;
        let mut budget = RoundBudget::new(&self.core.memory, self.core.lanes.claim.len());
        let planned = self.plan_all(keys, &mut budget).await?;
        if !planned.is_empty() {
            self.carry_out(planned).await?;
        }
        for key in keys {
            let served = |subscription: &Subscription| {
                !subscription.is_waiting() || (subscription.row().is_some() && !subscription.has_messages())
            };
            if self.subscriptions.get(key).is_some_and(|subscription| !served(subscription)) {
                self.make_ready(*key);
            }
        }
        Ok(())
    }

    /// What each may deliver now. Those that the round has no room for, or not for all they have, are the first of the next one.
    async fn plan_all(&mut self, keys: &[SubscriptionKey], budget: &mut RoundBudget) -> Result<Vec<Planned>> {
        let now = self.core.clock.now();
        let mut failed = self.find_failed_of_each(keys, budget).await?;
        let (mut planned, mut cut_short) = (Vec::new(), None);
        for (index, key) in keys.iter().enumerate() {
            if index > 0 && budget.is_spent() {
                cut_short.get_or_insert(index);
                break;
            }
            let failed = failed.remove(key);
            if index > 0 && failed.as_ref().is_some_and(|failed| failed.undecided_from.is_some()) {
                cut_short.get_or_insert(index);
            }
            match self.plan(*key, failed, now, budget).await {
                Ok(plan) => planned.extend(plan),
                // What cannot be read of one subscription is no matter of the others.
                Err(error) if error.kind() != ErrorKind::Unavailable || self.connection.is_open() => {
                    self.subscriptions.get_mut(key).into_iter().for_each(|subscription| subscription.fail_all(&error));
                    self.rest(*key);
                }
                Err(error) => {
                    planned.into_iter().for_each(|planned| self.give_back(planned));
                    return Err(error);
                }
            }
        }
        if let Some(index) = cut_short {
            self.served_last = Some(keys[index - 1]);
        }
        Ok(planned)
    }

    /// The failed messages of all; when they cannot be read together, of each alone.
    async fn find_failed_of_each(
        &mut self,
        keys: &[SubscriptionKey],
        budget: &mut RoundBudget,
    ) -> Result<BTreeMap<SubscriptionKey, FoundFailed>> {
        match self.find_failed(keys, budget).await {
            Err(error) if error.kind() != ErrorKind::Unavailable => {}
            found => return found,
        }
        let mut all = BTreeMap::new();
        for key in keys {
            match self.find_failed(&[*key], budget).await {
                Ok(found) => all.extend(found),
                Err(error) if error.kind() != ErrorKind::Unavailable => {
                    self.subscriptions.get_mut(key).into_iter().for_each(|subscription| subscription.fail_all(&error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Binds subscriptions to their first label rule, and refuses consumers with another one.
    async fn settle_rules(&mut self, keys: &[SubscriptionKey]) -> Result<()> {
        let mut bound = Vec::new();
        for key in keys {
            if let Some(rule) = self.subscriptions.get(key).and_then(Subscription::first_rule) {
                let binding = try_flush!(self.connection, conn => store::subscriptions::bind_rule(conn, *key, &rule));
                match binding {
                    Ok(()) => {}
                    Err(FlushError { failure: Failure::Lost, error }) => return Err(error),
                    Err(_) => {
                        self.rest(*key);
                        continue;
                    }
                }
                self.subscriptions.get_mut(key).into_iter().for_each(Subscription::forget_row);
                // Other replicas know the subscription as unbound, and would let a consumer with another rule wait.
                self.core.notify_buffer.push(Wakeup::Changed(key.stream));
                bound.push(*key);
            }
        }
        self.read_states(&bound).await?;
        for key in keys {
            self.subscriptions.get_mut(key).into_iter().for_each(Subscription::refuse_other_rules);
        }
        Ok(())
    }

    /// What one subscription may deliver now, cut into batches; `None` when there is nothing to claim.
    async fn plan(
        &mut self,
        key: SubscriptionKey,
        failed: Option<FoundFailed>,
        now: Timestamp,
        budget: &mut RoundBudget,
    ) -> Result<Option<Planned>> {
        let Some(subscription) = self.subscriptions.get_mut(&key) else { return Ok(None) };
        let (source, exclusive) = (subscription.next_source(), subscription.exclusive);
        let horizon = self.core.horizon(subscription.retention);
        let (wanted, end) = (subscription.wanted(MESSAGES_MAX), subscription.end);
        let Some(state) = subscription.row().cloned().filter(|_| wanted > 0) else { return Ok(None) };
        let mut found = Found { new: None, failed };
        if matches!(source, NextSource::Log | NextSource::Both) {
            found.new = Some(self.find_new(&state, end, horizon, wanted, budget).await?);
        }
        let Some(subscription) = self.subscriptions.get_mut(&key) else { return Ok(None) };
        if found.new.as_ref().is_some_and(|new| new.is_search) {
            self.searching.insert(key);
        } else {
            self.searching.remove(&key);
        }
        let consumers_max = if exclusive { 1 } else { usize::MAX };
        let is_undecided = found.failed.as_ref().is_some_and(|failed| failed.undecided_from.is_some());
        let mut planned = Planned::new(state, exclusive, found, now, |deliverable| {
            deliverable.cut(&mut subscription.waiting, consumers_max)
        });
        match &mut planned {
            Some(planned) => {
                let reserve = |(_, _, batch): &mut (_, _, Batch)| batch.kept = Some(budget.keep(batch.kept_bytes));
                planned.batches.iter_mut().for_each(reserve);
            }
            // Somebody else has taken what was to be read.
            None if matches!(source, NextSource::Failed | NextSource::Both) && !is_undecided => {
                subscription.forget_row()
            }
            None => {}
        }
        Ok(planned)
    }

    /// Puts consumers back at the head of the line.
    pub(super) fn give_back(&mut self, planned: Planned) {
        if let Some(subscription) = self.subscriptions.get_mut(&planned.claim.key) {
            subscription.forget_row();
            for (_, _, batch) in planned.batches.into_iter().rev() {
                subscription.waiting.push_front(batch.request);
            }
        }
    }

    pub(super) fn deliver(&mut self, planned: Planned, claimed: Claimed) {
        let key = planned.claim.key;
        planned.expired.into_iter().for_each(|expired| self.tell_expired(key, expired));
        if let Some(subscription) = self.subscriptions.get_mut(&key) {
            subscription.claimed(claimed, &planned.claim);
        }
        for (lease, expires_at, batch) in planned.batches {
            self.core.timers.add(lease, expires_at);
            self.cycle.serves([&batch.request.caller]);
            let first = batch.messages.iter().filter(|message| message.at.attempts <= 1).count();
            let again = batch.messages.len() - first;
            let Batch { request, messages, kept_bytes, kept } = batch;
            let deliveries = deliveries(lease, expires_at, messages);
            if request.reply.send(Ok(Granted { lease, deliveries, kept_bytes, kept })).is_err() {
                // The caller has given up since: nobody has seen these messages.
                self.core.release(lease);
            } else {
                self.core.metrics.messages().delivered(key, first, again);
            }
        }
    }

    /// Nobody else will ever tell of these messages.
    fn tell_expired(&self, key: SubscriptionKey, expired: Expired) {
        if expired.count() > 0 {
            let (stream, subscription) = (key.stream.0, key.subscription.0);
            tracing::warn!(
                stream,
                subscription,
                ?expired,
                "messages have expired before their group had acknowledged them"
            );
            self.core.metrics.messages().expired(expired);
        }
    }
}

/// Keys behind the last one, then from the beginning.
fn in_turn<'a>(
    keys: &'a BTreeSet<SubscriptionKey>,
    last: Option<&'a SubscriptionKey>,
) -> impl Iterator<Item = SubscriptionKey> + 'a {
    let behind = keys.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
    behind.chain(last.into_iter().flat_map(|last| keys.range(..=last))).copied()
}

fn deliveries(lease: LeaseKey, expires_at: Timestamp, messages: Vec<Candidate>) -> Vec<Delivery> {
    let batch_len = u8::try_from(messages.len()).unwrap_or(u8::MAX);
    let delivery = |candidate: Candidate| Delivery {
        handler: Handler { key: lease.subscription, lease: lease.id, offset: candidate.at.offset, batch_len }.format(),
        offset: candidate.at.offset,
        appended_at: candidate.at.appended_at,
        lease_expires_at: expires_at,
        attempt: candidate.at.attempts,
        message: candidate.message,
    };
    messages.into_iter().map(delivery).collect()
}
