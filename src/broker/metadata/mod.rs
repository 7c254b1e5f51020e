//! Queues, groups, tags and counters: calls that no lane serves.

pub(super) mod admin;
pub(super) mod counters;
pub(super) mod tags;
