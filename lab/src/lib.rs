//! `dms-lab`: what measures `dms` and tries to break it, and is never shipped with it.
//!
//! - `bench` loads a service, or a peer in SQL, proves the results right and reports rates, latencies and costs.
//! - `chaos` runs replicas under faults with clients that record everything, and checks the guarantees over the record.
//! - `harness` is what both share: the service as processes, bodies that can be checked, the words of the REST API.
//! - `sql` has the statements: figures, baselines, faults and sabotages.
//!
//! It knows the service by its API and by its processes: this crate does not depend on the crate `dms`.

pub mod bench;
pub mod chaos;
pub mod config;
pub mod harness;
mod interrupt;
pub mod sql;
