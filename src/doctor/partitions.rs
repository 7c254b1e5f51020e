//! Findings about the partitions of the log: made ahead, dropped in time, and the room that they take.

use std::time::Duration;

use anyhow::Result;

use super::{Finding, Verdict, size};
use crate::domain::clock::Timestamp;
use crate::domain::limits::RETENTION_DEFAULT;
use crate::store::health::diagnosis::Diagnosis;

const DAY: Duration = Duration::from_secs(86_400);
const DAY_MICROS: i64 = 86_400 * Timestamp::MICROS_PER_SECOND;

/// Tomorrow's partition, the oldest one, and what all take on disk.
pub(super) async fn findings(diagnosis: &mut Diagnosis, now: Timestamp) -> Result<Vec<Finding>> {
    let days = diagnosis.log_days().await?;
    let mut findings = vec![ahead(now, &days)];
    if let Some(oldest) = days.first() {
        findings.push(retention(now.since(*oldest)));
    }
    let log = diagnosis.log_bytes().await?;
    findings.push(room(log, days.len(), diagnosis.database_bytes().await?));
    Ok(findings)
}

/// There is no partition for what fits into no other one: without that of its day a send fails.
fn ahead(now: Timestamp, days: &[Timestamp]) -> Finding {
    let tomorrow = Timestamp((now.0.div_euclid(DAY_MICROS) + 1) * DAY_MICROS);
    let there = days.contains(&tomorrow);
    Finding::new(
        there,
        Verdict::Warning,
        match there {
            true => "the log has a partition for tomorrow",
            false => "the log has no partition for tomorrow",
        },
        "is a replica running? It makes partitions two days ahead; one that cannot logs `retention not enforced`",
    )
}

fn retention(age: Duration) -> Finding {
    // A partition holds a day, and goes when all of it has expired.
    let late = age.saturating_sub(RETENTION_DEFAULT + DAY);
    Finding::new(
        late <= DAY / 24,
        Verdict::Warning,
        format!("the oldest partition of the log began {} h ago", age.as_secs() / 3600),
        "partitions older than four days should be gone: is a replica running, or does something lock them (pg_locks)?",
    )
}

/// Postgres does not tell how much of the disk is free: whoever reads this knows its size.
fn room(log: Option<i64>, partitions: usize, database: Option<i64>) -> Finding {
    let log_size = log.map_or_else(
        || "what the log holds cannot be told: a partition is locked".to_owned(),
        |bytes| format!("the log holds {} in {partitions} partitions of a day", size(bytes)),
    );
    let database_size = database.map(|bytes| format!("; the database holds {}", size(bytes))).unwrap_or_default();
    Finding::new(
        log.is_some(),
        Verdict::Warning,
        log_size + &database_size,
        "look for who locks it (pg_locks): sends and retention wait for them too",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_without_a_partition_is_warned_of() {
        let day = |number: i64| Timestamp(number * DAY_MICROS);
        let days = [day(100), day(101), day(102)];
        let verdict = |now| ahead(now, &days).verdict;
        assert_eq!((verdict(day(100)), verdict(Timestamp(day(102).0 - 1))), (Verdict::Good, Verdict::Good));
        assert_eq!(verdict(day(102)), Verdict::Warning);
        assert_eq!(ahead(day(100), &[]).verdict, Verdict::Warning);
    }

    #[test]
    fn partitions_past_their_time_are_warned_of() {
        assert_eq!((retention(DAY * 4).verdict, retention(DAY * 5).verdict), (Verdict::Good, Verdict::Warning));
    }

    #[test]
    fn the_room_that_the_log_takes_is_told() {
        let found = room(Some(4_700_000_000), 5, Some(4_800_000_000));
        let expected = "the log holds 4.7 GB in 5 partitions of a day; the database holds 4.8 GB";
        assert_eq!((found.verdict, found.what.as_str()), (Verdict::Good, expected));
        assert_eq!(room(Some(0), 0, None).what, "the log holds 0 MB in 0 partitions of a day");
        assert_eq!(room(None, 5, None).verdict, Verdict::Warning);
    }
}
