//! All integration tests in one binary, against a real Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod configuration;
mod counters;
mod delays;
mod dev;
mod error_table;
mod kafka_queues;
mod labels;
mod leases;
mod limits;
mod replicas;
mod retention;
mod support;
