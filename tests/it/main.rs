//! All integration tests in one binary, against a real Postgres.

mod cluster;
mod configuration;
mod dev;
mod support;
