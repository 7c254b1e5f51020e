//! What a lane knows of one subscription, and the consumers that wait for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::view::View;
use super::{ClaimRequest, REFRESH};
use crate::domain::Error;
use crate::domain::ids::LeaseId;
use crate::domain::labels::{self, LabelRule};
use crate::store::subscriptions::SubscriptionState;
use crate::store::subscriptions::claims::{Claim, Claimed};

/// Where a subscription's next messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextSource {
    /// FIFO, and a batch is in flight.
    Blocked,
    /// Messages that have failed before.
    Failed,
    /// Messages never claimed.
    Log,
    /// Both share the deliveries.
    Both,
    /// There are none.
    Nothing,
}

/// One subscription.
pub(super) struct Subscription {
    /// FIFO.
    pub exclusive: bool,
    /// How long messages of its stream are kept.
    pub retention: Duration,
    /// Consumers in order of arrival.
    pub waiting: VecDeque<ClaimRequest>,
    /// Its row as of `read_at`.
    view: View,
    /// Where its stream ends: as read along with the row, or as wake-ups have told since.
    pub end: i64,
    read_at: Instant,
    used_at: Instant,
    kept_len: usize,
}

impl Subscription {
    /// A subscription that a consumer asks for.
    pub(super) fn new(request: &ClaimRequest) -> Self {
        Self::unread(request.exclusive, request.retention)
    }

    fn unread(exclusive: bool, retention: Duration) -> Self {
        let now = Instant::now();
        Self {
            exclusive,
            retention,
            waiting: VecDeque::new(),
            view: View::Unread,
            end: 0,
            read_at: now,
            used_at: now,
            kept_len: 0,
        }
    }

    /// Adds a consumer. With a row that is known and nothing to give it is parked at once, which costs the same however many
    /// are parked already; otherwise it is ready to be served: true.
    pub(super) fn push(&mut self, mut request: ClaimRequest) -> bool {
        self.used_at = Instant::now();
        if self.read_at.elapsed() > REFRESH {
            self.forget_row();
        }
        let known = self.row().is_some_and(|row| row.rule == request.rule);
        request.parked = known;
        if self.waiting.len() > 2 * self.kept_len + 16 {
            self.drop_closed();
        }
        self.waiting.push_back(request);
        !known || self.has_messages()
    }

    /// Leaves out consumers that have given up.
    pub(super) fn drop_closed(&mut self) {
        self.waiting.retain(|request| !request.reply.is_closed());
        self.kept_len = self.waiting.len();
    }

    /// Whether a consumer waits (or has given up unnoticed).
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nobody has waited for it for a while, as far as was seen when this was asked before.
    pub(super) fn is_idle(&mut self, now: Instant, idle: Duration) -> bool {
        if self.is_waiting() {
            self.used_at = now;
        }
        self.drop_closed();
        self.waiting.is_empty() && now.duration_since(self.used_at) > idle
    }

    /// Its row, unless it has to be read.
    pub(super) fn row(&self) -> Option<&SubscriptionState> {
        self.view.row()
    }

    /// Its row was read.
    pub(super) fn read(&mut self, row: SubscriptionState) {
        self.end = row.tail;
        self.view.read(row);
        self.read_at = Instant::now();
        self.waiting.iter_mut().for_each(|request| request.parked = true);
    }

    /// Its row has to be read again.
    pub(super) fn forget_row(&mut self) {
        self.view.forget();
    }

    /// A claim has moved its row.
    pub(super) fn claimed(&mut self, claimed: Claimed, claim: &Claim) {
        self.view.claimed(claimed, claim);
    }

    /// A claim was too late: its row had moved.
    pub(super) fn lost(&mut self) {
        self.view.lost();
    }

    /// A batch was settled whole, with success.
    pub(super) fn lease_ended(&mut self, lease: LeaseId) {
        self.view.lease_ended(lease);
    }

    /// Its stream has grown.
    pub(super) fn grown_to(&mut self, tail: i64) {
        self.end = self.end.max(tail);
    }

    /// Where its next messages come from.
    pub(super) fn next_source(&self) -> NextSource {
        match self.row() {
            None => NextSource::Nothing,
            Some(state) if self.exclusive && state.has_leases => NextSource::Blocked,
            Some(state) => match (state.has_retries, state.cursor < self.end) {
                (true, true) if !self.exclusive => NextSource::Both,
                (true, _) => NextSource::Failed,
                (false, true) => NextSource::Log,
                (false, false) => NextSource::Nothing,
            },
        }
    }

    /// Whether there are messages to deliver, as far as is known.
    pub(super) fn has_messages(&self) -> bool {
        !matches!(self.next_source(), NextSource::Blocked | NextSource::Nothing)
    }

    /// Messages that the consumers who have not given up want, at most `enough`.
    pub(super) fn wanted(&mut self, enough: usize) -> usize {
        while self.waiting.front().is_some_and(|request| request.reply.is_closed()) {
            self.waiting.pop_front();
        }
        let limit = if self.exclusive { 1 } else { usize::MAX };
        let mut wanted = 0;
        for request in self.waiting.iter().filter(|request| !request.reply.is_closed()).take(limit) {
            wanted += request.max_messages;
            if wanted >= enough {
                return enough;
            }
        }
        wanted
    }

    /// Answers consumers whose label rule is not the one the group is bound to.
    pub(super) fn refuse_other_rules(&mut self) {
        let Some(bound) = self.view.row().map(|row| &row.rule) else { return };
        if self.waiting.iter().all(|request| request.rule == *bound) {
            return;
        }
        let (kept, refused): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|request| request.rule == *bound);
        for request in refused {
            let error = labels::other_rule(request.rule.as_ref(), bound.as_ref());
            drop(request.reply.send(Err(error)));
        }
        self.waiting = kept;
    }

    /// Answers consumers that were never looked after; those that were parked stay.
    pub(super) fn fail_new(&mut self, error: &Error) {
        let (parked, new): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|request| request.parked);
        self.waiting = parked;
        new.into_iter().for_each(|request| drop(request.reply.send(Err(error.clone()))));
    }

    /// A consumer whose label rule could bind the subscription, when it has none yet.
    pub(super) fn first_rule(&self) -> Option<LabelRule> {
        self.row().filter(|state| state.rule.is_none())?;
        self.waiting.iter().find_map(|request| request.rule.clone())
    }

    /// Answers every consumer.
    pub(super) fn fail_all(&mut self, error: &Error) {
        self.waiting.drain(..).for_each(|request| drop(request.reply.send(Err(error.clone()))));
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::row;
    use super::*;

    fn subscription(exclusive: bool, row: SubscriptionState) -> Subscription {
        let mut subscription = Subscription::unread(exclusive, Duration::from_secs(1));
        assert_eq!(subscription.next_source(), NextSource::Nothing, "nothing is known");
        subscription.read(row);
        subscription
    }

    #[test]
    fn a_fifo_queue_has_one_batch_in_flight() {
        for (exclusive, has_leases, expected) in
            [(true, true, NextSource::Blocked), (true, false, NextSource::Log), (false, true, NextSource::Log)]
        {
            assert_eq!(subscription(exclusive, row(1, has_leases)).next_source(), expected);
        }
    }

    #[test]
    fn failed_and_new_messages_share_the_deliveries_but_of_a_fifo_queue() {
        for (exclusive, expected) in [(true, NextSource::Failed), (false, NextSource::Both)] {
            let mut subscription = subscription(exclusive, SubscriptionState { has_retries: true, ..row(1, false) });
            assert_eq!(subscription.next_source(), expected);
            subscription.end = 0;
            assert_eq!(subscription.next_source(), NextSource::Failed, "nothing is new");
        }
    }
}
