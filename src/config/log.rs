//! Settings of the log.

use clap::Args;

use crate::observe::telemetry::{LogFormat, parse_filter};

/// The log on standard error.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// Lowest level to log: error, warn, info, debug, trace, or per module, such as info,dms::broker=debug
    #[arg(long = "log", env = "DMS_LOG", value_name = "FILTER", default_value = "info,sqlx=warn", global = true, value_parser = filter)]
    pub filter: String,
    /// Form of a log line: pretty or json
    #[arg(long = "log-format", env = "DMS_LOG_FORMAT", value_name = "FORMAT", default_value = "pretty", global = true)]
    pub format: LogFormat,
}

fn filter(text: &str) -> Result<String, String> {
    parse_filter(text).map(|_| text.to_owned())
}
