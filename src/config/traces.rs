//! Settings of the export of traces.

use clap::Args;

use super::units;
use crate::observe::telemetry::TraceOptions;

/// Spans that are sent to a collector.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// OpenTelemetry collector for spans over OTLP/gRPC, such as http://collector:4317; no spans if not set
    #[arg(long, env = "DMS_OTLP_ENDPOINT", value_name = "URL", value_parser = units::upstream)]
    pub(crate) otlp_endpoint: Option<String>,
    /// Share of calls to trace, unless the traceparent of an authenticated caller decides, 0-1; 0 turns it off for all
    #[arg(long, env = "DMS_OTLP_SAMPLE_RATIO", value_name = "SHARE", default_value = "0.01", value_parser = units::share)]
    pub(crate) otlp_sample_ratio: f64,
}

impl TraceArgs {
    pub(super) fn options(&self, service: &'static str) -> Option<TraceOptions> {
        let endpoint = self.otlp_endpoint.clone()?;
        Some(TraceOptions { service, endpoint, sample_ratio: self.otlp_sample_ratio })
    }
}
