//! Reads what a lane has to know of subscriptions: all rows in one statement, and without those that cannot be read.

use super::ClaimLane;
use super::round::STATES_MAX;
use super::subscription::Subscription;
use crate::broker::batching::isolation::{self, Failed, Parts};
use crate::domain::ids::SubscriptionKey;
use crate::domain::{Error, ErrorKind, Result};
use crate::store;
use crate::store::session::connection::{Failure, FlushError, flush, try_flush};
use crate::store::subscriptions::SubscriptionState;

/// A subscription to read, and whether it is exclusive.
type Wanted = (SubscriptionKey, bool);

/// Rows on their way, read in parts.
struct Reading<'a> {
    lane: &'a mut ClaimLane,
    lost: Option<Error>,
}

impl ClaimLane {
    /// Reads the rows of subscriptions that are not known, and along with them those of subscriptions whose turn comes next: a refresh of
    /// many is few statements. Subscriptions that are gone are answered and forgotten, and one whose row cannot be read fails no other.
    pub(super) async fn read_states(&mut self, keys: &[SubscriptionKey]) -> Result<()> {
        let unknown = |key: &SubscriptionKey| {
            let subscription = self.subscriptions.get(key).filter(|subscription| subscription.row().is_none())?;
            Some((*key, subscription.exclusive))
        };
        let mut wanted: Vec<Wanted> = keys.iter().filter_map(unknown).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.extend(self.turns().take(STATES_MAX - keys.len()).filter_map(|key| unknown(&key)));
        let read = try_flush!(self.connection, conn => store::subscriptions::read_states(conn, &wanted));
        let failed = match read {
            Ok(states) => {
                self.have_read(&wanted, states);
                return Ok(());
            }
            Err(FlushError { failure: Failure::Lost, error }) => return Err(error),
            // A lock of the whole table: it is waited for.
            Err(FlushError { failure: Failure::Locked, .. }) => {
                let states = flush!(self.connection, conn => store::subscriptions::read_states(conn, &wanted))?;
                self.have_read(&wanted, states);
                return Ok(());
            }
            Err(refused) => refused,
        };
        let limit = self.core.settings.statement_timeout;
        let mut reading = Reading { lane: self, lost: None };
        isolation::isolate(&mut reading, (wanted, failed), limit).await;
        reading.lost.map_or(Ok(()), Err)
    }

    fn have_read(&mut self, wanted: &[Wanted], states: Vec<SubscriptionState>) {
        for state in states {
            if let Some(subscription) = self.subscriptions.get_mut(&state.key) {
                subscription.read(state);
            }
        }
        for (key, _) in wanted {
            if self.subscriptions.get(key).is_some_and(|subscription| subscription.row().is_none())
                && let Some(mut subscription) = self.forget(*key)
            {
                subscription.fail_all(&Error::new(ErrorKind::GroupNotFound, "group_id: the group was deleted"));
            }
        }
    }
}

impl Parts for Reading<'_> {
    type Item = Wanted;

    async fn attempt(&mut self, part: Vec<Wanted>) -> Result<(), Failed<Wanted>> {
        let read = try_flush!(self.lane.connection, conn => store::subscriptions::read_states(conn, &part));
        match read {
            Ok(states) => {
                self.lane.have_read(&part, states);
                Ok(())
            }
            Err(error) => Err((part, error)),
        }
    }

    /// No row is locked for who only reads it.
    async fn split_locked(&mut self, part: Vec<Wanted>) -> (Vec<Wanted>, Vec<Wanted>) {
        (Vec::new(), part)
    }

    fn refused(&mut self, (key, _): Wanted, error: Error) {
        self.lane
            .subscriptions
            .get_mut(&key)
            .into_iter()
            .for_each(|subscription: &mut Subscription| subscription.fail_all(&error));
        self.lane.rest(key);
    }

    fn set_apart(&mut self, (key, _): Wanted) {
        self.lane.rest(key);
    }

    fn lost(&mut self, _: Vec<Wanted>, error: Error) {
        self.lost = Some(error);
    }
}
