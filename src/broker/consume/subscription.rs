//! What a lane knows of one subscription, and the consumers that wait for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{ClaimRequest, REFRESH};
use crate::domain::Error;
use crate::domain::ids::LeaseId;
use crate::domain::labels::{self, LabelRule};
use crate::domain::lease::SubscriptionState;
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
    /// Its row as of `read_at`, carried on by our own claims; `None` when it has to be read.
    pub state: Option<SubscriptionState>,
    /// Where its stream ends: as read along with the row, or as wake-ups have told since.
    pub end: i64,
    /// The only lease in flight, when it was given out here after the row was read.
    in_flight: Option<LeaseId>,
    /// Another replica claims too, as a lost claim has shown: its row has to be read before each claim, until it is found as
    /// the claim before has left it.
    contended: bool,
    /// The version after the last claim here.
    left_at: i64,
    read_at: Instant,
    used_at: Instant,
    kept_len: usize,
}

impl Subscription {
    /// A subscription that a consumer asks for.
    pub(super) fn new(request: &ClaimRequest) -> Self {
        let now = Instant::now();
        Self {
            exclusive: request.exclusive,
            retention: request.retention,
            waiting: VecDeque::new(),
            state: None,
            end: 0,
            in_flight: None,
            contended: false,
            left_at: 0,
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
            self.forget_state();
        }
        let known = self.state.as_ref().is_some_and(|state| state.rule == request.rule);
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

    /// Its row was read.
    pub(super) fn set_state(&mut self, state: SubscriptionState) {
        self.end = state.tail;
        self.contended &= state.version != self.left_at;
        self.state = Some(state);
        self.in_flight = None;
        self.read_at = Instant::now();
        self.waiting.iter_mut().for_each(|request| request.parked = true);
    }

    /// Its row has to be read again.
    pub(super) fn forget_state(&mut self) {
        self.state = None;
    }

    /// A claim has moved its row.
    pub(super) fn claimed(&mut self, claimed: Claimed, claim: &Claim) {
        if let Some(state) = &mut self.state {
            state.place = claimed.place;
            state.version += 1;
            state.cursor = claim.cursor;
            state.cursor_time = claim.cursor_time;
            state.has_retries = claimed.has_retries;
            state.retry_cursor = claim.retry_cursor;
            state.failed_next = claim.failed_next;
            claim.leases.iter().for_each(|lease| self.given(lease.id));
        }
        self.left_at = claim.version + 1;
        if self.contended {
            self.forget_state();
        }
    }

    /// A claim was too late: its row had moved.
    pub(super) fn lost(&mut self) {
        self.contended = true;
        self.forget_state();
    }

    /// A lease was given out, by a claim that has moved its row.
    fn given(&mut self, lease: LeaseId) {
        if let Some(state) = &mut self.state {
            self.in_flight = (!state.has_leases).then_some(lease);
            state.has_leases = true;
        }
    }

    /// A batch was settled whole, with success. When it was the only one, nothing else about the row has changed.
    pub(super) fn lease_ended(&mut self, lease: LeaseId) {
        match &mut self.state {
            Some(state) if self.in_flight == Some(lease) => (state.has_leases, self.in_flight) = (false, None),
            _ => self.forget_state(),
        }
    }

    /// Its stream has grown.
    pub(super) fn grown_to(&mut self, tail: i64) {
        self.end = self.end.max(tail);
    }

    /// Where its next messages come from.
    pub(super) fn next_source(&self) -> NextSource {
        match &self.state {
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

    /// Whether there are messages to give out, as far as is known.
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
        let Some(bound) = self.state.as_ref().map(|state| &state.rule) else { return };
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
        self.state.as_ref().filter(|state| state.rule.is_none())?;
        self.waiting.iter().find_map(|request| request.rule.clone())
    }

    /// Answers every consumer.
    pub(super) fn fail_all(&mut self, error: &Error) {
        self.waiting.drain(..).for_each(|request| drop(request.reply.send(Err(error.clone()))));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
    use crate::domain::place::Place;

    const OWN: LeaseId = LeaseId(Uuid::from_u128(1));
    const OTHER: LeaseId = LeaseId(Uuid::from_u128(2));

    /// A FIFO subscription of a stream with messages.
    fn subscription(has_leases: bool) -> Subscription {
        let now = Instant::now();
        let (retention, waiting) = (Duration::from_secs(1), VecDeque::new());
        let mut subscription = Subscription {
            exclusive: true,
            retention,
            waiting,
            state: None,
            end: 0,
            in_flight: None,
            contended: false,
            left_at: 0,
            read_at: now,
            used_at: now,
            kept_len: 0,
        };
        subscription.set_state(SubscriptionState {
            key: SubscriptionKey { stream: StreamId(1), subscription: SubscriptionId(1) },
            place: Place { block: 0, line: 1 },
            version: 1,
            cursor: 0,
            cursor_time: Timestamp(0),
            rule: None,
            tail: 10,
            has_retries: false,
            retry_cursor: 0,
            failed_next: true,
            has_leases,
        });
        subscription
    }

    #[test]
    fn failed_and_new_messages_share_the_deliveries_but_of_a_fifo_queue() {
        for (exclusive, expected) in [(true, NextSource::Failed), (false, NextSource::Both)] {
            let mut subscription = Subscription { exclusive, ..subscription(false) };
            let state = subscription.state.as_mut().expect("read");
            state.has_retries = true;
            assert_eq!(subscription.next_source(), expected);
            subscription.end = 0;
            assert_eq!(subscription.next_source(), NextSource::Failed, "nothing is new");
        }
    }

    #[test]
    fn a_batch_given_out_here_frees_the_next_without_a_look_at_the_row() {
        let mut subscription = subscription(false);
        for lease in [OWN, OTHER] {
            subscription.given(lease);
            assert_eq!(subscription.next_source(), NextSource::Blocked);
            subscription.lease_ended(lease);
            assert_eq!(subscription.next_source(), NextSource::Log);
        }
    }

    #[test]
    fn a_batch_that_is_not_known_has_the_row_read_again() {
        let mut read = subscription(true);
        read.lease_ended(OWN);
        assert!(read.state.is_none(), "given out before the row was read");
        let mut given = subscription(false);
        given.given(OWN);
        given.lease_ended(OTHER);
        assert!(given.state.is_none());
        let mut read_again = subscription(false);
        read_again.given(OWN);
        read_again.set_state(subscription(true).state.expect("read"));
        read_again.lease_ended(OWN);
        assert!(read_again.state.is_none(), "another one may be in flight by now");
    }

    /// The row as another read finds it.
    fn found(version: i64) -> SubscriptionState {
        SubscriptionState { version, ..subscription(false).state.expect("read") }
    }

    fn claim_at(subscription: &mut Subscription, version: i64) {
        let SubscriptionState { key, place, cursor_time, .. } = found(version);
        let claim = Claim {
            key,
            place,
            version,
            exclusive: true,
            cursor: 5,
            cursor_time,
            skipped: 0,
            passed_over: 0,
            retries: Vec::new(),
            retry_cursor: 0,
            failed_next: true,
            leases: Vec::new(),
        };
        subscription.claimed(Claimed { place, has_retries: false }, &claim);
    }

    #[test]
    fn a_reader_that_lost_a_claim_is_read_before_each_until_nobody_else_claims() {
        let mut subscription = subscription(false);
        claim_at(&mut subscription, 1);
        assert_eq!(subscription.state.as_ref().map(|state| (state.version, state.cursor)), Some((2, 5)));
        subscription.lost();
        for (version, found_as_left) in [(4, false), (7, false), (8, true)] {
            assert!(subscription.state.is_none(), "{version}");
            subscription.set_state(found(version));
            claim_at(&mut subscription, version);
            assert_eq!(subscription.state.is_some(), found_as_left, "{version}");
        }
    }
}
