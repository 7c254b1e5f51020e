//! Carries out the claims of a round: all in one statement, but for subscriptions whose rows are locked, or whose claims are refused.

use super::ClaimLane;
use super::planned::Planned;
use super::subscription::Subscription;
use crate::broker::batching::isolation::{self, Failed, Parts};
use crate::domain::ids::SubscriptionKey;
use crate::domain::{Error, Result};
use crate::store::session::connection::{Failure, FlushError, try_flush};
use crate::store::subscriptions::claims::{self, Claim};
use crate::store::subscriptions::locks;

/// Claims on their way.
struct Claiming<'a> {
    lane: &'a mut ClaimLane,
    lost: Option<Error>,
}

impl ClaimLane {
    /// Carries out the claims and delivers what was claimed; subscriptions that moved meanwhile are read and tried again.
    ///
    /// # Errors
    /// `Unavailable` when the connection is lost. Consumers are back in line, and leases that may have been granted end.
    pub(super) async fn carry_out(&mut self, mut planned: Vec<Planned>) -> Result<()> {
        // Finding messages may have taken its time; leases begin now, and last by the clock of any replica.
        let now = self.core.clock.latest();
        planned.iter_mut().for_each(|planned| planned.lease_from(now));
        let (suspects, together): (Vec<_>, Vec<_>) =
            planned.into_iter().partition(|planned| self.suspects.has(planned.claim.key));
        let limit = self.core.settings.statement_timeout;
        let mut claiming = Claiming { lane: self, lost: None };
        let free = claiming.leave_locked(suspects).await;
        for part in [together].into_iter().chain(free.into_iter().map(|planned| vec![planned])) {
            if !part.is_empty()
                && let Err(failed) = claiming.attempt(part).await
            {
                isolation::isolate(&mut claiming, failed, limit).await;
            }
        }
        claiming.lost.map_or(Ok(()), Err)
    }

    /// Leaves a subscription alone for a while.
    pub(super) fn rest(&mut self, key: SubscriptionKey) {
        self.suspects.failed(key, std::time::Instant::now());
        self.ready.remove(&key);
    }

    /// Has leases ended that may have been given out, by a claim whose outcome is not known: nobody holds them.
    fn release(&self, planned: &Planned) {
        for (lease, _, _) in &planned.batches {
            self.core.release(*lease);
        }
    }
}

impl Claiming<'_> {
    /// Sets suspects apart whose rows are still locked; returns the others.
    async fn leave_locked(&mut self, suspects: Vec<Planned>) -> Vec<Planned> {
        if suspects.is_empty() {
            return suspects;
        }
        let (locked, free) = self.split_locked(suspects).await;
        locked.into_iter().for_each(|planned| self.set_apart(planned));
        free
    }

    /// None of these was carried out, for their subscriptions have moved.
    fn missed(&mut self, part: Vec<Planned>) {
        for planned in part {
            self.lane.subscriptions.get_mut(&planned.claim.key).into_iter().for_each(Subscription::lost);
            self.lane.give_back(planned);
        }
    }
}

impl Parts for Claiming<'_> {
    type Item = Planned;

    async fn attempt(&mut self, part: Vec<Planned>) -> Result<(), Failed<Planned>> {
        if let Some(error) = &self.lost {
            self.lost(part, error.clone());
            return Ok(());
        }
        match self.lane.same_session().await {
            Ok(true) => {}
            Ok(false) => {
                self.missed(part);
                return Ok(());
            }
            Err(error) => return Err((part, FlushError { failure: Failure::Lost, error })),
        }
        let claims: Vec<Claim> = part.iter().map(|planned| planned.claim.clone()).collect();
        let claimed = try_flush!(self.lane.connection, conn => claims::claim(conn, &claims));
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => return Err((part, error)),
        };
        let (given, missed): (Vec<_>, Vec<_>) =
            part.into_iter().partition(|planned| claimed.contains_key(&planned.claim.key));
        for planned in given {
            if let Some(claimed) = claimed.get(&planned.claim.key) {
                self.lane.deliver(planned, *claimed);
            }
        }
        self.missed(missed);
        Ok(())
    }

    async fn split_locked(&mut self, part: Vec<Planned>) -> (Vec<Planned>, Vec<Planned>) {
        let keys: Vec<SubscriptionKey> = part.iter().map(|planned| planned.claim.key).collect();
        let locked = try_flush!(self.lane.connection, conn => locks::subscriptions(conn, &keys));
        let locked = locked.unwrap_or_default();
        part.into_iter().partition(|planned| locked.contains(&planned.claim.key))
    }

    /// Its consumers are told; others are not served before it has rested.
    fn refused(&mut self, planned: Planned, error: Error) {
        let key = planned.claim.key;
        self.lane.give_back(planned);
        self.lane.subscriptions.get_mut(&key).into_iter().for_each(|subscription| subscription.fail_all(&error));
        self.lane.rest(key);
    }

    fn set_apart(&mut self, planned: Planned) {
        let key = planned.claim.key;
        self.lane.give_back(planned);
        self.lane.rest(key);
    }

    fn lost(&mut self, part: Vec<Planned>, error: Error) {
        for planned in part {
            self.lane.release(&planned);
            self.lane.give_back(planned);
        }
        self.lost = Some(error);
    }
}
