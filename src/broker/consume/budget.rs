//! What one round of a claim lane may look at and keep in memory, for all its subscriptions together.

use crate::memory::{ByteBudget, Memory, Reservation, Use};

/// Bytes of the log that one round looks at, at most, and that its batches keep in memory. What is looked at passes through memory,
/// and everybody else in the lane waits for it.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// A round with little memory may take so much.
const BYTES_MIN: usize = 2 * 1024 * 1024;

/// What a round has used so far.
#[derive(Debug)]
pub(super) struct RoundBudget {
    max: usize,
    part: ByteBudget,
    /// What was looked at, until the round ends.
    looked_at: Reservation,
    kept: usize,
}

impl RoundBudget {
    /// For a round of one of so many lanes: what it looks at and what it keeps are a half each of its lane's part.
    pub(super) fn new(memory: &Memory, lanes: usize) -> Self {
        let part = memory.part(Use::Rounds);
        let max = (part.max() / (2 * lanes.max(1))).clamp(BYTES_MIN, BYTES_MAX);
        Self { max, part: part.clone(), looked_at: part.reservation(None), kept: 0 }
    }

    /// So many bytes of segments were read or walked.
    pub(super) fn looked_at(&self, bytes: usize) {
        self.looked_at.grow_anyway(bytes);
    }

    /// A batch keeps so many bytes in memory, which are reserved until it is given up or counted as an answer.
    pub(super) fn keep(&mut self, bytes: usize) -> Reservation {
        self.kept += bytes;
        let kept = self.part.reservation(None);
        kept.grow_anyway(bytes);
        kept
    }

    /// Whether the subscriptions that have not had their turn wait for the next round: this one has had what is its own, or batches that
    /// nobody has taken yet have left it nothing.
    pub(super) fn is_spent(&self) -> bool {
        self.looked_at.bytes() >= self.max || self.kept >= self.max || self.part.free() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_reserves_what_it_looks_at_and_a_batch_what_it_keeps() {
        let memory = Memory::of_service(1 << 28, 0).expect("enough");
        let part = memory.part(Use::Rounds);
        let mut budget = RoundBudget::new(&memory, 2);
        budget.looked_at(1000);
        let batch = budget.keep(300);
        assert_eq!((part.reserved(), budget.is_spent()), (1300, false));
        drop(budget);
        assert_eq!(part.reserved(), 300, "until somebody has taken it");
        drop(batch);
        assert_eq!(part.reserved(), 0);
    }

    #[test]
    fn a_round_is_short_while_batches_of_others_wait_to_be_taken() {
        let memory = Memory::of_service(1 << 28, 0).expect("enough");
        let mut other = RoundBudget::new(&memory, 2);
        let waiting = other.keep(memory.part(Use::Rounds).max());
        assert!(RoundBudget::new(&memory, 2).is_spent());
        drop(waiting);
        assert!(!RoundBudget::new(&memory, 2).is_spent());
        assert!(other.is_spent(), "it has had its own");
    }
}
