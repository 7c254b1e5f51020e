//! The words of the API that the history is written in.

pub use dms_client::v1::{AckOutcome, AckStatus, GroupCounters};

/// Which stream of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The messages of the queue.
    Normal,
    /// The dead letters of the group.
    DeadLetters,
}
