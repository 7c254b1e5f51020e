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
mod model;
mod normal;
mod readme;
mod replicas;
mod retention;
mod support;
mod waiting;
