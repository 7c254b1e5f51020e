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
    findings.push(Finding::new(
        diagnosis.may_emit_messages().await?,
        Verdict::Bad,
        "this role may run pg_logical_emit_message",
        "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) to the role: large sends need it",
    ));
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
            "the service has to write: is this a standby, or a role for reading?",
        ),
        Finding::new(
            is("autovacuum", "on"),
            Verdict::Bad,
            line("autovacuum"),
            "turn it on: small hot tables grow without end",
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
    let most: i64 = setting("max_connections").parse().unwrap_or(0);
    // Three for a lane of sends, one each for KAFKA_HT, for listening and for notifying.
    let lanes = 3 * settings.append_lanes + 1 + settings.claim_lanes + settings.settle_lanes + 2;
    let needed =
        (i64::try_from(lanes).unwrap_or(i64::MAX) + i64::from(settings.pool_connections)) * i64::from(replicas);
    Finding::new(
        needed <= most,
        Verdict::Bad,
        format!("{replicas} replicas need {needed} connections; max_connections = {most}, {sessions} are in use"),
        "raise max_connections, or lower --pool-connections and the numbers of lanes",
    )
}

fn schema(applied: i64, needed: i64) -> Finding {
    Finding::new(
        applied >= needed,
        Verdict::Bad,
        format!("the schema is at version {applied}, this program needs {needed}"),
        "run dms migrate",
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
            ("autovacuum", "on"),
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
            ("data_checksums", "off", Verdict::Warning),
            ("synchronous_commit", "off", Verdict::Warning),
            ("synchronous_commit", "remote_apply", Verdict::Good),
        ] {
            assert_eq!(verdict(name, value), expected, "{name} = {value}");
        }
    }

    #[test]
    fn connections_are_counted_for_all_replicas() {
        let found = |replicas| connections(&|_| "100", &Settings::default(), replicas, 1);
        assert_eq!((found(4).verdict, found(5).verdict), (Verdict::Good, Verdict::Bad));
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
            (schema(2, 2).verdict, schema(3, 2).verdict, schema(1, 2).verdict),
            (Verdict::Good, Verdict::Good, Verdict::Bad)
        );
        assert_eq!(
            (dead_rows("leases", 1, 5).verdict, dead_rows("leases", 1, 1_000_000).verdict),
            (Verdict::Good, Verdict::Warning)
        );
    }
}
