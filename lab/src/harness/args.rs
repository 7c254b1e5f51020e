//! Settings of the service under test, and what both commands read alike.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::service;

/// Which service runs, on which Postgres.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service under test")]
pub struct ServiceArgs {
    /// The program `dms` to run; the one beside this program when not given
    #[arg(long, env = "DMS_LAB_PROGRAM", value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Folder with the server binaries initdb and postgres, version 15 or newer; looked for when not given
    #[arg(long, env = "DMS_POSTGRES_BIN", value_name = "FOLDER")]
    pub postgres_bin: Option<PathBuf>,
    /// More flags for `dms serve` of every replica, behind `--`, such as `-- --append-lanes=2`
    #[arg(last = true, value_name = "FLAGS")]
    pub serve: Vec<String>,
}

impl ServiceArgs {
    /// The program to run.
    pub fn program(&self) -> Result<PathBuf> {
        service::program(self.program.as_deref())
    }
}

/// Reads a time within bounds.
pub fn time(min: Duration, max: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync {
    move |text| {
        let time = humantime::parse_duration(text).ok().filter(|time| (min..=max).contains(time));
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        time.ok_or_else(|| format!("give a time of {min} to {max}, such as 500ms, 25s or 2m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_within_their_bounds() {
        let read = time(Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(read("1500ms"), Ok(Duration::from_millis(1500)));
        for text in ["", "1", "999ms", "61s", "-1s"] {
            assert_eq!(read(text), Err("give a time of 1s to 1m, such as 500ms, 25s or 2m".to_owned()), "{text}");
        }
    }
}
