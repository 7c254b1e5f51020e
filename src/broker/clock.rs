//! Clocks: Postgres's own, carried on by the monotonic clock of this machine, and one that tests turn by hand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::domain::Result;
use crate::domain::clock::{Clock, Sleep, Timestamp};
use crate::store::{self, Store};

/// The clocks of two machines drift apart by less than one part in so many.
const DRIFT_DIVISOR: u32 = 2_000;
/// A first reading as good as this is taken at once; else the best of several.
const GOOD_ERROR: Duration = Duration::from_millis(5);
const FIRST_READINGS: usize = 5;

/// What Postgres's clock showed, and when: in the middle of the round trip, give or take half of it.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    shown: Timestamp,
    error: Duration,
}

impl Reading {
    fn between(asked: Instant, answered: Instant, shown: Timestamp) -> Self {
        let error = answered.saturating_duration_since(asked) / 2;
        Self { at: asked + error, shown, error }
    }

    /// What the clock shows at an instant, going by this reading.
    fn shows(self, now: Instant) -> Timestamp {
        self.shown.plus(now.saturating_duration_since(self.at))
    }

    /// How far that may be off.
    fn error_at(self, now: Instant) -> Duration {
        self.error + now.saturating_duration_since(self.at) / DRIFT_DIVISOR
    }

    /// What to go by from now on. A reading that took long says little: the answer may have been held up on its way, by seconds
    /// when a network or a process stands still, and a clock that is ahead ends leases early. Nor is the clock turned back: a
    /// reading behind it is left aside until it has caught up.
    fn followed_by(self, fresh: Self, now: Instant) -> Self {
        let is_worse = fresh.error > self.error_at(now);
        if is_worse || fresh.shows(now) < self.shows(now) { self } else { fresh }
    }
}

/// Postgres's clock as of the last good reading plus the time since. Steps of this machine's wall clock do not matter, and
/// replicas agree to within a quick round trip.
#[derive(Debug)]
pub struct DatabaseClock(Arc<Mutex<Reading>>);

impl DatabaseClock {
    /// Reads Postgres's clock, several times if need be.
    pub async fn start(store: &Store) -> Result<Self> {
        let mut best = read(store).await?;
        for _ in 1..FIRST_READINGS {
            if best.error <= GOOD_ERROR {
                break;
            }
            let next = read(store).await?;
            if next.error < best.error {
                best = next;
            }
        }
        Ok(Self(Arc::new(Mutex::new(best))))
    }

    /// Reads it again.
    pub async fn refresh(&self, store: &Store) -> Result<()> {
        let fresh = read(store).await?;
        let now = Instant::now();
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = reading.shows(now).since(fresh.shows(now));
        if ahead > Duration::from_secs(1) + fresh.error {
            tracing::warn!(ahead_ms = ahead.as_millis(), "clock of the database has gone back");
        }
        *reading = reading.followed_by(fresh, now);
        Ok(())
    }
}

async fn read(store: &Store) -> Result<Reading> {
    let asked = Instant::now();
    let shown = store::clock::now(&store.pool).await?;
    Ok(Reading::between(asked, Instant::now(), shown))
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).shows(Instant::now())
    }

    fn sleep_until(&self, instant: Timestamp) -> Sleep {
        let reading = Arc::clone(&self.0);
        Box::pin(async move {
            loop {
                let now = reading.lock().unwrap_or_else(PoisonError::into_inner).shows(Instant::now());
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

    /// Turns the hands back, as a step of Postgres's clock does.
    pub fn put_back(&self, by: Duration) {
        self.0.send_modify(|now| *now = now.minus(by));
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A clock that shows the time since `start`, read for so long around an instant; `late` is how much of it the answer took.
    fn reading(start: Instant, asked: Duration, took: Duration, late: Duration) -> Reading {
        let shown = Timestamp(0).plus(asked + took - late);
        Reading::between(start + asked, start + asked + took, shown)
    }

    fn error(reading: Reading, start: Instant, now: Duration) -> Duration {
        let (shown, right) = (reading.shows(start + now), Timestamp(0).plus(now));
        shown.since(right).max(right.since(shown))
    }

    #[test]
    fn a_reading_held_up_on_either_way_changes_nothing() {
        let start = Instant::now();
        let good = reading(start, Duration::ZERO, 2 * MS, MS);
        let now = 20_000 * MS;
        for late in [Duration::ZERO, 8_000 * MS] {
            let slow = reading(start, 12_000 * MS, 8_000 * MS, late);
            assert_eq!(error(slow, start, now), 4_000 * MS);
            assert!(error(good.followed_by(slow, start + now), start, now) <= MS);
        }
    }

    #[test]
    fn a_good_reading_is_followed_forward_and_never_back() {
        let start = Instant::now();
        let now = start + 10_000 * MS;
        let before = reading(start, Duration::ZERO, 2 * MS, MS);
        let fresh = |shift: i64| {
            let fresh = reading(start, 9_998 * MS, 2 * MS, MS);
            Reading { shown: Timestamp(fresh.shown.0 + shift), ..fresh }
        };
        let ahead = before.followed_by(fresh(700_000), now);
        assert_eq!(ahead.shows(now).0 - before.shows(now).0, 700_000);
        let behind = before.followed_by(fresh(-700_000), now);
        assert_eq!(behind.shows(now), before.shows(now));
    }

    #[test]
    fn where_all_readings_are_slow_they_are_followed_once_drift_may_be_worse() {
        let start = Instant::now();
        let before = reading(start, Duration::ZERO, 2 * MS, MS);
        let slow = |asked: Duration| reading(start, asked, 200 * MS, Duration::ZERO);
        let early = before.followed_by(slow(60_000 * MS), start + 60_200 * MS);
        let late = before.followed_by(slow(200_000 * MS), start + 200_200 * MS);
        assert_eq!((early.error, late.error), (MS, 100 * MS));
    }
}
