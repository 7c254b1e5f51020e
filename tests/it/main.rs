//! All integration tests in one binary, against a real Postgres.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod auth;
mod dead_letters;
mod delivery;
mod grpc;
mod isolation;
mod model;
mod net;
mod operations;
mod ordering;
mod replicas;
mod rest;
mod storage;
mod support;
