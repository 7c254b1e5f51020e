//! `dms`: DMS v1.0 message queues on Postgres.
//!
//! ```text
//! REST JSON -> gateway -> gRPC (api) -> broker -> store -> Postgres
//! gRPC --------------------^
//! ```
//!
//! Imports point one way: `gateway` knows only the generated clients and the error table; `api` knows `auth` and `broker`;
//! `broker` knows `store`; all know `domain`, which knows nothing of the project, count in `observe::metrics`,
//! and say in `observe::spans` where they are in a trace.

pub mod api;
pub mod app;
pub mod auth;
pub mod broker;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod gateway;
pub mod memory;
pub mod net;
pub mod observe;
mod proto;
pub mod reload;
pub mod store;
