//! A delivered batch, and what is left of it.

use super::clock::Timestamp;
use super::ids::{LeaseId, SubscriptionKey};

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
