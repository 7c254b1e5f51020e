//! What one round of a claim lane may look at and keep in memory, for all its subscriptions together.

use crate::memory::{Memory, Use};

/// Bytes of the log that one round looks at, at most, and that its batches keep in memory. What is looked at passes through memory,
/// and everybody else in the lane waits for it.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// A round with little memory may take so much.
const BYTES_MIN: usize = 2 * 1024 * 1024;

/// What a round has used so far.
#[derive(Debug)]
pub(super) struct RoundBudget {
    max: usize,
    looked_at: usize,
    kept: usize,
}

impl RoundBudget {
    /// For a round of one of so many lanes: what it looks at and what it keeps are a half each of its lane's part.
    pub(super) fn new(memory: &Memory, lanes: usize) -> Self {
        let max = memory.part(Use::Rounds).max() / (2 * lanes.max(1));
        Self { max: max.clamp(BYTES_MIN, BYTES_MAX), looked_at: 0, kept: 0 }
    }

    /// So many bytes of segments were read or walked.
    pub(super) fn looked_at(&mut self, bytes: usize) {
        self.looked_at += bytes;
    }

    /// A batch keeps so many bytes in memory.
    pub(super) fn kept(&mut self, bytes: usize) {
        self.kept += bytes;
    }

    /// Whether the subscriptions that have not had their turn wait for the next round.
    pub(super) fn is_spent(&self) -> bool {
        self.looked_at >= self.max || self.kept >= self.max
    }
}
