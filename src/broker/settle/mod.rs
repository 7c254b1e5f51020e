//! Settles deliveries: acknowledgements, expired leases, batches whose caller went away.
//!
//! A batch acknowledged whole is one row deleted, many batches in one statement. Everything else takes the transaction of
//! [`store::settlement`].

mod lane;
mod pending;

use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

pub use self::lane::run;
pub use self::pending::Pending;

use super::{Broker, rounds};
use crate::domain::handler::Handler;
use crate::domain::ids::SubscriptionKey;
use crate::domain::message::GroupAddress;
use crate::domain::settle::{AckEntry, AckOutcome, AckStatus};
use crate::domain::{Error, ErrorKind, Result};
use crate::store::leases::LeaseKey;

/// Bytes one entry counts against the lane.
const ENTRY_BYTES: usize = 64;
/// Bytes a lease counts that is settled without a call: one transaction takes about two thousand.
pub const LEASE_BYTES: usize = 1024;
/// Bytes of messages that become dead letters in one transaction, unless a single acknowledgement or lease has more.
const DYING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One acknowledgement.
#[derive(Debug)]
pub struct Ack {
    /// The reader that the caller named.
    pub key: SubscriptionKey,
    /// FIFO: consumers wait for the batch in flight.
    pub exclusive: bool,
    /// Parsed handlers (`None`: unparsable) and statuses, in order.
    pub entries: Vec<(Option<Handler>, AckStatus)>,
    /// The span of the call.
    pub caller: Span,
    /// Answered after the commit.
    pub reply: oneshot::Sender<Result<Vec<AckOutcome>>>,
}

/// What arrives in the queue of a settle lane.
#[derive(Debug)]
pub enum SettleRequest {
    /// An acknowledgement.
    Ack(Ack),
    /// Leases of one reader that have ended: their messages have failed.
    Expire(SubscriptionKey, Vec<LeaseKey>),
    /// A batch that no consumer has seen: available again, and not counted.
    Release(LeaseKey),
}

impl SettleRequest {
    /// Whose deliveries it settles.
    pub fn key(&self) -> SubscriptionKey {
        match self {
            Self::Ack(ack) => ack.key,
            Self::Expire(key, _) => *key,
            Self::Release(lease) => lease.subscription,
        }
    }

    /// The span of the call, if it is one.
    fn caller(&self) -> Option<&Span> {
        match self {
            Self::Ack(ack) => Some(&ack.caller),
            Self::Expire(..) | Self::Release(_) => None,
        }
    }
}

impl Broker {
    /// Settles deliveries in order; what became of each entry.
    ///
    /// # Errors
    /// `HandlerInvalid` or `HandlerMismatch` when the first handler is bad (nothing changes then), `QueueNotFound`,
    /// `GroupNotFound`, `RequestFormat`, `Overloaded`, `Unavailable` (the entries may or may not have been settled).
    pub async fn ack(&self, address: &GroupAddress, entries: Vec<AckEntry>) -> Result<Vec<AckOutcome>> {
        let GroupAddress { project, queue, group, .. } = address;
        let span = tracing::debug_span!("ack", %project, %queue, %group, entries = entries.len());
        self.settle(address, entries).instrument(span).await
    }

    async fn settle(&self, address: &GroupAddress, entries: Vec<AckEntry>) -> Result<Vec<AckOutcome>> {
        let reader = self.reader(address).await?;
        let parsed: Vec<_> = entries.iter().map(|entry| (Handler::parse(&entry.handler), entry.status)).collect();
        let first = parsed.first().and_then(|(handler, _)| *handler);
        let Some(key) = reader.key else { return Err(bad_first(first, None)) };
        let (reply, answer) = oneshot::channel();
        let bytes = parsed.len() * ENTRY_BYTES;
        let ack = Ack { key, exclusive: reader.exclusive, entries: parsed, caller: rounds::caller(), reply };
        self.core.settle_lane(key.stream).push(&address.project, SettleRequest::Ack(ack), bytes)?;
        let outcomes = answer.await.map_err(|_| Error::unavailable("the service is shutting down"))??;
        match outcomes.first() {
            Some(AckOutcome::InvalidHandler) => Err(bad_first(first, Some(key))),
            _ => Ok(outcomes),
        }
    }
}

/// The error for a request whose first handler is bad.
fn bad_first(handler: Option<Handler>, key: Option<SubscriptionKey>) -> Error {
    match handler {
        Some(handler) if Some(handler.key) != key => {
            let message = "entries[0].handler: of another queue, group or stream than the one named";
            Error::new(ErrorKind::HandlerMismatch, message).about("entries[0].handler")
        }
        _ => {
            let message = "entries[0].handler: does not exist: unparsable, its lease has ended, or settled before";
            Error::new(ErrorKind::HandlerInvalid, message).about("entries[0].handler")
        }
    }
}
