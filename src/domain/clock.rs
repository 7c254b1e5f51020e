//! Time as an argument: decisions read a [`Clock`], tests turn its hands.

use std::pin::Pin;
use std::time::Duration;

/// An instant, microseconds since 1970 UTC (the resolution of Postgres).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Microseconds in a second.
    pub const MICROS_PER_SECOND: i64 = 1_000_000;

    /// This instant plus a duration.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// This instant minus a duration.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// The time from `earlier` to this instant; zero when it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Milliseconds since 1970, as the REST API shows times.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A wait that the clock ends.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the service gets its time from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present. Never earlier than what was said before, unless Postgres's clock was put back by seconds.
    fn now(&self) -> Timestamp;

    /// How far [`Clock::now`] may be off.
    fn error(&self) -> Duration {
        Duration::ZERO
    }

    /// No replica's clock is past this, but by its own error: what has to last until a time by every clock ends that long after it.
    fn latest(&self) -> Timestamp {
        self.now()
    }

    /// The present for deciding what has expired: a step ahead of Postgres's clock does not make messages older.
    fn expiry_now(&self) -> Timestamp {
        self.now()
    }

    /// Ends when [`Clock::now`] has reached the instant.
    fn sleep_until(&self, instant: Timestamp) -> Sleep;
}
