//! The ack rule: walk the entries in order; the first failure ends the walk and everything behind it fails with it.

use super::error::{Error, ErrorKind, Result};
use super::handler_fault::HandlerFault;
use super::limits::ACK_ENTRIES;

/// What a consumer says of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckStatus {
    /// Consumed.
    Success,
    /// Not consumed.
    Fail,
}

/// One delivery to settle, as the caller gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckEntry {
    /// The handler.
    pub handler: String,
    /// Its status.
    pub status: AckStatus,
}

/// Checks how many entries an acknowledgement has: 1-1000.
pub(crate) fn check_count(field: &str, count: usize) -> Result<()> {
    if ACK_ENTRIES.contains(&count) {
        return Ok(());
    }
    Err(Error::field(ErrorKind::RequestFormat, field, format!("{count} entries"), "1-1000 entries"))
}

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// Acknowledged.
    Acked,
    /// The entry said fail.
    Failed,
    /// Its handler is unparsable, expired, settled before, or of another group.
    InvalidHandler,
    /// It stands behind one of the two above.
    AfterFailure,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Acknowledged {
    /// Of each entry.
    pub outcomes: Vec<AckOutcome>,
    /// Why the walk ended at a handler, if it did: there is one [`AckOutcome::InvalidHandler`] at most.
    pub fault: Option<HandlerFault>,
}

impl Acknowledged {
    /// All entries with success.
    pub(crate) fn all(entries: usize) -> Self {
        Self { outcomes: vec![AckOutcome::Acked; entries], fault: None }
    }

    /// The entry whose handler ended the walk, and why.
    pub(crate) fn invalid(&self) -> Option<(usize, HandlerFault)> {
        self.outcomes.iter().position(|outcome| *outcome == AckOutcome::InvalidHandler).zip(self.fault)
    }
}

/// Walks the entries: `valid` says whether the handler at each index fits a live lease and was not named before.
pub(crate) fn walk(statuses: &[AckStatus], mut valid: impl FnMut(usize) -> bool) -> Vec<AckOutcome> {
    let mut ended = false;
    let mut step = |(index, status): (usize, &AckStatus)| {
        let outcome = match (ended, valid(index), status) {
            (true, _, _) => AckOutcome::AfterFailure,
            (false, false, _) => AckOutcome::InvalidHandler,
            (false, true, AckStatus::Success) => AckOutcome::Acked,
            (false, true, AckStatus::Fail) => AckOutcome::Failed,
        };
        ended |= outcome != AckOutcome::Acked;
        outcome
    };
    statuses.iter().enumerate().map(&mut step).collect()
}

#[cfg(test)]
mod tests {
    use super::AckOutcome::{Acked, AfterFailure, Failed, InvalidHandler};
    use super::AckStatus::{Fail, Success};
    use super::*;

    #[test]
    fn stops_at_the_first_failure() {
        let cases: [(&[AckStatus], Option<usize>, &[AckOutcome]); 5] = [
            (&[Success, Success], None, &[Acked, Acked]),
            (&[Success, Fail, Success], None, &[Acked, Failed, AfterFailure]),
            (&[Fail, Success], None, &[Failed, AfterFailure]),
            (&[Success, Success, Success], Some(1), &[Acked, InvalidHandler, AfterFailure]),
            (&[Success, Success], Some(0), &[InvalidHandler, AfterFailure]),
        ];
        for (statuses, bad, expected) in cases {
            assert_eq!(walk(statuses, |index| Some(index) != bad), expected);
        }
    }
}
