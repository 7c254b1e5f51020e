//! A delivered batch, and what is left of it.

use super::clock::Timestamp;
use super::ids::{LeaseId, SubscriptionKey};
use super::place::Place;

/// A message of one subscription: where it is and how often it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef {
    /// Its offset in the stream.
    pub offset: i64,
    /// Counted deliveries; in a lease this one is included.
    pub attempts: i32,
    /// When it was appended.
    pub appended_at: Timestamp,
}

/// One delivered batch that is not settled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub key: SubscriptionKey,
    /// Random.
    pub id: LeaseId,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Its messages that are not settled, in the order of their delivery.
    pub messages: Vec<MessageRef>,
}

impl Lease {
    /// Takes a message out; `None` when it is not, or no longer, in the lease.
    pub fn take(&mut self, offset: i64) -> Option<MessageRef> {
        let index = self.messages.iter().position(|message| message.offset == offset)?;
        Some(self.messages.remove(index))
    }

    /// Whether a message is still in the lease.
    pub fn holds(&self, offset: i64) -> bool {
        self.messages.iter().any(|message| message.offset == offset)
    }
}

/// A subscription as the broker last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// Whose it is.
    pub key: SubscriptionKey,
    /// Where its row is.
    pub place: Place,
    /// Moved by every claim: the compare-and-set guard.
    pub version: i64,
    /// Next offset never claimed.
    pub cursor: i64,
    /// No segment from the cursor on was appended earlier.
    pub cursor_time: Timestamp,
    /// The label rule the group is bound to.
    pub rule: Option<super::labels::LabelRule>,
    /// The end of the stream when the row was read.
    pub(crate) tail: i64,
    /// Whether failed messages wait.
    pub(crate) has_retries: bool,
    /// No failed message at or before this place in the order of failures waits.
    pub retry_cursor: i64,
    /// Whether a failed message may be delivered before the next new one, where both share the deliveries.
    pub failed_next: bool,
    /// Whether a batch is in flight; only looked at for subscriptions that may have one at a time.
    pub has_leases: bool,
}
