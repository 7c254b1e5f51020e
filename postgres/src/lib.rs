//! A private Postgres server for `dms dev`, the benchmark and the tests: found on the machine, started as a child process,
//! stopped with us.
//!
//! - `binaries` finds `initdb` and `postgres`; `account` is the user they run as, since Postgres refuses to run as root.
//! - `folders` is where a cluster lives: a kept data directory, or a throw-away one.
//! - `cluster` puts it together; `standby` copies it.
//! - `process` runs a server so that it cannot outlive this process; `environment` is what such a server gets of our variables.
//!
//! The server listens on a unix socket in a folder of mode 0700 only, so nobody else on the machine reaches it.

mod account;
mod binaries;
mod cluster;
mod environment;
mod folders;
mod process;
mod standby;

pub use binaries::{Binaries, find_binaries};
pub use cluster::{Cluster, ClusterOptions};
pub use process::Launch;
