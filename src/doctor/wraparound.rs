//! Findings about transaction ids: Postgres stops all writes when they run out.

use anyhow::Result;

use super::{Finding, Verdict};
use crate::domain::clock::Timestamp;
use crate::store::health::diagnosis::Diagnosis;
use crate::store::health::wraparound::{FreezeLimits, FrozenAge};

/// Ids there are, of transactions as of multixacts; the last three million are kept for superusers.
const IDS: i64 = 1 << 31;
/// Beyond this Postgres drops all other considerations when it vacuums (`vacuum_failsafe_age`).
const FAILSAFE_AGE: i64 = 1_600_000_000;
/// Autovacuum has been at it for a while by then.
const BEHIND: i64 = 100_000_000;

/// The oldest database of the server, the oldest table of ours, and partitions that should be frozen.
pub(super) async fn findings(diagnosis: &mut Diagnosis, now: Timestamp) -> Result<Vec<Finding>> {
    let limits = diagnosis.freeze_limits().await?;
    let mut findings = vec![database(&diagnosis.oldest_database().await?, limits)];
    if let Some(oldest) = diagnosis.oldest_table().await? {
        findings.push(table(&oldest, limits));
        findings.push(partitions(&diagnosis.unfrozen_days(now).await?));
    }
    Ok(findings)
}

fn database(oldest: &FrozenAge, limits: FreezeLimits) -> Finding {
    let FrozenAge { name, transactions, multixacts } = oldest;
    let age = (*transactions).max(*multixacts);
    let behind = *transactions > limits.transactions + BEHIND || *multixacts > limits.multixacts + BEHIND;
    let otherwise = if age > FAILSAFE_AGE { Verdict::Bad } else { Verdict::Warning };
    Finding::new(
        !behind && age <= FAILSAFE_AGE,
        otherwise,
        format!(
            "database {name} has ids to freeze that are {transactions} transactions and {multixacts} multixacts old; \
             writes stop at {IDS}"
        ),
        "autovacuum does not get through: look for what keeps old rows (above), for its workers (pg_stat_progress_vacuum), and at the \
         tables of that database (age(relfrozenxid) in pg_class)",
    )
}

fn table(oldest: &FrozenAge, limits: FreezeLimits) -> Finding {
    let FrozenAge { name, transactions, multixacts } = oldest;
    let FreezeLimits { transactions: transactions_max, multixacts: multixacts_max } = limits;
    Finding::new(
        *transactions <= transactions_max && *multixacts <= multixacts_max,
        Verdict::Warning,
        format!(
            "of the tables of dms {name} has the oldest ids: {transactions} transactions, {multixacts} multixacts; autovacuum \
             freezes tables whole at {transactions_max} and {multixacts_max}"
        ),
        "that vacuum gives way to nobody; if it comes often, raise autovacuum_freeze_max_age (to 1000000000)",
    )
}

fn partitions(unfrozen: &[String]) -> Finding {
    let what = match unfrozen {
        [] => "partitions of past days are frozen".to_owned(),
        days => format!("partitions of past days that are not frozen: {}", days.join(", ")),
    };
    Finding::new(
        unfrozen.is_empty(),
        Verdict::Warning,
        what,
        "is a replica running? It freezes each within hours after its day; what keeps dead rows (above) keeps it from that",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FreezeLimits = FreezeLimits { transactions: 200_000_000, multixacts: 400_000_000 };

    fn aged(transactions: i64, multixacts: i64) -> FrozenAge {
        FrozenAge { name: "one".into(), transactions, multixacts }
    }

    #[test]
    fn a_database_is_warned_of_when_autovacuum_is_behind_and_bad_when_ids_run_out() {
        for (transactions, multixacts, verdict) in [
            (210_000_000, 5, Verdict::Good),
            (310_000_000, 5, Verdict::Warning),
            (5, 510_000_000, Verdict::Warning),
            (1_700_000_000, 5, Verdict::Bad),
            (5, 1_700_000_000, Verdict::Bad),
        ] {
            assert_eq!(
                database(&aged(transactions, multixacts), LIMITS).verdict,
                verdict,
                "{transactions} {multixacts}"
            );
        }
        // Where autovacuum may wait until then, the end is as near.
        let late = FreezeLimits { transactions: 2_000_000_000, multixacts: 2_000_000_000 };
        assert_eq!(database(&aged(1_700_000_000, 0), late).verdict, Verdict::Bad);
    }

    #[test]
    fn tables_that_are_vacuumed_whole_and_partitions_not_frozen_are_warned_of() {
        assert_eq!(table(&aged(200_000_000, 5), LIMITS).verdict, Verdict::Good);
        assert_eq!(table(&aged(200_000_001, 5), LIMITS).verdict, Verdict::Warning);
        assert_eq!(table(&aged(5, 400_000_001), LIMITS).verdict, Verdict::Warning);
        assert_eq!(partitions(&[]).verdict, Verdict::Good);
        let found = partitions(&["segments_d1".to_owned(), "segments_d2".to_owned()]);
        assert_eq!((found.verdict, found.what.ends_with("segments_d1, segments_d2")), (Verdict::Warning, true));
    }
}
