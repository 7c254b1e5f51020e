//! Settings of `dms-lab chaos`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::harness::args::{ServiceArgs, time};

/// Something that goes wrong around the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// kill -9 of a replica
    ReplicaKilled,
    /// SIGTERM to a replica with calls in flight
    ReplicaStopped,
    /// SIGSTOP of a replica past its leases, then SIGCONT
    ReplicaFrozen,
    /// kill -9 of the postmaster, at times with all its processes
    PostgresKilled,
    /// kill -9 of the primary for good, and promotion of its synchronous standby, which replicas find by a URL of two hosts; needs --standby
    PrimaryLost,
    /// A restart of Postgres in order
    PostgresRestarted,
    /// kill -9 of one backend, which makes Postgres restart all of them
    BackendKilled,
    /// pg_terminate_backend of some backends
    BackendsTerminated,
    /// All connections that Postgres takes are taken
    SlotsTaken,
    /// Connections to Postgres cut
    DatabaseCut,
    /// Connections to Postgres refused
    DatabaseRefused,
    /// Connections to Postgres delayed
    DatabaseDelayed,
    /// Connections to Postgres black-holed, both ways or one
    DatabaseLost,
    /// Connections of clients cut
    ClientsCut,
    /// Connections of clients delayed
    ClientsDelayed,
    /// Connections of clients black-holed, both ways or one
    ClientsLost,
    /// Appends that Postgres refuses: disk full, or an internal error
    AppendsFail,
    /// A transaction that keeps dead rows from being removed
    SnapshotHeld,
    /// A lock on a hot row
    RowLocked,
    /// A replica started again with clocks that run up to 5 % fast or slow; needs a C compiler
    ClockDrift,
    /// Postgres's clock set ahead by up to an hour, or back by seconds; needs a C compiler
    PostgresClockStepped,
}

impl Fault {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it is about clocks.
    pub fn is_of_clocks(self) -> bool {
        matches!(self, Self::ClockDrift | Self::PostgresClockStepped)
    }
}

/// A guarantee broken on purpose, in the private Postgres, so that the checker is seen to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// Segments that are not stored
    SendsLost,
    /// Commits that are answered before they are on disk
    AnsweredEarly,
    /// A cursor that skips
    CursorSkips,
    /// A cursor that is put back: leases without exclusivity
    LeaseShared,
    /// Leases that are there after their end
    LeaseOutlives,
    /// Acknowledgements that change nothing
    AckForgotten,
    /// Failed messages of FIFO queues that let others pass
    FifoOvertaken,
    /// Failed messages of other queues that wait until hundreds of new ones have passed
    FailedStarve,
    /// Failed deliveries that are not counted
    FailureUncounted,
    /// Dead letters stored twice
    DeadLetterDoubled,
    /// Dead letters that are not stored
    DeadLetterDropped,
    /// A group that moves the cursor of another
    GroupsCoupled,
    /// A counter that drifts
    CounterDrifts,
}

impl Sabotage {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Settings of `dms-lab chaos`.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// Seed of everything that is drawn, printed at the start; a random one when not given
    #[arg(long, env = "DMS_CHAOS_SEED", value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Rounds of faults, each of one to three at the same time; 0 for none
    #[arg(long, env = "DMS_CHAOS_ROUNDS", value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub rounds: u32,
    /// Messages to send at least: rounds go on until so many were sent
    #[arg(long, env = "DMS_CHAOS_MESSAGES", value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub messages: u64,
    /// Messages a second to send, over all queues
    #[arg(long, env = "DMS_CHAOS_RATE", value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub rate: u32,
    /// No round begins after this time, however few there were, 10s-24h
    #[arg(long, env = "DMS_CHAOS_TIME_LIMIT", value_name = "TIME", default_value = "120m",
          value_parser = time(Duration::from_secs(10), Duration::from_secs(86_400)))]
    pub time_limit: Duration,
    /// The longest that a fault lasts, but for a frozen replica, which outlasts its leases, 1s-1m
    #[arg(long, env = "DMS_CHAOS_FAULT_TIME", value_name = "TIME", default_value = "10s",
          value_parser = time(Duration::from_secs(1), Duration::from_secs(60)))]
    pub fault_time: Duration,
    /// Replicas of the service
    #[arg(long, env = "DMS_CHAOS_REPLICAS", value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub replicas: u32,
    /// Run Postgres with a synchronous standby
    #[arg(long, env = "DMS_CHAOS_STANDBY")]
    pub standby: bool,
    /// Draw from these faults only; from all when not given
    #[arg(long, env = "DMS_CHAOS_FAULTS", value_enum, value_name = "FAULTS", value_delimiter = ',')]
    pub faults: Vec<Fault>,
    /// Break a guarantee on purpose, to see the checker notice
    #[arg(long, env = "DMS_CHAOS_SABOTAGE", value_enum, value_name = "NAME")]
    pub sabotage: Option<Sabotage>,
    /// Another version of `dms`: the schema begins as that has it and is brought up to date under load, and replicas run
    /// that version and this one in turns
    #[arg(long, env = "DMS_CHAOS_PREVIOUS", value_name = "PROGRAM")]
    pub previous: Option<PathBuf>,
    /// Folder for the data of Postgres and the logs, which are kept; a temporary one, removed at the end, when not given
    #[arg(long, env = "DMS_CHAOS_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Have the replicas commit leases to disk before they answer, so that a crash of Postgres may take none back
    #[arg(long, env = "DMS_CHAOS_SYNCHRONOUS_LEASES")]
    pub synchronous_leases: bool,
    /// What the replicas are.
    #[command(flatten)]
    pub service: ServiceArgs,
}

impl ChaosArgs {
    /// Checks what one flag alone cannot say.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.sabotage != Some(Sabotage::AnsweredEarly)
                || self.rounds > 0 && self.kinds().contains(&Fault::PostgresKilled),
            "sabotage: answered-early shows when Postgres is killed; leave postgres-killed among --faults and --rounds above 0"
        );
        ensure!(
            self.standby || !self.faults.contains(&Fault::PrimaryLost),
            "faults: primary-lost promotes a standby; give --standby"
        );
        Ok(())
    }

    /// Flags of `dms serve` for every replica.
    pub fn serve_flags(&self) -> Vec<String> {
        let leases = format!("--synchronous-leases={}", self.synchronous_leases);
        self.service.serve.iter().cloned().chain([leases]).collect()
    }

    /// The faults to draw from.
    pub fn kinds(&self) -> Vec<Fault> {
        let all = if self.faults.is_empty() { Fault::value_variants() } else { &self.faults };
        // A version before this one may not bear them.
        let leaves_out_clocks = self.faults.is_empty() && self.previous.is_some();
        let fits = |fault: &Fault| match fault {
            Fault::PrimaryLost => self.standby,
            fault => !(leaves_out_clocks && fault.is_of_clocks()),
        };
        all.iter().copied().filter(fits).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        chaos: ChaosArgs,
    }

    fn parse(flags: &[&str]) -> ChaosArgs {
        Program::try_parse_from(["chaos"].iter().chain(flags)).unwrap().chaos
    }

    #[test]
    fn all_faults_are_drawn_from_unless_some_are_named() {
        assert_eq!(parse(&["--standby"]).kinds(), Fault::value_variants());
        assert!(!parse(&[]).kinds().contains(&Fault::PrimaryLost));
        assert!(parse(&["--faults", "primary-lost"]).check().is_err());
        let named = parse(&["--faults", "replica-killed,row-locked"]);
        assert_eq!(named.kinds(), [Fault::ReplicaKilled, Fault::RowLocked]);
        named.check().unwrap();
        let upgrade = parse(&["--previous", "dms", "--standby"]);
        assert!(!upgrade.kinds().contains(&Fault::ClockDrift), "an earlier version may not bear it");
    }

    #[test]
    fn a_sabotage_that_only_a_crash_shows_needs_one() {
        for flags in [&["--rounds", "0"][..], &["--faults", "clients-cut"]] {
            let args = parse(&[&["--sabotage", "answered-early"], flags].concat());
            let refusal = args.check().unwrap_err().to_string();
            assert!(refusal.starts_with("sabotage: answered-early"), "{refusal}");
        }
        parse(&["--sabotage", "answered-early", "--faults", "postgres-killed"]).check().unwrap();
    }
}
