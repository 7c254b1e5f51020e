//! Findings about what keeps what is answered: standbys, the archive, replication slots.

use anyhow::Result;

use super::{Finding, Verdict, size};
use crate::store::health::diagnosis::Diagnosis;

/// Standbys, archive, slots without a consumer.
pub(super) async fn findings(diagnosis: &mut Diagnosis) -> Result<Vec<Finding>> {
    let mut findings = vec![standby(diagnosis.standby_missing().await?), archiving(diagnosis.archiving_fails().await?)];
    findings.extend(diagnosis.idle_slots().await?.iter().map(|(slot, bytes)| idle_slot(slot, *bytes)));
    Ok(findings)
}

fn standby(missing: bool) -> Finding {
    Finding::new(
        !missing,
        Verdict::Bad,
        match missing {
            true => "no synchronous standby is there: commits wait for one",
            false => "no commit waits for a standby that is away",
        },
        "bring the standby back; or take it out of synchronous_standby_names: what is answered then is on one server only",
    )
}

fn archiving(fails: bool) -> Finding {
    Finding::new(
        !fails,
        Verdict::Warning,
        match fails {
            true => "WAL cannot be archived",
            false => "WAL is archived, or need not be",
        },
        "look at archive_command and the log of Postgres: WAL stays until it is archived, and the disk fills up",
    )
}

fn idle_slot(slot: &str, bytes: i64) -> Finding {
    Finding::new(
        false,
        Verdict::Warning,
        format!("replication slot {slot} has no consumer and keeps {} of WAL", size(bytes)),
        "bring its consumer back, or pg_drop_replication_slot: the disk fills up",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standbys_archives_and_consumers_that_are_away_are_told() {
        for finding in [standby, archiving] {
            assert!(finding(false).verdict == Verdict::Good && finding(true).verdict > Verdict::Good);
        }
        assert!(idle_slot("gone", 112_000_000).what.contains("gone has no consumer and keeps 112 MB"));
    }
}
