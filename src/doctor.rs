//! `dms doctor`: looks at a database as the service would use it, and says what to do about what it finds.

use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::broker::Settings;
use crate::config::DoctorArgs;
use crate::domain::limits::RETENTION_DEFAULT;
use crate::store::diagnosis::{Diagnosis, SnapshotHolder};

const SERVER_VERSION_MIN: i64 = 150_000;
/// A transaction that is open for longer is worth a look.
const OPEN_MAX_SECONDS: f64 = 60.0;
const DEAD_ROWS_MAX: i64 = 100_000;
const SKEW_MAX: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(86_400);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    /// It costs speed or space, or will cost data when something else goes wrong.
    Warning,
    /// Data is at risk, or the service cannot run.
    Bad,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "BAD",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    what: String,
    advice: &'static str,
}

impl Finding {
    fn new(good: bool, otherwise: Verdict, what: impl Into<String>, advice: &'static str) -> Self {
        Self { verdict: if good { Verdict::Good } else { otherwise }, what: what.into(), advice }
    }
}

/// Looks, prints, and fails when something is bad.
pub async fn run(args: DoctorArgs) -> Result<()> {
    let mut diagnosis = Diagnosis::connect(&args.database.database_url).await.context("Postgres cannot be reached")?;
    let settings = Settings::from(&args.broker);
    let findings = examine(&mut diagnosis, &settings, args.replicas).await?;
    diagnosis.close().await?;
    let mut stdout = std::io::stdout().lock();
    for Finding { verdict, what, advice } in &findings {
        writeln!(stdout, "{verdict:<8} {what}")?;
        if *verdict != Verdict::Good {
            writeln!(stdout, "         -> {advice}")?;
        }
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if bad > 0 { bail!("{bad} of {} checks are bad", findings.len()) } else { Ok(()) }
}

async fn examine(diagnosis: &mut Diagnosis, settings: &Settings, replicas: u32) -> Result<Vec<Finding>> {
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let there = diagnosis.now().await?;
    let mut findings = vec![clock(here, Duration::from_micros(u64::try_from(there.0).unwrap_or_default()))];
    let shown = diagnosis.settings().await?;
    let setting = |name: &str| shown.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str());
    findings.extend(server(&setting));
    findings.push(connections(&setting, settings, replicas, diagnosis.sessions().await?));
    let (applied, needed) = diagnosis.schema().await?;
    findings.push(schema(applied, needed));
    findings.push(rights(&diagnosis.missing_rights().await?));
    findings.push(Finding::new(
        diagnosis.may_emit_messages().await?,
        Verdict::Bad,
        "this role may run pg_logical_emit_message",
        "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) to the role: large sends need it",
    ));
    findings.push(standby(diagnosis.standby_missing().await?));
    findings.push(archiving(diagnosis.archiving_fails().await?));
    findings.extend(diagnosis.idle_slots().await?.iter().map(|(slot, bytes)| idle_slot(slot, *bytes)));
    findings.push(sight(diagnosis.sees_all_sessions().await?));
    findings.extend(diagnosis.snapshot_holders().await?.iter().map(holder));
    findings.extend(diagnosis.dead_rows().await?.iter().map(|(table, live, dead)| dead_rows(table, *live, *dead)));
    if let Some(oldest) = diagnosis.oldest_day().await? {
        findings.push(retention(there.since(oldest)));
    }
    Ok(findings)
}

fn clock(here: Duration, there: Duration) -> Finding {
    let skew = here.abs_diff(there);
    Finding::new(
        skew <= SKEW_MAX,
        Verdict::Warning,
        format!("clocks of this machine and of Postgres differ by {} ms", skew.as_millis()),
        "run an NTP client on both: delays and leases go by Postgres's clock, dates of signed requests and JWTs by this one",
    )
}

fn server<'a>(setting: &impl Fn(&str) -> &'a str) -> Vec<Finding> {
    let version = setting("server_version_num").parse().unwrap_or(0);
    let is = |name: &str, value: &str| setting(name) == value;
    let line = |name: &str| format!("{name} = {}", setting(name));
    vec![
        Finding::new(
            version >= SERVER_VERSION_MIN,
            Verdict::Bad,
            format!("Postgres {}.{}", version / 10_000, version % 10_000),
            "use Postgres 15 or newer",
        ),
        Finding::new(is("fsync", "on"), Verdict::Bad, line("fsync"), "turn it on: a power failure loses the database"),
        Finding::new(
            is("full_page_writes", "on"),
            Verdict::Bad,
            line("full_page_writes"),
            "turn it on: a power failure can tear pages",
        ),
        Finding::new(
            is("default_transaction_read_only", "off"),
            Verdict::Bad,
            line("default_transaction_read_only"),
            "the service has to write: is this a database or a role for reading?",
        ),
        Finding::new(
            is("transaction_read_only", "off"),
            Verdict::Bad,
            line("transaction_read_only"),
            "the service has to write: this is a standby, unless the setting above is on too; point the URL at the primary",
        ),
        Finding::new(
            is("autovacuum", "on"),
            Verdict::Bad,
            line("autovacuum"),
            "turn it on: small hot tables grow without end",
        ),
        Finding::new(
            is("track_counts", "on"),
            Verdict::Bad,
            line("track_counts"),
            "turn it on: autovacuum does nothing without it",
        ),
        Finding::new(
            is("data_checksums", "on"),
            Verdict::Warning,
            line("data_checksums"),
            "without checksums a bad disk goes unnoticed; pg_checksums --enable turns them on while Postgres is down",
        ),
        Finding::new(
            !is("synchronous_commit", "off"),
            Verdict::Warning,
            line("synchronous_commit"),
            "nothing to do for the service, whose connections ask for `on` themselves; others lose their last instants",
        ),
    ]
}

fn connections<'a>(setting: &impl Fn(&str) -> &'a str, settings: &Settings, replicas: u32, sessions: i64) -> Finding {
    let number = |name: &str| setting(name).parse::<i64>().unwrap_or(0);
    let most = number("max_connections");
    let reserved = number("superuser_reserved_connections") + number("reserved_connections");
    // Three for a lane of sends, one each for KAFKA_HT, for listening and for notifying.
    let lanes = 3 * settings.append_lanes + 1 + settings.claim_lanes + settings.settle_lanes + 2;
    let needed =
        (i64::try_from(lanes).unwrap_or(i64::MAX) + i64::from(settings.pool_connections)) * i64::from(replicas);
    Finding::new(
        needed <= most - reserved,
        Verdict::Bad,
        format!(
            "{replicas} replicas need {needed} connections; max_connections = {most}, {reserved} of them reserved, \
             {sessions} in use"
        ),
        "raise max_connections, or lower --pool-connections and the numbers of lanes",
    )
}

fn schema(applied: Option<i64>, needed: i64) -> Finding {
    let Some(applied) = applied else {
        // The service starts all the same: it cannot look either.
        return Finding::new(
            false,
            Verdict::Warning,
            "this role may not read the version of the schema",
            "run dms doctor as the role that migrated, or GRANT SELECT ON _sqlx_migrations",
        );
    };
    Finding::new(
        applied >= needed,
        Verdict::Bad,
        format!("the schema is at version {applied}, this program needs {needed}"),
        "run dms migrate",
    )
}

fn rights(missing: &[String]) -> Finding {
    let what = if missing.is_empty() {
        "this role has the rights that the service needs".to_owned()
    } else {
        format!("this role lacks {}", missing.join(", "))
    };
    Finding::new(
        missing.is_empty(),
        Verdict::Bad,
        what,
        "run the service as the role that migrated, or as a member of it, for it makes and drops partitions",
    )
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

fn idle_slot(slot: &str, bytes: i64) -> Finding {
    Finding::new(
        false,
        Verdict::Warning,
        format!("replication slot {slot} has no consumer and keeps {} MB of WAL", bytes / 1_000_000),
        "bring its consumer back, or pg_drop_replication_slot: the disk fills up",
    )
}

fn holder(holder: &SnapshotHolder) -> Finding {
    let SnapshotHolder { holder, age, seconds } = holder;
    let open = seconds.map(|seconds| format!(", open for {seconds:.0} s")).unwrap_or_default();
    Finding::new(
        seconds.is_some_and(|seconds| seconds <= OPEN_MAX_SECONDS),
        Verdict::Warning,
        format!("{holder} keeps rows that died in the last {age} transactions{open}"),
        "end what is not needed: pg_terminate_backend, ROLLBACK PREPARED, pg_drop_replication_slot",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, value: &'static str) -> Verdict {
        let good = [
            ("server_version_num", "150018"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("default_transaction_read_only", "off"),
            ("transaction_read_only", "off"),
            ("autovacuum", "on"),
            ("track_counts", "on"),
            ("data_checksums", "on"),
            ("synchronous_commit", "on"),
        ];
        let setting = |asked: &str| match asked == name {
            true => value,
            false => good.iter().find(|(known, _)| *known == asked).map_or("", |(_, value)| value),
        };
        server(&setting).into_iter().map(|finding| finding.verdict).max().unwrap()
    }

    #[test]
    fn settings_that_risk_data_are_bad() {
        assert_eq!(verdict("none", ""), Verdict::Good);
        for (name, value, expected) in [
            ("server_version_num", "140012", Verdict::Bad),
            ("fsync", "off", Verdict::Bad),
            ("full_page_writes", "off", Verdict::Bad),
            ("autovacuum", "off", Verdict::Bad),
            ("default_transaction_read_only", "on", Verdict::Bad),
            ("transaction_read_only", "on", Verdict::Bad),
            ("track_counts", "off", Verdict::Bad),
            ("data_checksums", "off", Verdict::Warning),
            ("synchronous_commit", "off", Verdict::Warning),
            ("synchronous_commit", "remote_apply", Verdict::Good),
        ] {
            assert_eq!(verdict(name, value), expected, "{name} = {value}");
        }
    }

    #[test]
    fn connections_are_counted_for_all_replicas() {
        let setting = |name: &str| if name == "max_connections" { "106" } else { "3" };
        let found = |replicas| connections(&setting, &Settings::default(), replicas, 1);
        assert_eq!((found(4).verdict, found(5).verdict), (Verdict::Good, Verdict::Bad), "six are reserved");
        assert!(found(5).what.contains("5 replicas need 105 connections"), "{:?}", found(5));
    }

    #[test]
    fn old_snapshots_partitions_and_clocks_are_warned_of() {
        let held = |seconds| SnapshotHolder { holder: "session 1".into(), age: 5, seconds };
        assert_eq!(holder(&held(Some(1.0))).verdict, Verdict::Good);
        assert_eq!(holder(&held(Some(61.0))).verdict, Verdict::Warning);
        assert_eq!(holder(&held(None)).verdict, Verdict::Warning);
        assert_eq!((retention(DAY * 4).verdict, retention(DAY * 5).verdict), (Verdict::Good, Verdict::Warning));
        let at = Duration::from_secs;
        assert_eq!((clock(at(10), at(11)).verdict, clock(at(10), at(7)).verdict), (Verdict::Good, Verdict::Warning));
        assert_eq!(
            [Some(2), Some(3), Some(1), None].map(|applied| schema(applied, 2).verdict),
            [Verdict::Good, Verdict::Good, Verdict::Bad, Verdict::Warning]
        );
        let lacking = ["INSERT on segments".to_owned()];
        assert_eq!((rights(&[]).verdict, rights(&lacking).verdict), (Verdict::Good, Verdict::Bad));
        for finding in [standby, archiving] {
            assert!(finding(false).verdict == Verdict::Good && finding(true).verdict > Verdict::Good);
        }
        assert_eq!((sight(true).verdict, sight(false).verdict), (Verdict::Good, Verdict::Warning));
        assert!(idle_slot("gone", 112_000_000).what.contains("gone has no consumer and keeps 112 MB"));
        assert_eq!(
            (dead_rows("leases", 1, 5).verdict, dead_rows("leases", 1, 1_000_000).verdict),
            (Verdict::Good, Verdict::Warning)
        );
    }
}
