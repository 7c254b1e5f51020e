//! Queues, groups, tags, and the counters of groups.

pub mod counters;
pub mod deletion;
pub mod groups;
pub mod queues;
pub(super) mod rows;
pub mod tags;
