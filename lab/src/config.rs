//! The command line of `dms-lab`. `lab/README.md` has what `--help` says of it.

use clap::{Parser, Subcommand};

use crate::bench::args::BenchArgs;
use crate::chaos::args::ChaosArgs;

/// Measures dms, and tries to break it.
#[derive(Debug, Parser)]
#[command(name = "dms-lab", version)]
pub struct Cli {
    /// Lowest level to log: error, warn, info, debug, trace, or per module, such as info,dms_lab::chaos=debug
    #[arg(long = "log", env = "DMS_LOG", value_name = "FILTER", default_value = "info,sqlx=warn", global = true)]
    pub log: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load a service over gRPC or REST, or a peer in SQL, check that nothing is lost or doubled, and report rates, latencies and costs
    Bench(BenchArgs),
    /// Run replicas under faults with clients that record everything, and check the guarantees over the record
    Chaos(ChaosArgs),
}
