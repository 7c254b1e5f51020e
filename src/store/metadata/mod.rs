//! Queues, groups, tags, and the counters of groups.

pub(crate) mod counters;
pub mod deletion;
pub(crate) mod groups;
pub mod queues;
pub(super) mod rows;
pub mod tags;
