//! Time as an argument: decisions read a [`Clock`], tests turn its hands.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// An instant, microseconds since 1970 UTC (the resolution of Postgres).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Microseconds in a second.
    pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;

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

/// As RFC 3339 writes it, in whole seconds: `2026-11-27T19:57:13Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(Self::MICROS_PER_SECOND);
        let (year, month, day) = civil(seconds.div_euclid(SECONDS_PER_DAY));
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

const SECONDS_PER_DAY: i64 = 86_400;
/// Days in 400 years, after which the Gregorian calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from the first of March of the year 0 to 1970.
const DAYS_BEFORE_1970: i64 = 719_468;

/// Year, month and day of a day counted from 1970. Years begin in March here, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_BEFORE_1970;
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (days.div_euclid(DAYS_PER_ERA) * 400 + year_of_era + year, month, day)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_rfc_3339_has_them() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(seconds * Timestamp::MICROS_PER_SECOND).to_string(), shown);
        }
    }
}
