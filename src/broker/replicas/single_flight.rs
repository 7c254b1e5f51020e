//! Equal look-ups that come together share one statement.
//!
//! A caller may be told what a look-up has found that began after the call did, for nobody can have seen anything newer then. So
//! whoever comes while one is under way waits for it, and at most one more is made for all who wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::Result;

/// Look-ups under way, by what is looked up.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V> {
    flights: Mutex<HashMap<K, Arc<Flight<V>>>>,
}

#[derive(Debug)]
struct Flight<V> {
    /// Look-ups that have begun.
    begun: AtomicU64,
    /// The last one that has ended, with its number; held by the call that makes one.
    last: tokio::sync::Mutex<Option<(u64, Result<V>)>>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { flights: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// What `known` knows by the time that no other call looks, else what a look-up finds that has begun since this was called. A call
    /// that is given up while it looks leaves that to the next one.
    pub(crate) async fn find(
        &self,
        key: K,
        known: impl Fn() -> Option<V>,
        look_up: impl AsyncFnOnce() -> Result<V>,
    ) -> Result<V> {
        let waiting = self.join(key);
        let flight = &*waiting.flight;
        let before = flight.begun.load(Ordering::Acquire);
        let mut last = flight.last.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        if let Some((number, found)) = &*last
            && *number > before
        {
            return found.clone();
        }
        let number = flight.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let found = look_up().await;
        *last = Some((number, found.clone()));
        found
    }

    fn join(&self, key: K) -> Waiting<'_, K, V> {
        let mut flights = self.lock();
        let flight = flights
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Flight { begun: AtomicU64::new(0), last: tokio::sync::Mutex::new(None) }));
        Waiting { flight: Arc::clone(flight), key, of: self }
    }
}

impl<K, V> SingleFlight<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<Flight<V>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that looks or waits; the last one to go takes the flight with it.
struct Waiting<'a, K: Eq + Hash, V> {
    flight: Arc<Flight<V>>,
    key: K,
    of: &'a SingleFlight<K, V>,
}

impl<K: Eq + Hash, V> Drop for Waiting<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.of.lock();
        // The map and this call are all that refer to it.
        if flights.get(&self.key).is_some_and(|flight| Arc::strong_count(flight) == 2) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;
    use crate::domain::Error;

    #[derive(Default)]
    struct Counted {
        flights: SingleFlight<&'static str, u64>,
        looks: AtomicU64,
    }

    impl Counted {
        async fn look(&self, key: &'static str) -> Result<u64> {
            let look_up = async || {
                let number = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
                sleep(Duration::from_secs(1)).await;
                Ok(number)
            };
            self.flights.find(key, || None, look_up).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_come_together_share_what_begins_after_them() {
        let counted = Arc::new(Counted::default());
        let mut calls = JoinSet::new();
        for number in 0..1000 {
            let counted = Arc::clone(&counted);
            calls.spawn(async move {
                sleep(Duration::from_millis(number / 2)).await;
                counted.look("a").await.unwrap()
            });
        }
        let found = calls.join_all().await;
        assert_eq!(counted.looks.load(Ordering::SeqCst), 2);
        // Whoever came after the first had begun was not told what it found.
        assert!((1..=10).contains(&found.iter().filter(|number| **number == 1).count()), "{found:?}");
        assert_eq!(counted.look("a").await.unwrap(), 3);
        assert_eq!(tokio::join!(counted.look("a"), counted.look("b")).1.unwrap(), 5);
        assert!(counted.flights.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_leaves_the_look_to_the_next() {
        let flights = SingleFlight::<u8, u8>::default();
        let given_up = tokio::time::timeout(Duration::from_secs(1), flights.find(1, || None, async || pending().await));
        let (given_up, found) = tokio::join!(given_up, flights.find(1, || None, async || Ok(7)));
        assert!(given_up.is_err());
        assert_eq!(found, Ok(7));
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn what_is_known_by_then_is_not_looked_up_and_errors_are_shared() {
        let flights = SingleFlight::<u8, u8>::default();
        assert_eq!(flights.find(1, || Some(3), async || pending().await).await, Ok(3));
        let failed = flights.find(1, || None, async || Err(Error::unavailable("gone"))).await;
        assert_eq!(failed.unwrap_err().message(), "gone");
    }
}
