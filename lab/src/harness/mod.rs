//! What the benchmark and the fault suite share: the service as processes of its own, bodies that can be checked, and the
//! words of both APIs.
//!
//! Knows neither of them, and nothing of the service but its command line and its health.

pub mod args;
pub mod grpc;
pub mod payload;
pub mod process;
pub mod rest;
pub mod service;
pub mod signal;
