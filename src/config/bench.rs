//! Settings of `dms bench`.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::{BrokerArgs, PostgresArgs};
use crate::domain::limits;

/// The smallest message the payload generator can write.
pub const SIZE_BYTES_MIN: u64 = 160;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Sends only.
    Produce,
    /// Consumes and acks a backlog that was stored before.
    Consume,
    /// Sends, consumes and acks at the same time.
    Both,
}

impl Scenario {
    /// Whether producers run while it is measured.
    pub fn sends(self) -> bool {
        self != Scenario::Consume
    }

    /// Whether consumers run.
    pub fn consumes(self) -> bool {
        self != Scenario::Produce
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Produce => "produce",
            Scenario::Consume => "consume",
            Scenario::Both => "both",
        }
    }
}

/// The scenarios to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScenarioChoice {
    /// Send only
    Produce,
    /// Consume and ack a backlog stored before
    Consume,
    /// Send, consume and ack at the same time
    Both,
    /// The three of them, one after the other
    All,
}

impl ScenarioChoice {
    /// In the order they run.
    pub fn scenarios(self) -> &'static [Scenario] {
        match self {
            ScenarioChoice::Produce => &[Scenario::Produce],
            ScenarioChoice::Consume => &[Scenario::Consume],
            ScenarioChoice::Both => &[Scenario::Both],
            ScenarioChoice::All => &[Scenario::Produce, Scenario::Consume, Scenario::Both],
        }
    }
}

/// Settings of `dms bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to run
    #[arg(long, env = "DMS_BENCH_SCENARIO", value_enum, default_value = "all")]
    pub scenario: ScenarioChoice,
    /// Bytes of a message body
    #[arg(long, env = "DMS_BENCH_SIZE", value_name = "BYTES", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(SIZE_BYTES_MIN..=limits::BATCH_BYTES_MAX as u64))]
    pub size: u64,
    /// Messages in one send and in one consume
    #[arg(long, env = "DMS_BENCH_BATCH", value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub batch: u32,
    /// Producers, and as many consumers; each has one call in flight
    #[arg(long, env = "DMS_BENCH_CLIENTS", value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// HTTP/2 connections that the clients share
    #[arg(long, env = "DMS_BENCH_CONNECTIONS", value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Queues that the load is spread over
    #[arg(long, env = "DMS_BENCH_QUEUES", value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=limits::QUEUES_PER_PROJECT_MAX as i64))]
    pub queues: u32,
    /// Consumer groups of each queue
    #[arg(long, env = "DMS_BENCH_GROUPS", value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=limits::GROUPS_PER_QUEUE_MAX as i64))]
    pub groups: u32,
    /// Messages stored before `consume` begins; 300000, but at most 1 GiB, when not given
    #[arg(long, env = "DMS_BENCH_BACKLOG", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub backlog: Option<u64>,
    /// Messages that producers of `both` may be ahead of each group; 8 batches a client when not given
    #[arg(long, env = "DMS_BENCH_LEAD", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(10..))]
    pub lead: Option<u32>,
    /// Seconds to measure
    #[arg(long, env = "DMS_BENCH_DURATION", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub duration: u64,
    /// Seconds to run before measuring
    #[arg(long, env = "DMS_BENCH_WARMUP", value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warmup: u64,
    /// gRPC URL of a running service, such as http://127.0.0.1:50051; without it a private one is started
    #[arg(long, env = "DMS_BENCH_TARGET", value_name = "URL", value_parser = super::units::upstream)]
    pub target: Option<String>,
    /// Postgres of the service: for the private one instead of a throw-away cluster, with --target only to read its figures
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Print each report as a line of JSON
    #[arg(long, env = "DMS_BENCH_JSON")]
    pub json: bool,
    /// Which server to run for a private service.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// The message engine of a private service.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

impl BenchArgs {
    /// Checks what one flag alone cannot say.
    pub fn check(&self) -> Result<()> {
        let batch_bytes = self.size * u64::from(self.batch);
        ensure!(
            batch_bytes <= limits::BATCH_BYTES_MAX as u64,
            "size: {} bytes in batches of {} are {batch_bytes} bytes, more than {}",
            self.size,
            self.batch,
            limits::BATCH_BYTES_MAX
        );
        let readers = u64::from(self.queues) * u64::from(self.groups);
        let consumes = self.scenario.scenarios().iter().any(|scenario| scenario.consumes());
        ensure!(
            !consumes || u64::from(self.clients) >= readers,
            "clients: {} is fewer than the {readers} groups of all queues; give at least one consumer to each",
            self.clients
        );
        Ok(())
    }

    /// Messages to store before `consume`.
    pub fn backlog(&self) -> u64 {
        const BYTES_MAX: u64 = 1 << 30;
        self.backlog.unwrap_or_else(|| (BYTES_MAX / self.size).clamp(1, 300_000))
    }

    /// How far producers of `both` may be ahead of each group.
    pub fn lead(&self) -> u32 {
        self.lead.unwrap_or(8 * self.clients * self.batch).max(self.batch)
    }

    /// How long to measure.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.duration)
    }

    /// How long to run before measuring.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs(self.warmup)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(flags: &[&str]) -> BenchArgs {
        Program::try_parse_from(["bench"].iter().chain(flags)).unwrap().bench
    }

    #[test]
    fn defaults_pass_the_check() {
        let args = parse(&[]);
        args.check().unwrap();
        assert_eq!((args.backlog(), args.lead()), (300_000, 2_560));
    }

    #[test]
    fn large_messages_shrink_the_backlog() {
        assert_eq!(parse(&["--size", "16384"]).backlog(), 65_536);
    }

    #[test]
    fn batches_over_the_limit_are_refused() {
        let refusal = parse(&["--size", "60000"]).check().unwrap_err().to_string();
        assert!(refusal.starts_with("size: 60000 bytes in batches of 10"), "{refusal}");
    }

    #[test]
    fn every_group_needs_a_consumer() {
        assert!(parse(&["--queues", "20", "--groups", "2"]).check().is_err());
        parse(&["--queues", "20", "--groups", "2", "--scenario", "produce"]).check().unwrap();
    }
}
