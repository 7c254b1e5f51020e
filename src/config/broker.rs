//! Settings of the message engine.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::units::{self, ByteSize, Seconds};
use crate::broker::Settings;
use crate::domain::limits::{GROUPS_PER_QUEUE_MAX, QUEUES_PER_PROJECT_MAX};

/// The flags of [`Settings`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Message engine")]
pub struct BrokerArgs {
    /// Queues a project may have, 1-100000
    #[arg(long, env = "DMS_QUEUES_PER_PROJECT", value_name = "COUNT", default_value_t = Settings::default().queues_per_project,
          value_parser = clap::value_parser!(i32).range(1..=i64::from(QUEUES_PER_PROJECT_MAX)))]
    pub queues_per_project: i32,
    /// Consumer groups a queue may have, 1-100
    #[arg(long, env = "DMS_GROUPS_PER_QUEUE", value_name = "COUNT", default_value_t = Settings::default().groups_per_queue,
          value_parser = clap::value_parser!(i32).range(1..=i64::from(GROUPS_PER_QUEUE_MAX)))]
    pub groups_per_queue: i32,
    /// Lanes that commit sends, each with up to 3 database connections, 1-64
    #[arg(long, env = "DMS_APPEND_LANES", value_name = "COUNT", default_value_t = Settings::default().append_lanes,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub append_lanes: usize,
    /// Database connections that create leases, 1-64
    #[arg(long, env = "DMS_CLAIM_LANES", value_name = "COUNT", default_value_t = Settings::default().claim_lanes,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub claim_lanes: usize,
    /// Database connections that commit acknowledgements, 1-64
    #[arg(long, env = "DMS_SETTLE_LANES", value_name = "COUNT", default_value_t = Settings::default().settle_lanes,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub settle_lanes: usize,
    /// Database connections for everything else, 1-1000
    #[arg(long, env = "DMS_POOL_CONNECTIONS", value_name = "COUNT", default_value_t = Settings::default().pool_connections,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pool_connections: u32,
    /// Bytes that may wait for one lane before calls are refused, 1MiB-64GiB; all lanes share a part of --memory-max
    #[arg(long, env = "DMS_LANE_BYTES_MAX", value_name = "BYTES", default_value_t = ByteSize(Settings::default().lane_bytes_max),
          value_parser = units::bytes(1 << 20, 1 << 36))]
    pub lane_bytes_max: ByteSize,
    /// Calls that may wait for one lane before more are refused, 1-10000000
    #[arg(long, env = "DMS_LANE_CALLS_MAX", value_name = "COUNT", default_value_t = Settings::default().lane_calls_max,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000_000))]
    pub lane_calls_max: usize,
    /// Cache of recently sent messages, 0-64GiB; at most an eighth of --memory-max, which includes it
    #[arg(long, env = "DMS_CACHE_BYTES", value_name = "BYTES", default_value_t = ByteSize(Settings::default().cache_bytes),
          value_parser = units::bytes(0, 1 << 36))]
    pub cache_bytes: ByteSize,
    /// Wait for the disk before answering a consume, so that a crash of Postgres loses no lease: true or false
    #[arg(long, env = "DMS_SYNCHRONOUS_LEASES", value_name = "BOOL", default_value_t = Settings::default().synchronous_leases,
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) synchronous_leases: bool,
    /// Interval of the search for expired leases of lost replicas and due delayed messages, 100ms-60s
    #[arg(long, env = "DMS_SWEEP_INTERVAL", value_name = "TIME", default_value_t = Seconds(Settings::default().sweep_interval),
          value_parser = units::time(Duration::from_millis(100), Duration::from_secs(60)))]
    pub sweep_interval: Seconds,
    /// Time limit of a database statement, 1s-10m
    #[arg(long, env = "DMS_STATEMENT_TIMEOUT", value_name = "TIME", default_value_t = Seconds(Settings::default().statement_timeout),
          value_parser = units::time(Duration::from_secs(1), Duration::from_secs(600)))]
    pub statement_timeout: Seconds,
}

impl From<&BrokerArgs> for Settings {
    fn from(args: &BrokerArgs) -> Self {
        Self {
            queues_per_project: args.queues_per_project,
            groups_per_queue: args.groups_per_queue,
            append_lanes: args.append_lanes,
            claim_lanes: args.claim_lanes,
            settle_lanes: args.settle_lanes,
            pool_connections: args.pool_connections,
            lane_bytes_max: args.lane_bytes_max.0,
            lane_calls_max: args.lane_calls_max,
            cache_bytes: args.cache_bytes.0,
            memory_max: Self::default().memory_max,
            synchronous_leases: args.synchronous_leases,
            sweep_interval: args.sweep_interval.0,
            statement_timeout: args.statement_timeout.0,
        }
    }
}
