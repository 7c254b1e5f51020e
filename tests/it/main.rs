//! All integration tests in one binary, against a real Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod configuration;
mod dev;
mod leases;
mod model;
mod support;
