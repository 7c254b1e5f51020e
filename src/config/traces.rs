//! Settings of the export of traces.

use clap::Args;

use super::units;

/// Spans that are sent to a collector.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// URL of an OpenTelemetry collector that gets spans over OTLP/gRPC, such as http://collector:4317; none are sent when not given
    #[arg(long, env = "DMS_OTLP_ENDPOINT", value_name = "URL", value_parser = units::upstream)]
    pub otlp_endpoint: Option<String>,
    /// Share of calls that are traced among those in no trace and those of callers without good credentials, 0-1; the traceparent of others
    /// says itself whether it is sampled, but with 0 nothing is
    #[arg(long, env = "DMS_OTLP_SAMPLE_RATIO", value_name = "SHARE", default_value = "0.01", value_parser = units::share)]
    pub otlp_sample_ratio: f64,
}
