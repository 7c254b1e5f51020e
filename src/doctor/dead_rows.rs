//! Findings about dead rows of the hot tables, and about what keeps them.

use anyhow::Result;

use super::{Finding, Verdict};
use crate::store::health::dead_rows::SnapshotHolder;
use crate::store::health::diagnosis::Diagnosis;

/// A transaction that is open for longer is worth a look.
const OPEN_MAX_SECONDS: f64 = 60.0;
/// A standby that tells what its queries still need, or another consumer, may be behind by this many transactions.
const BEHIND_MAX: i64 = 1_000_000;
/// The oldest are enough: when they are gone, look again.
const HOLDERS_SHOWN: usize = 5;
const DEAD_ROWS_MAX: i64 = 100_000;

/// What keeps dead rows, and how many there are.
pub(super) async fn findings(diagnosis: &mut Diagnosis) -> Result<Vec<Finding>> {
    let mut findings = vec![sight(diagnosis.sees_all_sessions().await?)];
    findings.extend(diagnosis.snapshot_holders().await?.iter().take(HOLDERS_SHOWN).map(holder));
    findings.push(autovacuum(&diagnosis.autovacuum_off().await?));
    findings.extend(diagnosis.hot_rows().await?.iter().map(|(table, live, dead)| dead_rows(table, *live, *dead)));
    Ok(findings)
}

fn sight(all: bool) -> Finding {
    Finding::new(
        all,
        Verdict::Warning,
        match all {
            true => "this role sees the sessions of all roles",
            false => "this role does not see the sessions of other roles",
        },
        "GRANT pg_read_all_stats TO the role, or ask as a superuser: what keeps dead rows may be missing below",
    )
}

/// Transactions must end; what follows the WAL must follow.
fn holder(holder: &SnapshotHolder) -> Finding {
    let SnapshotHolder { holder, age, seconds, active } = holder;
    let open = seconds.map(|seconds| format!(", open for {seconds:.0} s")).unwrap_or_default();
    Finding::new(
        seconds.map_or(*active && *age <= BEHIND_MAX, |seconds| seconds <= OPEN_MAX_SECONDS),
        Verdict::Warning,
        format!("{holder} keeps rows that died in the last {age} transactions{open}"),
        "end what is not needed: pg_terminate_backend, ROLLBACK PREPARED, pg_drop_replication_slot, a long query of a standby",
    )
}

fn autovacuum(off: &[String]) -> Finding {
    let what = if off.is_empty() {
        "autovacuum looks after the hot tables".to_owned()
    } else {
        format!("autovacuum has been told to leave alone {}", off.join(", "))
    };
    Finding::new(
        off.is_empty(),
        Verdict::Bad,
        what,
        "ALTER TABLE ... RESET (autovacuum_enabled), for TOAST (toast.autovacuum_enabled): they grow without end",
    )
}

fn dead_rows(table: &str, live: i64, dead: i64) -> Finding {
    Finding::new(
        dead <= DEAD_ROWS_MAX,
        Verdict::Warning,
        format!("{table}: {live} live rows, {dead} dead ones"),
        "look for what keeps them (above); then VACUUM the table",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(age: i64, seconds: Option<f64>, active: bool) -> Verdict {
        holder(&SnapshotHolder { holder: "session 1".into(), age, seconds, active }).verdict
    }

    #[test]
    fn transactions_that_are_open_for_long_are_warned_of() {
        assert_eq!(held(5, Some(1.0), false), Verdict::Good);
        assert_eq!(held(5, Some(61.0), false), Verdict::Warning);
        assert_eq!(held(5, Some(61.0), true), Verdict::Warning);
        assert_eq!(held(2_000_000, Some(1.0), false), Verdict::Good, "so it is for others too, soon");
        assert_eq!(held(5, None, false), Verdict::Warning, "for how long, this role may not see");
    }

    #[test]
    fn slots_are_judged_by_their_consumer_and_how_far_it_is_behind() {
        assert_eq!(held(BEHIND_MAX, None, true), Verdict::Good);
        assert_eq!(held(BEHIND_MAX + 1, None, true), Verdict::Warning);
        assert_eq!(held(5, None, false), Verdict::Warning);
    }

    #[test]
    fn dead_rows_and_what_lets_them_grow_are_told() {
        assert_eq!((sight(true).verdict, sight(false).verdict), (Verdict::Good, Verdict::Warning));
        let off = ["leases".to_owned(), "TOAST of leases".to_owned()];
        assert_eq!((autovacuum(&[]).verdict, autovacuum(&off).verdict), (Verdict::Good, Verdict::Bad));
        assert!(autovacuum(&off).what.ends_with("leases, TOAST of leases"), "{:?}", autovacuum(&off));
        assert_eq!(
            (dead_rows("leases", 1, 5).verdict, dead_rows("leases", 1, 1_000_000).verdict),
            (Verdict::Good, Verdict::Warning)
        );
    }
}
