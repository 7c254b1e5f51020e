//! Clocks: Postgres's own, carried on by the monotonic clock of this machine, and one that tests turn by hand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::domain::Result;
use crate::domain::clock::{Clock, Sleep, Timestamp};
use crate::store::{self, Store};

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    shown: Timestamp,
}

/// Postgres's clock as of the last reading plus the time since. Steps of this machine's wall clock do not matter, and
/// replicas agree to within a round trip.
#[derive(Debug)]
pub struct DatabaseClock(Arc<Mutex<Reading>>);

impl DatabaseClock {
    /// Reads Postgres's clock once.
    pub async fn start(store: &Store) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(read(store).await?))))
    }

    /// Reads it again. The clock is never turned back: a reading behind it is left aside until it has caught up.
    pub async fn refresh(&self, store: &Store) -> Result<()> {
        let fresh = read(store).await?;
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = shown(*reading).since(shown(fresh));
        if ahead.is_zero() {
            *reading = fresh;
        } else if ahead > Duration::from_secs(1) {
            tracing::warn!(ahead_ms = ahead.as_millis(), "clock of the database has gone back");
        }
        Ok(())
    }
}

async fn read(store: &Store) -> Result<Reading> {
    let asked = Instant::now();
    let shown = store::clock::now(&store.pool).await?;
    Ok(Reading { at: asked + asked.elapsed() / 2, shown })
}

fn shown(reading: Reading) -> Timestamp {
    reading.shown.plus(reading.at.elapsed())
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        shown(*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sleep_until(&self, instant: Timestamp) -> Sleep {
        let reading = Arc::clone(&self.0);
        Box::pin(async move {
            loop {
                let now = shown(*reading.lock().unwrap_or_else(PoisonError::into_inner));
                let left = instant.since(now);
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left).await;
            }
        })
    }
}

/// A clock that stands still until it is advanced: for tests.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Timestamp>>);

impl ManualClock {
    /// Shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(watch::Sender::new(start)))
    }

    /// Turns the hands forward and wakes whoever waits for an instant that is now past.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = now.plus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn sleep_until(&self, instant: Timestamp) -> Sleep {
        let mut hands = self.0.subscribe();
        Box::pin(async move {
            // The sender lives as long as the clock; without it nobody waits for an answer any more.
            let _ = hands.wait_for(|now| *now >= instant).await;
        })
    }
}
