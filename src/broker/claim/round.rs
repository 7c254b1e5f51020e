//! One round of a claim lane: read what has to be read, decide, and carry out all claims in one statement.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Instant;

use tracing::Instrument as _;
use uuid::Uuid;

use super::cut::{Batch, cut};
use super::find::Taken;
use super::reader::{NextSource, Reader};
use super::scan::Candidate;
use super::{ClaimLane, Granted, RETRY};
use crate::broker::rounds::Round;
use crate::broker::settle::{LEASE_BYTES, SettleRequest};
use crate::broker::wakeups::Wakeup;
use crate::domain::clock::Timestamp;
use crate::domain::handler::Handler;
use crate::domain::ids::{LeaseId, SubscriptionKey};
use crate::domain::lease::{Lease, SubscriptionState};
use crate::domain::message::Delivery;
use crate::domain::place::Place;
use crate::domain::{Error, ErrorKind, Result};
use crate::metrics::{Expired, Lane};
use crate::store;
use crate::store::claims::Claim;
use crate::store::connection::flush;
use crate::store::leases::LeaseKey;

/// Readers served by one statement.
const READERS_MAX: usize = 256;
/// Readers whose rows are read by one statement, which takes some tens of milliseconds.
const STATES_MAX: usize = 2048;
/// Messages looked for on behalf of one reader in a round, however many its consumers want.
const MESSAGES_MAX: usize = 1000;

/// A claim ready to be carried out, and who gets what.
struct Planned {
    claim: Claim,
    batches: Vec<(LeaseKey, Timestamp, Batch)>,
    more_retries: bool,
    /// What it passes over because it has expired.
    expired: Expired,
}

impl Planned {
    /// Lets the leases begin at this time.
    fn lease_from(&mut self, now: Timestamp) {
        for (lease, (_, expires_at, batch)) in self.claim.leases.iter_mut().zip(&mut self.batches) {
            *expires_at = now.plus(batch.request.lease);
            lease.expires_at = *expires_at;
        }
    }
}

impl ClaimLane {
    /// Serves readers that are ready.
    pub(super) async fn round(&mut self) {
        let keys: Vec<SubscriptionKey> = self.turns().take(READERS_MAX).collect();
        let Some(last) = keys.last() else { return };
        self.served_last = Some(*last);
        for key in &keys {
            self.ready.remove(key);
        }
        let begun = Instant::now();
        let waiting = keys.iter().filter_map(|key| self.readers.get(key)?.waiting.front());
        self.round = Round::begin(Lane::Claim, keys.len(), waiting.map(|request| &request.caller));
        let span = self.round.span();
        let served = self.serve(&keys).instrument(span).await;
        std::mem::take(&mut self.round).end();
        self.core.metrics.lanes().flushed(Lane::Claim, keys.len(), 0, begun.elapsed());
        if let Err(error) = served {
            for key in keys {
                if let Some(reader) = self.readers.get_mut(&key) {
                    reader.forget_state();
                    reader.fail_new(&error);
                }
            }
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// Ready readers in turn: behind those of the round before, then from the beginning, so that none is left out.
    fn turns(&self) -> impl Iterator<Item = SubscriptionKey> {
        let last = self.served_last.as_ref();
        let behind = self.ready.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        behind.chain(last.into_iter().flat_map(|last| self.ready.range(..=last))).copied()
    }

    async fn serve(&mut self, keys: &[SubscriptionKey]) -> Result<()> {
        self.same_session().await?;
        self.read_states(keys).await?;
        self.settle_rules(keys).await?;
        let now = self.core.clock.now();
        let mut planned = Vec::new();
        for key in keys {
            match self.plan(*key, now).await {
                Ok(plan) => planned.extend(plan),
                // What cannot be read of one reader is no matter of the others.
                Err(error) if error.kind() != ErrorKind::Unavailable => {
                    self.readers.get_mut(key).into_iter().for_each(|reader| reader.fail_all(&error));
                }
                Err(error) => {
                    planned.into_iter().for_each(|planned| self.give_back(planned));
                    return Err(error);
                }
            }
        }
        if !planned.is_empty() {
            self.carry_out(planned).await?;
        }
        for key in keys {
            if let Some(reader) = self.readers.get(key)
                && reader.is_waiting()
                && (reader.has_messages() || reader.state.is_none())
            {
                self.ready.insert(*key);
            }
        }
        Ok(())
    }

    /// Reads the rows of readers that are not known, and along with them those of readers whose turn comes next: a refresh of
    /// many is few statements. Readers that are gone are answered and forgotten.
    async fn read_states(&mut self, keys: &[SubscriptionKey]) -> Result<()> {
        let unknown = |key: &SubscriptionKey| {
            let reader = self.readers.get(key).filter(|reader| reader.state.is_none())?;
            Some((*key, reader.exclusive))
        };
        let mut wanted: Vec<(SubscriptionKey, bool)> = keys.iter().filter_map(unknown).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.extend(self.turns().take(STATES_MAX - keys.len()).filter_map(|key| unknown(&key)));
        let states = flush!(self.connection, conn => store::subscriptions::read_states(conn, &wanted))?;
        for state in states {
            if let Some(reader) = self.readers.get_mut(&state.key) {
                reader.set_state(state);
            }
        }
        for (key, _) in wanted {
            if self.readers.get(&key).is_some_and(|reader| reader.state.is_none())
                && let Some(mut reader) = self.forget(key)
            {
                reader.fail_all(&Error::new(ErrorKind::GroupNotFound, "group_id: the group was deleted"));
            }
        }
        Ok(())
    }

    /// Binds readers to their first label rule, and refuses consumers with another one.
    async fn settle_rules(&mut self, keys: &[SubscriptionKey]) -> Result<()> {
        let mut bound = Vec::new();
        for key in keys {
            if let Some(rule) = self.readers.get(key).and_then(Reader::first_rule) {
                flush!(self.connection, conn => store::subscriptions::bind_rule(conn, *key, &rule))?;
                self.readers.get_mut(key).into_iter().for_each(Reader::forget_state);
                // Other replicas know the reader as unbound, and would let a consumer with another rule wait.
                self.core.outbox.push(Wakeup::Changed(key.stream));
                bound.push(*key);
            }
        }
        self.read_states(&bound).await?;
        for key in keys {
            self.readers.get_mut(key).into_iter().for_each(Reader::refuse_other_rules);
        }
        Ok(())
    }

    /// What one reader may give out now, cut into batches; `None` when there is nothing to claim.
    async fn plan(&mut self, key: SubscriptionKey, now: Timestamp) -> Result<Option<Planned>> {
        let Some(reader) = self.readers.get_mut(&key) else { return Ok(None) };
        let (source, exclusive) = (reader.next_source(), reader.exclusive);
        let horizon = self.core.horizon(reader.retention);
        let consumers_max = if exclusive { 1 } else { usize::MAX };
        let (wanted, end) = (reader.wanted(MESSAGES_MAX), reader.end);
        let Some(state) = reader.state.clone().filter(|_| wanted > 0) else { return Ok(None) };
        let found = match source {
            NextSource::Retries => self.find_retries(&state, horizon, wanted).await?,
            NextSource::Log => self.find_new(&state, end, horizon, wanted).await?,
            NextSource::Blocked | NextSource::Nothing => return Ok(None),
        };
        let Some(reader) = self.readers.get_mut(&key) else { return Ok(None) };
        let (batches, left) = cut(&mut reader.waiting, found.candidates, consumers_max);
        let batches = batches.into_iter().map(|batch| with_lease(key, now, batch)).collect::<Vec<_>>();
        Ok(planned(state, found.source, batches, left.front()))
    }

    /// Carries out the claims and hands out what was claimed; readers that moved meanwhile are read and tried again.
    async fn carry_out(&mut self, mut planned: Vec<Planned>) -> Result<()> {
        // Finding messages may have taken its time; leases begin now, and last by the clock of any replica.
        let now = self.core.clock.latest();
        planned.iter_mut().for_each(|planned| planned.lease_from(now));
        let claims: Vec<Claim> = planned.iter().map(|planned| planned.claim.clone()).collect();
        let claimed = match self.same_session().await {
            Ok(true) => flush!(self.connection, conn => store::claims::claim(conn, &claims)),
            Ok(false) => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        };
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                for planned in planned {
                    self.release(&planned);
                    self.give_back(planned);
                }
                return Err(error);
            }
        };
        for planned in planned {
            match claimed.get(&planned.claim.key) {
                Some(place) => self.hand_out(planned, *place),
                None => {
                    self.readers.get_mut(&planned.claim.key).into_iter().for_each(Reader::lost);
                    self.give_back(planned);
                }
            }
        }
        Ok(())
    }

    /// Has leases ended that may have been given out, by a claim whose outcome is not known: nobody holds them.
    fn release(&self, planned: &Planned) {
        for (lease, _, _) in &planned.batches {
            self.core.settle_lane(lease.subscription.stream).push_event(SettleRequest::Release(*lease), LEASE_BYTES);
        }
    }

    /// Puts consumers back at the head of the line.
    fn give_back(&mut self, planned: Planned) {
        if let Some(reader) = self.readers.get_mut(&planned.claim.key) {
            reader.forget_state();
            for (_, _, batch) in planned.batches.into_iter().rev() {
                reader.waiting.push_front(batch.request);
            }
        }
    }

    fn hand_out(&mut self, planned: Planned, place: Place) {
        let key = planned.claim.key;
        self.tell_expired(key, planned.expired);
        if let Some(reader) = self.readers.get_mut(&key) {
            reader.claimed(place, &planned.claim, planned.more_retries);
        }
        for (lease, expires_at, batch) in planned.batches {
            self.core.timers.add(lease, expires_at);
            self.round.serves([&batch.request.caller]);
            let first = batch.messages.iter().filter(|message| message.at.attempts <= 1).count();
            let again = batch.messages.len() - first;
            let deliveries = deliveries(lease, expires_at, batch.messages);
            if batch.request.reply.send(Ok(Granted { lease, deliveries })).is_err() {
                // The caller has given up since: nobody has seen these messages.
                self.core.settle_lane(key.stream).push_event(SettleRequest::Release(lease), LEASE_BYTES);
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

fn with_lease(key: SubscriptionKey, now: Timestamp, batch: Batch) -> (LeaseKey, Timestamp, Batch) {
    let lease = LeaseKey { subscription: key, id: LeaseId(Uuid::new_v4()) };
    (lease, now.plus(batch.request.lease), batch)
}

fn planned(
    state: SubscriptionState,
    source: Taken,
    batches: Vec<(LeaseKey, Timestamp, Batch)>,
    left: Option<&Candidate>,
) -> Option<Planned> {
    let leases = batches.iter().map(|(lease, expires_at, batch)| Lease {
        key: state.key,
        id: lease.id,
        expires_at: *expires_at,
        messages: batch.messages.iter().map(|message| message.at).collect(),
    });
    let leases: Vec<Lease> = leases.collect();
    let mut claim = Claim {
        key: state.key,
        place: state.place,
        version: state.version,
        cursor: state.cursor,
        cursor_time: state.cursor_time,
        skipped: 0,
        retries: Vec::new(),
        leases,
    };
    let mut more_retries = false;
    let expired = match source {
        Taken::Log { end, time, skipped, expired } => {
            // What found no consumer stays where it is.
            (claim.cursor, claim.skipped) = left.map_or((end, skipped), |left| (left.at.offset, left.skipped_before));
            claim.cursor_time = left.map_or(time, |left| left.at.appended_at);
            (claim.cursor > state.cursor).then_some(())?;
            Expired::Unread(expired)
        }
        Taken::Retries { dropped, expired, more } => {
            claim.skipped = i64::try_from(dropped.len()).unwrap_or(i64::MAX);
            let taken = claim.leases.iter().flat_map(|lease| lease.messages.iter().map(|message| message.offset));
            claim.retries = taken.chain(dropped).collect();
            more_retries = more || left.is_some();
            Expired::Failed(expired)
        }
    };
    Some(Planned { claim, batches, more_retries, expired })
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
