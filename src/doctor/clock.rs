//! Findings about time: Postgres's clock beside that of this machine, and what a clock that was put back has left.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::{Finding, Verdict};
use crate::domain::clock::Timestamp;
use crate::domain::limits::LEASE_SECONDS;
use crate::store::health::diagnosis::Diagnosis;

const OFFSET_MAX: Duration = Duration::from_secs(2);
/// Appends of one stream in quick succession may be a little ahead.
const STREAMS_AHEAD_MAX: Duration = Duration::from_secs(10);

/// The clocks, streams and leases; and what Postgres's clock shows.
pub(super) async fn findings(diagnosis: &mut Diagnosis) -> Result<(Timestamp, Vec<Finding>)> {
    // The first statement of a session takes more round trips.
    diagnosis.now().await?;
    let asked = here();
    let there = diagnosis.now().await?;
    let mut findings = vec![offset(asked, here(), there)];
    if let Some((streams, leases)) = diagnosis.latest_times().await? {
        findings.push(ahead(there, streams.unwrap_or(there), leases.unwrap_or(there)));
    }
    Ok((there, findings))
}

fn here() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn offset(asked: Timestamp, answered: Timestamp, there: Timestamp) -> Finding {
    let error = answered.since(asked) / 2;
    let middle = asked.plus(error);
    let (apart, which) = match there.since(middle) {
        Duration::ZERO => (middle.since(there), "behind"),
        ahead => (ahead, "ahead of"),
    };
    let (apart_ms, error_ms) = (apart.as_secs_f64() * 1e3, error.as_secs_f64() * 1e3);
    Finding::new(
        apart <= OFFSET_MAX + error,
        Verdict::Warning,
        format!("Postgres's clock is {apart_ms:.1} ms {which} this machine's, give or take {error_ms:.1} ms"),
        "run an NTP client on both: delays and leases go by Postgres's clock, dates of signed requests and JWTs by this one",
    )
}

fn ahead(now: Timestamp, streams: Timestamp, leases: Timestamp) -> Finding {
    let lease_max = Duration::from_secs(LEASE_SECONDS.end().unsigned_abs()) + STREAMS_AHEAD_MAX;
    let (streams, leases) = (streams.since(now), leases.since(now));
    Finding::new(
        streams <= STREAMS_AHEAD_MAX && leases <= lease_max,
        Verdict::Warning,
        format!("streams end at most {} s, leases {} s ahead of Postgres's clock", streams.as_secs(), leases.as_secs()),
        "Postgres's clock was put back, or is behind now: see DmsClockStepped in the runbook",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = Timestamp::MICROS_PER_SECOND;

    #[test]
    fn clocks_apart_are_warned_of_with_sign_and_error() {
        let found = |there| offset(Timestamp(10 * SECOND), Timestamp(10 * SECOND + 2_000), Timestamp(there));
        assert_eq!(
            found(11 * SECOND).what,
            "Postgres's clock is 999.0 ms ahead of this machine's, give or take 1.0 ms"
        );
        assert_eq!(found(9 * SECOND).what, "Postgres's clock is 1001.0 ms behind this machine's, give or take 1.0 ms");
        let verdicts = [11, 9, 13, 7].map(|seconds| found(seconds * SECOND).verdict);
        assert_eq!(verdicts, [Verdict::Good, Verdict::Good, Verdict::Warning, Verdict::Warning]);
    }

    #[test]
    fn what_a_clock_put_back_has_left_is_warned_of() {
        let verdict =
            |streams, leases| ahead(Timestamp(0), Timestamp(streams * SECOND), Timestamp(leases * SECOND)).verdict;
        assert_eq!((verdict(-100, -100), verdict(1, 300)), (Verdict::Good, Verdict::Good));
        assert_eq!((verdict(3600, 0), verdict(0, 3600)), (Verdict::Warning, Verdict::Warning));
    }
}
