//! All integration tests in one binary, against a real Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acks;
mod cancelled_calls;
mod cluster;
mod configuration;
mod counters;
mod dead_letter_moves;
mod dead_letters;
mod delays;
mod dev;
mod error_table;
mod fifo;
mod groups;
mod handlers;
mod kafka_queues;
mod labels;
mod leases;
mod limits;
mod normal;
mod replicas;
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
mod retention;
mod support;
mod waiting;
