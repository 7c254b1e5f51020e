//! Settings of `dms-lab bench`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::harness::args::ServiceArgs;
use crate::harness::payload::SIZE_BYTES_MIN;

/// The largest quotas that the service can have: no load is to meet one.
pub const QUEUES_MAX: i64 = 100_000;
/// Groups of a queue.
pub const GROUPS_MAX: i64 = 100;
/// Bodies of one send, all together.
const BATCH_BYTES_MAX: u64 = 512 * 1024;

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
    /// Calls that do nothing.
    Noop,
}

impl Scenario {
    /// Whether producers run while it is measured.
    pub fn sends(self) -> bool {
        matches!(self, Scenario::Produce | Scenario::Both | Scenario::Noop)
    }

    /// Whether consumers run.
    pub fn consumes(self) -> bool {
        matches!(self, Scenario::Consume | Scenario::Both)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Produce => "produce",
            Scenario::Consume => "consume",
            Scenario::Both => "both",
            Scenario::Noop => "noop",
        }
    }
}

/// What is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// The service over gRPC
    Grpc,
    /// The service through its REST gateway
    Rest,
    /// pgmq in SQL on the same Postgres, no service (needs --pgmq-sql)
    Pgmq,
    /// Plain INSERTs in SQL on the same Postgres, no service
    Raw,
}

impl System {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            System::Grpc => "grpc",
            System::Rest => "rest",
            System::Pgmq => "pgmq",
            System::Raw => "raw",
        }
    }
}

/// A comparison of `docs/benchmarks.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Comparison {
    /// Send, 1 KB in batches of 10: against plain INSERTs and pgmq
    A,
    /// Send, 200 B one by one: against pgmq, and against a call that does nothing
    B,
    /// Consume and ack, and the whole cycle with its costs (rows c, e, f): against pgmq
    C,
    /// Latency from send to consume at 50 %, 80 % and 100 % of the peak
    D,
    /// Ten groups: send against one group, deliveries against ten pgmq queues
    G,
    /// A backlog of 10^7 messages against 10^3
    H,
    /// 10^4 queues against one
    I,
    /// 10^4 idle long polls: statements, memory, wake-up
    J,
    /// A transaction held open for minutes against none
    K,
    /// One lone client against a bare single-row INSERT
    L,
    /// REST against gRPC
    M,
    /// Two replicas against one
    N,
    /// Send, 16 KB in batches of 10: against plain INSERTs and pgmq (no target)
    O,
    /// A project beside another with twenty times its load
    P,
    /// Three times the peak offered
    Q,
    /// Thousands of parked consumers beside projects that harm themselves
    R,
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
    /// Call something that does nothing
    Noop,
    /// Produce, consume and both, one after the other
    All,
}

impl ScenarioChoice {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            ScenarioChoice::All => "all",
            one => one.scenarios()[0].name(),
        }
    }

    /// In the order they run.
    pub fn scenarios(self) -> &'static [Scenario] {
        match self {
            ScenarioChoice::Produce => &[Scenario::Produce],
            ScenarioChoice::Consume => &[Scenario::Consume],
            ScenarioChoice::Both => &[Scenario::Both],
            ScenarioChoice::Noop => &[Scenario::Noop],
            ScenarioChoice::All => &[Scenario::Produce, Scenario::Consume, Scenario::Both],
        }
    }
}

/// Settings of `dms-lab bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to run
    #[arg(long, env = "DMS_BENCH_SCENARIO", value_enum, default_value = "all")]
    pub scenario: ScenarioChoice,
    /// What to load
    #[arg(long, env = "DMS_BENCH_SYSTEM", value_enum, default_value = "grpc")]
    pub system: System,
    /// Run these comparisons of docs/benchmarks.md instead, each a table of ratios, on a throw-away Postgres; of the other flags
    /// they heed --duration, --warmup, --rounds, --pgmq-sql, --program, --postgres-bin and those for `dms serve`
    #[arg(long, env = "DMS_BENCH_COMPARE", value_enum, value_name = "ROWS", value_delimiter = ',')]
    pub compare: Vec<Comparison>,
    /// Times that a comparison runs each of its loads, in turns; the median counts
    #[arg(long, env = "DMS_BENCH_ROUNDS", value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// pgmq.sql of the pgmq project, for what is compared with pgmq
    #[arg(long, env = "DMS_BENCH_PGMQ_SQL", value_name = "FILE")]
    pub pgmq_sql: Option<PathBuf>,
    /// Bytes of a message body
    #[arg(long, env = "DMS_BENCH_SIZE", value_name = "BYTES", default_value_t = 1024,
          value_parser = clap::value_parser!(u64).range(SIZE_BYTES_MIN..=BATCH_BYTES_MAX))]
    pub size: u64,
    /// Messages in one send and in one consume
    #[arg(long, env = "DMS_BENCH_BATCH", value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub batch: u32,
    /// Producers, and as many consumers; each has one call in flight
    #[arg(long, env = "DMS_BENCH_CLIENTS", value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// HTTP/2 connections that the clients share
    #[arg(long, env = "DMS_BENCH_CONNECTIONS", value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Queues that the load is spread over
    #[arg(long, env = "DMS_BENCH_QUEUES", value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=QUEUES_MAX))]
    pub queues: u32,
    /// Consumer groups of each queue
    #[arg(long, env = "DMS_BENCH_GROUPS", value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=GROUPS_MAX))]
    pub groups: u32,
    /// Messages stored before `consume` begins; 300000, but at most 1 GiB, when not given
    #[arg(long, env = "DMS_BENCH_BACKLOG", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub backlog: Option<u64>,
    /// Messages that producers of `both` may be ahead of each group; 8 batches a client when not given
    #[arg(long, env = "DMS_BENCH_LEAD", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(10..))]
    pub lead: Option<u32>,
    /// Messages a second to send, spread evenly over time; as fast as it goes when not given. Latency then counts from when a
    /// call was due
    #[arg(long, env = "DMS_BENCH_RATE", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Seconds to measure; 10, or 30 for --compare, when not given
    #[arg(long, env = "DMS_BENCH_DURATION", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub duration: Option<u64>,
    /// Seconds to run before measuring
    #[arg(long, env = "DMS_BENCH_WARMUP", value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warmup: u64,
    /// gRPC URL of a running service, such as http://127.0.0.1:50051; without it a private one is started. No variable names it:
    /// nothing is loaded that the command line does not name
    #[arg(long, value_name = "URL", value_parser = service_url)]
    pub target: Option<String>,
    /// Address of the REST gateway of that service, IP:PORT, for --system rest
    #[arg(long, value_name = "ADDRESS")]
    pub rest_target: Option<std::net::SocketAddr>,
    /// Postgres of the service: for the private one instead of a throw-away cluster, with --target only to read its figures;
    /// refused with --compare. No variable names it, DATABASE_URL least of all
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Print each report as a line of JSON
    #[arg(long, env = "DMS_BENCH_JSON")]
    pub json: bool,
    /// What a private service is.
    #[command(flatten)]
    pub service: ServiceArgs,
}

impl BenchArgs {
    /// Checks what one flag alone cannot say.
    pub fn check(&self) -> Result<()> {
        if self.compare.is_empty() { self.check_load() } else { self.check_comparison() }
    }

    /// A comparison loads nothing that is somebody's.
    fn check_comparison(&self) -> Result<()> {
        ensure!(self.target.is_none(), "target: a comparison starts services of its own; leave --target out");
        ensure!(
            self.database_url.is_none(),
            "database-url: a comparison runs on a throw-away Postgres of its own; leave --database-url out"
        );
        Ok(())
    }

    fn check_load(&self) -> Result<()> {
        ensure!(
            self.target.is_none() || self.system != System::Rest || self.rest_target.is_some(),
            "rest-target: not given; --system rest with --target needs the address of the gateway"
        );
        self.check_system()?;
        let batch_bytes = self.size * u64::from(self.batch);
        ensure!(
            batch_bytes <= BATCH_BYTES_MAX,
            "size: {} bytes in batches of {} are {batch_bytes} bytes, more than {}",
            self.size,
            self.batch,
            BATCH_BYTES_MAX
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

    /// Not every system has every call.
    fn check_system(&self) -> Result<()> {
        let system = self.system.name();
        let runs = |scenario| self.scenario.scenarios().contains(&scenario);
        let consumes = self.scenario.scenarios().iter().any(|scenario| scenario.consumes());
        ensure!(
            self.system != System::Raw || !consumes,
            "scenario: {} consumes and --system raw only inserts; give --scenario produce",
            self.scenario.name()
        );
        ensure!(
            self.system == System::Grpc || !runs(Scenario::Noop),
            "scenario: noop is a call of gRPC and --system is {system}; give --system grpc"
        );
        ensure!(
            self.groups == 1 || matches!(self.system, System::Grpc | System::Rest),
            "groups: {} groups, but --system {system} has none; give --groups 1, or --system grpc or rest",
            self.groups
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
        Duration::from_secs(self.duration.unwrap_or(if self.compare.is_empty() { 10 } else { 30 }))
    }

    /// How long to run before measuring.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs(self.warmup)
    }
}

/// Reads the URL of a gRPC service.
fn service_url(text: &str) -> Result<String, String> {
    let uri: Option<http::Uri> = text.parse().ok();
    let is_meant = |uri: &http::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    match uri.filter(is_meant) {
        Some(_) => Ok(text.to_owned()),
        None => Err("give http://HOST:PORT or https://HOST:PORT".to_owned()),
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

    #[test]
    fn systems_are_asked_only_for_what_they_have() {
        for (flags, named) in [
            (&["--system", "raw"][..], "scenario: all consumes and --system raw only inserts"),
            (&["--system", "raw", "--scenario", "both"], "scenario: both consumes"),
            (&["--system", "rest", "--scenario", "noop"], "scenario: noop is a call of gRPC and --system is rest"),
            (&["--system", "pgmq", "--groups", "2"], "groups: 2 groups, but --system pgmq has none"),
            (&["--system", "raw", "--scenario", "produce", "--groups", "3"], "groups: 3 groups"),
        ] {
            let refusal = parse(flags).check().unwrap_err().to_string();
            assert!(refusal.starts_with(named), "{refusal}");
        }
        for flags in [
            &["--system", "raw", "--scenario", "produce"][..],
            &["--scenario", "noop"],
            &["--system", "pgmq"],
            &["--system", "rest", "--groups", "2"],
        ] {
            parse(flags).check().unwrap();
        }
    }

    #[test]
    fn comparisons_use_nothing_that_is_there() {
        for (flag, value) in [("--database-url", "postgres://db/x"), ("--target", "http://127.0.0.1:1")] {
            let refusal = parse(&["--compare", "m", flag, value]).check().unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("{}: a comparison", &flag[2..])), "{refusal}");
        }
        parse(&["--compare", "m,n"]).check().unwrap();
    }
}
