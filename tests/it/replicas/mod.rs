//! Several replicas on one database, their clocks, and what happens when one of them or the database goes.

mod as_one;
mod clock_jumps;
mod clock_steps;
mod failover;
pub(crate) mod idle;
mod leadership;
mod look_ups;
mod outage;
mod shutdown;
