//! What operators start, set, see and ask.

mod configuration;
mod dev;
mod doctor;
mod healthcheck;
mod log_filter;
mod metrics;
mod observability;
mod otlp;
mod traces;
