//! What operators see: metrics, the log, traces.

pub(crate) mod log_limit;
pub mod metrics;
pub(crate) mod spans;
pub mod telemetry;
pub(crate) mod traceparent;
