//! The leases this replica gave out, by the time they end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::domain::clock::Timestamp;
use crate::domain::ids::LeaseId;
use crate::store::subscriptions::leases::LeaseKey;

#[derive(Debug, Default)]
struct Inner {
    by_end: BTreeMap<(Timestamp, LeaseId), LeaseKey>,
    ends: HashMap<LeaseId, Timestamp>,
}

/// Ends of leases; at most one entry per lease in flight.
#[derive(Debug, Default)]
pub(crate) struct LeaseTimers {
    inner: Mutex<Inner>,
    earlier: Notify,
}

impl LeaseTimers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a lease that was granted.
    pub(crate) fn add(&self, lease: LeaseKey, end: Timestamp) {
        let mut inner = self.lock();
        let first = inner.by_end.first_key_value().is_none_or(|((earliest, _), _)| end < *earliest);
        inner.by_end.insert((end, lease.id), lease);
        inner.ends.insert(lease.id, end);
        drop(inner);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Forgets a lease that was settled.
    pub(crate) fn remove(&self, id: LeaseId) {
        let mut inner = self.lock();
        if let Some(end) = inner.ends.remove(&id) {
            inner.by_end.remove(&(end, id));
        }
    }

    /// When the next lease ends.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.lock().by_end.first_key_value().map(|((end, _), _)| *end)
    }

    /// Takes leases that have ended, at most `limit`.
    pub(crate) fn take_ended(&self, now: Timestamp, limit: usize) -> Vec<LeaseKey> {
        let mut inner = self.lock();
        let mut ended = Vec::new();
        while ended.len() < limit
            && let Some(first) = inner.by_end.first_entry()
            && first.key().0 <= now
        {
            let lease = first.remove();
            inner.ends.remove(&lease.id);
            ended.push(lease);
        }
        ended
    }

    /// Moves the ends that lie after `limit` back, to there at most: the clock was put back.
    pub(crate) fn bring_back(&self, by: Duration, limit: Timestamp) {
        let mut inner = self.lock();
        let late = inner.by_end.split_off(&(limit.plus(Duration::from_micros(1)), LeaseId(Uuid::nil())));
        for ((end, id), lease) in late {
            let end = end.minus(by).min(limit);
            inner.by_end.insert((end, id), lease);
            inner.ends.insert(id, end);
        }
        drop(inner);
        self.earlier.notify_one();
    }

    /// Waits until a lease was added that ends before all others.
    pub(crate) async fn earlier_end(&self) {
        self.earlier.notified().await;
    }
}
