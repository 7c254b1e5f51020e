//! Findings about the server: its version, its settings.

use super::{Finding, Verdict};

const VERSION_MIN: i64 = 150_000;
/// The default of Postgres, 1 GB, is less.
const WAL_BYTES_MIN: i64 = 2 << 30;

/// What must be set to what; how bad something else is, and what to do about it.
const WANTED: [(&str, &str, Verdict, &str); 7] = [
    ("fsync", "on", Verdict::Bad, "turn it on: a power failure loses the database"),
    ("full_page_writes", "on", Verdict::Bad, "turn it on: a power failure can tear pages"),
    (
        "default_transaction_read_only",
        "off",
        Verdict::Bad,
        "the service has to write: is this a database or a role for reading?",
    ),
    (
        "transaction_read_only",
        "off",
        Verdict::Bad,
        "the service has to write: this is a standby, unless the setting above is on too; point the URL at the primary",
    ),
    ("autovacuum", "on", Verdict::Bad, "turn it on: small hot tables grow without end"),
    ("track_counts", "on", Verdict::Bad, "turn it on: autovacuum does nothing without it"),
    (
        "data_checksums",
        "on",
        Verdict::Warning,
        "without checksums a bad disk goes unnoticed; pg_checksums --enable turns them on while Postgres is down",
    ),
];

/// Settings of Postgres, by name.
#[derive(Debug)]
pub(super) struct ServerSettings(pub(super) Vec<(String, String)>);

impl ServerSettings {
    /// Empty when this version of Postgres does not have it.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// 0 when this version of Postgres does not have it.
    pub(super) fn number(&self, name: &str) -> i64 {
        self.get(name).parse().unwrap_or(0)
    }

    fn line(&self, name: &str) -> String {
        format!("{name} = {}", self.get(name))
    }
}

/// Version and settings.
pub(super) fn findings(settings: &ServerSettings, max_wal_bytes: i64) -> Vec<Finding> {
    let mut findings = vec![version(settings.number("server_version_num"))];
    findings.extend(WANTED.into_iter().map(|(name, wanted, otherwise, advice)| {
        Finding::new(settings.get(name) == wanted, otherwise, settings.line(name), advice)
    }));
    findings.push(commits(settings));
    findings.push(wal(settings, max_wal_bytes));
    findings
}

fn version(number: i64) -> Finding {
    Finding::new(
        number >= VERSION_MIN,
        Verdict::Bad,
        format!("Postgres {}.{}", number / 10_000, number % 10_000),
        "use Postgres 15 or newer",
    )
}

/// Of no consequence to the service, but others use the server too. `local` is as good as `on` while there is no standby, and
/// what is left loses nothing when one server does not come back.
fn commits(settings: &ServerSettings) -> Finding {
    let standbys = settings.get("synchronous_standby_names");
    let line = settings.line("synchronous_commit");
    let (good, what) = match settings.get("synchronous_commit") {
        "off" => (false, line),
        "local" if !standbys.is_empty() => (false, format!("{line}, which waits for none of the standbys {standbys}")),
        _ => (true, line),
    };
    Finding::new(
        good,
        Verdict::Warning,
        what,
        "turn it on, unless others want it so: a failure takes their last instants; the service's connections ask for `on` \
         themselves",
    )
}

fn wal(settings: &ServerSettings, max_bytes: i64) -> Finding {
    Finding::new(
        max_bytes >= WAL_BYTES_MIN,
        Verdict::Warning,
        settings.line("max_wal_size"),
        "set it to several GB, and reload: each of many checkpoints has whole pages written to the WAL again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changed: &[(&str, &str)]) -> ServerSettings {
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
            ("max_wal_size", "4GB"),
        ];
        // The first of a name is found.
        let all = changed.iter().chain(&good);
        ServerSettings(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn verdict(changed: &[(&str, &str)]) -> Verdict {
        findings(&settings(changed), 4 << 30).into_iter().map(|finding| finding.verdict).max().unwrap()
    }

    #[test]
    fn settings_that_risk_data_are_bad() {
        assert_eq!(verdict(&[]), Verdict::Good);
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
            ("synchronous_commit", "local", Verdict::Good),
            ("synchronous_commit", "remote_apply", Verdict::Good),
        ] {
            assert_eq!(verdict(&[(name, value)]), expected, "{name} = {value}");
        }
    }

    #[test]
    fn commits_that_do_not_wait_for_the_standbys_there_are_warned_of() {
        let with_standbys =
            |level| verdict(&[("synchronous_commit", level), ("synchronous_standby_names", "standby1")]);
        assert_eq!(with_standbys("local"), Verdict::Warning);
        assert_eq!(["on", "remote_write", "remote_apply"].map(with_standbys), [Verdict::Good; 3]);
    }

    #[test]
    fn room_for_little_wal_is_warned_of_with_its_value() {
        let found = |bytes| wal(&settings(&[("max_wal_size", "1GB")]), bytes);
        assert_eq!((found(2 << 30).verdict, found(1 << 30).verdict), (Verdict::Good, Verdict::Warning));
        assert_eq!(found(1 << 30).what, "max_wal_size = 1GB");
    }
}
