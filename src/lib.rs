//! `dms`: DMS v1.0 message queues on Postgres.
//!
//! ```text
//! REST JSON -> gateway -> gRPC (api) -> broker -> store -> Postgres
//! gRPC --------------------^
//! ```
//!
//! Imports point one way: `gateway` knows only the generated clients and the error table; `api` knows `auth` and `broker`;
//! `broker` knows `store`; all know `domain`, which knows nothing of the project, count in `metrics`, and
//! say in `spans` where they are in a trace.

pub mod admin;
pub mod api;
pub mod auth;
pub mod broker;
pub mod compression;
pub mod config;
pub mod dev;
pub mod doctor;
pub mod domain;
pub mod fetch;
pub mod gateway;
pub mod log_limit;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod proto;
pub mod readiness;
pub mod serve;
pub mod server;
pub mod shutdown;
pub mod spans;
pub mod standalone;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod traceparent;
pub mod upstream;
pub mod watched;
