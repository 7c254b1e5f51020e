//! Durations and other options of a request, each with its documented range and code.

use std::ops::RangeInclusive;
use std::time::Duration;

use prost_types::Duration as PbDuration;

use crate::domain::limits::{
    CONSUME_MESSAGES, CONSUME_MESSAGES_DEFAULT, LEASE_DEFAULT, LEASE_SECONDS, WAIT_DEFAULT, WAIT_SECONDS,
};
use crate::domain::{Error, ErrorKind, Result};

const NANOS: RangeInclusive<i32> = 0..=999_999_999;

/// 1-10, default 10.
pub(super) fn max_messages(given: Option<i32>) -> Result<usize> {
    let count = given.unwrap_or(CONSUME_MESSAGES_DEFAULT);
    if !CONSUME_MESSAGES.contains(&count) {
        let allowed = "an integer from 1 to 10";
        return Err(Error::field(ErrorKind::MaxMessagesOutOfRange, "max_messages", count, allowed));
    }
    // A count in range is positive.
    Ok(count.unsigned_abs() as usize)
}

/// 1-60 s, default 3 s.
pub(super) fn wait(given: Option<PbDuration>) -> Result<Duration> {
    let allowed = "a whole number of seconds from 1 to 60";
    let wrong = |shown| Error::field(ErrorKind::WaitOutOfRange, "wait", shown, allowed);
    given.map_or(Ok(WAIT_DEFAULT), |given| whole_seconds(&given, &WAIT_SECONDS).map_err(wrong))
}

/// 15-300 s, default 30 s.
pub(super) fn lease(given: Option<PbDuration>) -> Result<Duration> {
    let allowed = "a whole number of seconds from 15 to 300";
    let wrong = |shown| Error::field(ErrorKind::LeaseOutOfRange, "lease", shown, allowed);
    given.map_or(Ok(LEASE_DEFAULT), |given| whole_seconds(&given, &LEASE_SECONDS).map_err(wrong))
}

/// 0 or more; the upper end is checked with the batch.
pub(super) fn delay(field: &str, given: Option<PbDuration>) -> Result<Duration> {
    let Some(given) = given else {
        return Ok(Duration::ZERO);
    };
    let parts = u64::try_from(given.seconds).ok().zip(u32::try_from(given.nanos).ok());
    let (seconds, nanos) = parts.filter(|_| NANOS.contains(&given.nanos)).ok_or_else(|| {
        Error::field(ErrorKind::RequestFormat, field, shown(&given), "a duration from 0 to 604800 s (7 days)")
    })?;
    Ok(Duration::new(seconds, nanos))
}

fn whole_seconds(given: &PbDuration, range: &RangeInclusive<i64>) -> Result<Duration, String> {
    let fits = given.nanos == 0 && range.contains(&given.seconds);
    fits.then(|| Duration::from_secs(given.seconds.unsigned_abs())).ok_or_else(|| shown(given))
}

/// Seconds as a decimal; a duration whose parts make no sense together is shown as such.
fn shown(given: &PbDuration) -> String {
    let PbDuration { seconds, nanos } = *given;
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0) || nanos.unsigned_abs() > 999_999_999;
    match (mixed, nanos) {
        (true, _) => format!("{seconds} s and {nanos} ns"),
        (false, 0) => seconds.to_string(),
        (false, _) => {
            let fraction = format!("{:09}", nanos.unsigned_abs());
            format!("{sign}{}.{}", seconds.unsigned_abs(), fraction.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(seconds: i64, nanos: i32) -> Option<PbDuration> {
        Some(PbDuration { seconds, nanos })
    }

    #[test]
    fn defaults_apply_to_what_is_absent() {
        assert_eq!(max_messages(None), Ok(10));
        assert_eq!(wait(None), Ok(Duration::from_secs(3)));
        assert_eq!(lease(None), Ok(Duration::from_secs(30)));
        assert_eq!(delay("delay", None), Ok(Duration::ZERO));
    }

    #[test]
    fn ends_of_the_ranges_are_allowed() {
        assert_eq!((max_messages(Some(1)), max_messages(Some(10))), (Ok(1), Ok(10)));
        assert_eq!(wait(duration(1, 0)), Ok(Duration::from_secs(1)));
        assert_eq!(wait(duration(60, 0)), Ok(Duration::from_secs(60)));
        assert_eq!(lease(duration(15, 0)), Ok(Duration::from_secs(15)));
        assert_eq!(lease(duration(300, 0)), Ok(Duration::from_secs(300)));
        assert_eq!(delay("delay", duration(0, 1)), Ok(Duration::from_nanos(1)));
    }

    #[test]
    fn counts_out_of_range_are_refused() {
        for count in [0, 11, -1, i32::MIN, i32::MAX] {
            assert_eq!(max_messages(Some(count)).unwrap_err().kind(), ErrorKind::MaxMessagesOutOfRange);
        }
    }

    #[test]
    fn seconds_out_of_range_or_not_whole_are_refused() {
        let cases = [(0, 0), (-1, 0), (301, 0), (20, 1), (20, -1), (i64::MAX, i32::MAX), (i64::MIN, i32::MIN)];
        for (seconds, nanos) in cases {
            assert_eq!(wait(duration(seconds, nanos)).unwrap_err().kind(), ErrorKind::WaitOutOfRange);
            assert_eq!(lease(duration(seconds, nanos)).unwrap_err().kind(), ErrorKind::LeaseOutOfRange);
        }
        assert_eq!(wait(duration(61, 0)).unwrap_err().kind(), ErrorKind::WaitOutOfRange);
        assert_eq!(lease(duration(14, 0)).unwrap_err().kind(), ErrorKind::LeaseOutOfRange);
    }

    #[test]
    fn senseless_delays_are_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, -1), (0, 1_000_000_000), (i64::MIN, i32::MIN)] {
            assert_eq!(delay("delay", duration(seconds, nanos)).unwrap_err().kind(), ErrorKind::RequestFormat);
        }
        assert_eq!(delay("delay", duration(i64::MAX, 0)), Ok(Duration::from_secs(i64::MAX.unsigned_abs())));
    }

    #[test]
    fn messages_show_the_value_in_seconds() {
        let message = |seconds, nanos| wait(duration(seconds, nanos)).unwrap_err().message().to_owned();
        assert_eq!(message(61, 0), "wait: '61' is not a whole number of seconds from 1 to 60");
        assert!(message(1, 500_000_000).starts_with("wait: '1.5' is"));
        assert!(message(0, -500_000_000).starts_with("wait: '-0.5' is"));
        assert!(message(1, -5).starts_with("wait: '1 s and -5 ns' is"));
    }
}
