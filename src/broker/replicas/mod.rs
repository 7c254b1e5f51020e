//! What a replica remembers of the database, and what replicas tell each other so that it stays true.

pub(super) mod cache;
pub(super) mod catalog;
pub(super) mod single_flight;
pub(super) mod wakeups;
