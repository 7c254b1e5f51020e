//! All integration tests in one binary, against a real Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod configuration;
mod dev;
mod leases;
mod rest_bad_bodies;
mod rest_bytes;
mod rest_decisions;
mod rest_decisions_acks;
mod rest_errors;
mod rest_groups;
mod rest_messages;
mod rest_needs;
mod rest_paths;
mod rest_queues;
mod rest_tags;
mod rest_waits;
mod rest_wire;
mod support;
