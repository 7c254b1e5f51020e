//! What one project may ask for.

use clap::Args;

use super::units::{self, ByteSize};
use crate::api::TrafficLimits;

/// The flags of [`TrafficLimits`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits of a project")]
pub struct TrafficArgs {
    /// Calls per second of one project on this replica, 0-10000000; 0 is no limit
    #[arg(long, env = "DMS_PROJECT_CALLS_PER_SECOND", value_name = "COUNT", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub(crate) project_calls_per_second: u32,
    /// Bytes per second that one project may send to and receive from this replica, 0-64GiB; 0 is no limit
    #[arg(long, env = "DMS_PROJECT_BYTES_PER_SECOND", value_name = "BYTES", default_value_t = ByteSize(0),
          value_parser = units::bytes(0, 1 << 36))]
    pub(crate) project_bytes_per_second: ByteSize,
}

impl From<&TrafficArgs> for TrafficLimits {
    fn from(args: &TrafficArgs) -> Self {
        Self { calls_per_second: args.project_calls_per_second, bytes_per_second: args.project_bytes_per_second.0 }
    }
}
