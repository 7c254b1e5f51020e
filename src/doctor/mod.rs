//! `dms doctor`: looks at a database as the service would use it, and says what to do about what it finds.

mod clock;
pub(crate) mod connections;
mod dead_rows;
mod durability;
mod entry;
mod partitions;
mod schema;
mod server;
mod wraparound;

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use anyhow::{Result, bail};

use self::server::ServerSettings;
use crate::broker::Settings;
use crate::config::DoctorArgs;
use crate::store::health::diagnosis::Diagnosis;

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
    advice: Cow<'static, str>,
}

impl Finding {
    fn new(good: bool, otherwise: Verdict, what: impl Into<String>, advice: impl Into<Cow<'static, str>>) -> Self {
        Self { verdict: if good { Verdict::Good } else { otherwise }, what: what.into(), advice: advice.into() }
    }
}

/// Looks, prints, and fails when something is bad.
pub async fn run(args: DoctorArgs) -> Result<()> {
    let (mut diagnosis, entry) = Diagnosis::connect(&args.database.into()).await?;
    let settings = Settings::from(&args.broker);
    let mut findings = entry::findings(&entry);
    // What a session says that changes from transaction to transaction is worth nothing.
    if !entry.pooled {
        findings.extend(examine(&mut diagnosis, &settings, args.replicas).await?);
    }
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
    let (now, mut findings) = clock::findings(diagnosis).await?;
    let server = ServerSettings(diagnosis.settings().await?);
    findings.extend(server::findings(&server, diagnosis.max_wal_bytes().await?));
    let limits = diagnosis.connection_limits().await?;
    findings.extend(connections::findings(&server, &limits, settings, replicas));
    findings.extend(schema::findings(diagnosis).await?);
    findings.extend(durability::findings(diagnosis).await?);
    findings.extend(dead_rows::findings(diagnosis).await?);
    findings.extend(partitions::findings(diagnosis, now).await?);
    findings.extend(wraparound::findings(diagnosis, now).await?);
    Ok(findings)
}

/// Bytes for people.
fn size(bytes: i64) -> String {
    const GB: i64 = 1_000_000_000;
    match bytes < GB {
        true => format!("{} MB", bytes / 1_000_000),
        false => format!("{}.{} GB", bytes / GB, bytes % GB / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!([112_000_000, 999_999_999, 1_000_000_000].map(size), ["112 MB", "999 MB", "1.0 GB"]);
        assert_eq!(size(4_660_000_000), "4.6 GB");
    }
}
