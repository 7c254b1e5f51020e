//! What one round of a claim lane may look at and keep in memory, for all its subscriptions together.

/// Bytes of the log that one round looks at. What is looked at passes through memory, and everybody else in the lane waits for it.
const LOOKED_AT_MAX: usize = 32 * 1024 * 1024;
/// Bytes that the batches of one round keep in memory.
const KEPT_MAX: usize = 32 * 1024 * 1024;

/// What a round has used so far.
#[derive(Debug, Default)]
pub(super) struct RoundBudget {
    looked_at: usize,
    kept: usize,
}

impl RoundBudget {
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
        self.looked_at >= LOOKED_AT_MAX || self.kept >= KEPT_MAX
    }
}
