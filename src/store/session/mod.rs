//! Sessions with Postgres: how they begin, what lanes hold, locks, notifications, the clock, errors.

pub mod clock;
pub(super) mod connect;
pub mod connection;
pub mod leadership;
pub mod notifications;
pub mod sqlstate;
pub mod statement;
pub(super) mod timestamp;
