//! What operators see: metrics, the log, traces.

pub mod log_limit;
pub mod metrics;
pub mod spans;
pub mod telemetry;
pub mod traceparent;
