//! What the clock shows, as a pure function of its readings and of the time since the start by this machine's monotonic clock.

use std::time::Duration;

use crate::domain::clock::Timestamp;
use crate::domain::limits::RETENTION_DEFAULT;

/// A monotonic clock that runs up to 5 % fast or slow is off by at most one part in 19 of the time that it shows: 1 - 1/1.05 and
/// 1/0.95 - 1 are no more.
const DRIFT_DIVISOR: u32 = 19;
/// Postgres's clock has microseconds, and so has each sum.
const RESOLUTION: Duration = Duration::from_micros(3);
/// How often the clock is read while its readings are good.
pub(super) const INTERVAL: Duration = Duration::from_secs(3);
/// How soon it is read again after a reading that failed or said little.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The known error of a clock whose readings take 200 ms at most and which does not stand still: half of that, and what a clock 5 %
/// off drifts until the next one has come.
#[cfg(test)]
pub(crate) const ERROR_MAX: Duration = Duration::from_millis(300);
/// A reading better than this is good.
const GOOD_READING: Duration = Duration::from_millis(100);
/// How far ahead the clock may be when it stands still to let Postgres's catch up. Less than the shortest lease, so that a lease
/// granted by a replica that has started since has not ended here before it began. Beyond it, the clock goes back.
pub(crate) const STAND_STILL_MAX: Duration = Duration::from_secs(5);
/// A step ahead of more than this does not let messages expire at once.
const EXPIRY_STEP_MIN: Duration = Duration::from_secs(60);

/// What Postgres's clock showed, and when: in the middle of the round trip, give or take half of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    at: Duration,
    shown: Timestamp,
    half_trip: Duration,
}

impl Reading {
    /// Asked and answered at these times since the start.
    pub(super) fn between(asked: Duration, answered: Duration, shown: Timestamp) -> Self {
        let half_trip = answered.saturating_sub(asked) / 2;
        Self { at: asked + half_trip, shown, half_trip }
    }

    /// How far off it was when it was made.
    pub(super) fn error(self) -> Duration {
        self.half_trip
    }

    /// What Postgres's clock shows later, going by this reading.
    fn shows(self, now: Duration) -> Timestamp {
        self.shown.plus(now.saturating_sub(self.at))
    }

    /// How far off that may be: the drift counts from when the reading was asked for.
    fn error_at(self, now: Duration) -> Duration {
        let age = now.saturating_sub(self.at) + self.half_trip;
        self.half_trip + age / DRIFT_DIVISOR + RESOLUTION
    }
}

/// What a reading changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Followed {
    /// How far ahead the clock was, in microseconds, going by the reading that it follows now; `None` when it is no better than the
    /// one before, which is kept.
    pub offset: Option<i64>,
    /// How far off the reading is.
    pub error: Duration,
    /// A step of Postgres's clock: more than drift and round trips explain.
    pub step: Option<Step>,
}

/// A step of Postgres's clock, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Followed at once.
    Ahead(Duration),
    /// The clock stands still until Postgres's has caught up.
    Back(Duration),
    /// Too far for that: the clock has gone back by this.
    PutBack(Duration),
}

/// When to read the clock again.
pub(crate) fn pause_after(followed: Option<Followed>) -> Duration {
    match followed {
        Some(Followed { offset: Some(_), error, .. }) if error <= GOOD_READING => INTERVAL,
        _ => RETRY_INTERVAL,
    }
}

/// How far behind the clock messages expire, and until when.
#[derive(Debug, Clone, Copy, Default)]
struct Withheld {
    by: Duration,
    until: Duration,
}

/// The state of the clock.
#[derive(Debug)]
pub(super) struct Hands {
    reading: Reading,
    /// What was shown last: nothing earlier is shown afterwards.
    floor: Timestamp,
    withheld: Withheld,
}

impl Hands {
    /// Goes by a first reading.
    pub(super) fn new(reading: Reading) -> Self {
        Self { reading, floor: reading.shown, withheld: Withheld::default() }
    }

    /// The present.
    pub(super) fn show(&mut self, now: Duration) -> Timestamp {
        self.floor = self.floor.max(self.reading.shows(now));
        self.floor
    }

    /// How far it may be off, standing still included.
    pub(super) fn error(&self, now: Duration) -> Duration {
        self.reading.error_at(now) + self.floor.since(self.reading.shows(now))
    }

    /// Postgres's clock is not further than this.
    pub(super) fn latest(&mut self, now: Duration) -> Timestamp {
        self.show(now).max(self.reading.shows(now).plus(self.reading.error_at(now)))
    }

    /// The present as far as it lets messages expire.
    pub(super) fn expiry_now(&mut self, now: Duration) -> Timestamp {
        let behind = if now < self.withheld.until { self.withheld.by } else { Duration::ZERO };
        self.show(now).minus(behind)
    }

    /// How long it takes until an instant is shown.
    pub(super) fn left_until(&mut self, instant: Timestamp, now: Duration) -> Duration {
        match self.show(now) >= instant {
            true => Duration::ZERO,
            false => instant.since(self.reading.shows(now)),
        }
    }

    /// Goes by a fresh reading if that is better than the one in use as it is by now, or proves it wrong. A reading that took long
    /// says little: the request or the answer may have been held up on its way, by seconds when a network or a process stands
    /// still.
    pub(super) fn follow(&mut self, fresh: Reading, now: Duration) -> Followed {
        let (shown, before, after) = (self.show(now), self.reading.shows(now), fresh.shows(now));
        let (error_before, error) = (self.reading.error_at(now), fresh.error_at(now));
        let apart = before.since(after).max(after.since(before));
        let is_step = apart > error_before + error;
        if error > error_before && !is_step {
            return Followed { offset: None, error: fresh.half_trip, step: None };
        }
        self.reading = fresh;
        let step = self
            .put_back(after, error)
            .or_else(|| is_step.then(|| if after > before { Step::Ahead(apart) } else { Step::Back(apart) }));
        self.withhold(step, now);
        Followed { offset: Some(shown.0.saturating_sub(after.0)), error: fresh.half_trip, step }
    }

    fn put_back(&mut self, to: Timestamp, error: Duration) -> Option<Step> {
        let ahead = self.floor.since(to);
        (ahead > STAND_STILL_MAX + error).then(|| {
            self.floor = to;
            Step::PutBack(ahead)
        })
    }

    /// After a step ahead nothing has become older. What was sent before it, and not what is sent afterwards, would expire early:
    /// for as long as that may be kept, messages expire by the clock as it would be without the step.
    fn withhold(&mut self, step: Option<Step>, now: Duration) {
        let by = if now < self.withheld.until { self.withheld.by } else { Duration::ZERO };
        match step {
            Some(Step::Ahead(step)) if step > EXPIRY_STEP_MIN => {
                self.withheld = Withheld { by: by + step, until: now + RETENTION_DEFAULT };
            }
            Some(Step::PutBack(step)) => self.withheld.by = by.saturating_sub(step),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// A clock that shows the time since the start, read for so long; `late` is how much of it the answer took.
    fn reading(asked: Duration, took: Duration, late: Duration) -> Reading {
        Reading::between(asked, asked + took, Timestamp(0).plus(asked + took - late))
    }

    fn stepped(reading: Reading, by: i64) -> Reading {
        Reading { shown: Timestamp(reading.shown.0 + by), ..reading }
    }

    #[test]
    fn a_reading_held_up_on_either_way_changes_nothing() {
        for late in [Duration::ZERO, 8 * SECOND] {
            let mut hands = Hands::new(reading(Duration::ZERO, 2 * MS, MS));
            let followed = hands.follow(reading(12 * SECOND, 8 * SECOND, late), 20 * SECOND);
            assert_eq!((followed.offset, followed.step), (None, None));
            assert_eq!(hands.show(20 * SECOND), Timestamp(20_000_000));
        }
    }

    #[test]
    fn a_good_reading_is_followed_both_ways_and_nothing_goes_back() {
        for off in [100_000, -100_000] {
            let mut hands = Hands::new(stepped(reading(Duration::ZERO, 2 * MS, MS), off));
            assert_eq!(hands.show(10 * SECOND), Timestamp(10_000_000 + off));
            let followed = hands.follow(reading(10 * SECOND, 2 * MS, MS), 10 * SECOND + 2 * MS);
            assert_eq!((followed.offset, followed.step), (Some(off), None));
            let shown = |hands: &mut Hands, ms: u32| hands.show(10 * SECOND + ms * MS);
            // One that was ahead stands still until the truth has caught up.
            assert_eq!(shown(&mut hands, 50), Timestamp(if off > 0 { 10_102_000 } else { 10_050_000 }));
            assert_eq!(shown(&mut hands, 200), Timestamp(10_200_000));
        }
    }

    #[test]
    fn the_known_error_grows_with_age_and_counts_what_it_stands_ahead() {
        let mut hands = Hands::new(reading(Duration::ZERO, 2 * MS, MS));
        assert!(hands.error(2 * MS) < 2 * MS);
        let old = hands.error(19 * SECOND);
        assert!(old > SECOND && old < SECOND + 2 * MS, "{old:?}");
        hands.show(19 * SECOND);
        hands.follow(stepped(reading(19 * SECOND, 2 * MS, MS), -400_000), 19 * SECOND + 2 * MS);
        let ahead = hands.error(19 * SECOND + 2 * MS);
        assert!(ahead > 400 * MS && ahead < 405 * MS, "{ahead:?}");
        assert_eq!(hands.left_until(Timestamp(19_500_000), 19 * SECOND + 2 * MS), 898 * MS);
    }

    #[test]
    fn where_all_readings_are_slow_they_are_followed_once_drift_may_be_worse() {
        let followed_after = |age: Duration| {
            let mut hands = Hands::new(reading(Duration::ZERO, 2 * MS, MS));
            hands.follow(reading(age, 200 * MS, 100 * MS), age + 200 * MS).offset.is_some()
        };
        assert!(!followed_after(SECOND));
        assert!(followed_after(4 * SECOND));
    }

    #[test]
    fn steps_ahead_are_followed_at_once_and_long_steps_back_too() {
        for (by, expected) in [
            (1_000_000, Step::Ahead(SECOND)),
            (3_600_000_000, Step::Ahead(3600 * SECOND)),
            (-1_000_000, Step::Back(SECOND)),
            (-3_600_000_000, Step::PutBack(3600 * SECOND)),
        ] {
            let mut hands = Hands::new(reading(Duration::ZERO, 2 * MS, MS));
            assert_eq!(hands.show(3 * SECOND), Timestamp(3_000_000));
            let at = 3 * SECOND + 2 * MS;
            let followed = hands.follow(stepped(reading(3 * SECOND, 2 * MS, MS), by), at);
            assert_eq!(followed.step, Some(expected));
            let stands = by == -1_000_000;
            assert_eq!(hands.show(at), Timestamp(3_002_000 + if stands { 0 } else { by }));
        }
    }

    #[test]
    fn a_step_ahead_does_not_let_messages_expire_until_they_are_as_old() {
        let day = 86_400 * SECOND;
        let three_days = 3 * 86_400_000_000;
        let mut hands = Hands::new(reading(Duration::ZERO, 2 * MS, MS));
        hands.follow(stepped(reading(3 * SECOND, 2 * MS, MS), three_days), 4 * SECOND);
        assert_eq!(hands.expiry_now(4 * SECOND), Timestamp(4_000_000));
        assert_eq!(hands.expiry_now(2 * day).since(Timestamp(0)), 2 * day);
        assert_eq!(hands.expiry_now(4 * day).since(Timestamp(0)), 7 * day, "by now they are that old");
        let mut mended = Hands::new(reading(Duration::ZERO, 2 * MS, MS));
        mended.follow(stepped(reading(3 * SECOND, 2 * MS, MS), three_days), 4 * SECOND);
        mended.follow(reading(day, 2 * MS, MS), day + 2 * MS);
        assert_eq!(mended.expiry_now(day + SECOND).since(Timestamp(0)), day + SECOND);
    }

    #[test]
    fn a_clock_whose_readings_are_bad_is_read_sooner() {
        let followed = |offset, error| Some(Followed { offset, error, step: None });
        assert_eq!(pause_after(followed(Some(1), MS)), INTERVAL);
        for bad in [None, followed(None, MS), followed(Some(1), SECOND)] {
            assert_eq!(pause_after(bad), RETRY_INTERVAL);
        }
    }
}
