//! Settles deliveries: acknowledgements, expired leases, batches whose caller went away.
//!
//! A batch acknowledged whole is one row deleted, many batches in one statement. Everything else takes the transaction of
//! [`crate::store::subscriptions::settlement`].

mod lane;
mod pending;
pub(super) mod settlement_plan;

use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

pub(super) use self::lane::run;
pub(super) use self::pending::Pending;

use super::Broker;
use super::batching::flush_cycle;
use crate::domain::handler::Handler;
use crate::domain::handler_fault::HandlerFault;
use crate::domain::ids::SubscriptionKey;
use crate::domain::message::GroupAddress;
use crate::domain::settle::{AckEntry, AckOutcome, AckStatus, Acknowledged};
use crate::domain::{Error, ErrorKind, Result};
use crate::store::subscriptions::leases::{self, LeaseKey};

/// Bytes one entry counts against the lane.
const ENTRY_BYTES: usize = 64;
/// Bytes a lease counts that is settled without a call: one transaction takes about two thousand.
pub(super) const LEASE_BYTES: usize = 1024;
/// Bytes of messages that become dead letters in one transaction, unless a single acknowledgement or lease has more.
const DYING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One acknowledgement.
#[derive(Debug)]
pub(super) struct Ack {
    /// The subscription that the caller named.
    pub key: SubscriptionKey,
    /// FIFO: consumers wait for the batch in flight.
    pub exclusive: bool,
    /// Parsed handlers (`None`: unparsable) and statuses, in order.
    pub entries: Vec<(Option<Handler>, AckStatus)>,
    /// The span of the call.
    pub caller: Span,
    /// Answered after the commit.
    pub reply: oneshot::Sender<Result<Acknowledged>>,
}

/// What arrives in the queue of a settle lane.
#[derive(Debug)]
pub(super) enum SettleRequest {
    /// An acknowledgement.
    Ack(Ack),
    /// Leases of one subscription that have ended: their messages have failed.
    Expire(SubscriptionKey, Vec<LeaseKey>),
    /// A batch that no consumer has seen: available again, and not counted.
    Release(LeaseKey),
}

impl SettleRequest {
    /// Whose deliveries it settles.
    pub(super) fn key(&self) -> SubscriptionKey {
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
    /// Settles deliveries in order; what became of each entry, and why the handler was not taken that ended the walk.
    ///
    /// # Errors
    /// `HandlerInvalid` or `HandlerMismatch` when the first handler is bad (nothing changes then), `QueueNotFound`,
    /// `GroupNotFound`, `RequestFormat`, `Overloaded`, `Unavailable` (the entries may or may not have been settled).
    pub async fn ack(
        &self,
        address: &GroupAddress,
        entries: Vec<AckEntry>,
    ) -> Result<(Vec<AckOutcome>, Option<Error>)> {
        let GroupAddress { project, queue, group, .. } = address;
        let span = tracing::debug_span!("ack", %project, %queue, %group, entries = entries.len());
        self.settle(address, entries).instrument(span).await
    }

    async fn settle(&self, address: &GroupAddress, entries: Vec<AckEntry>) -> Result<(Vec<AckOutcome>, Option<Error>)> {
        let subscription = self.subscription(address).await?;
        let parsed: Vec<_> = entries.iter().map(|entry| (Handler::parse(&entry.handler), entry.status)).collect();
        let Some(key) = subscription.key else { return Err(without_dead_letters(&parsed)) };
        let (reply, answer) = oneshot::channel();
        let bytes = parsed.len() * ENTRY_BYTES;
        let ack = Ack { key, exclusive: subscription.exclusive, entries: parsed, caller: flush_cycle::caller(), reply };
        self.core.settle_lane(key.stream).push(&address.project, SettleRequest::Ack(ack), bytes)?;
        let acknowledged = answer.await.map_err(|_| Error::unavailable("the service is shutting down"))??;
        let Some((entry, fault)) = acknowledged.invalid() else { return Ok((acknowledged.outcomes, None)) };
        let handler = Handler::parse(&entries[entry].handler);
        let why = self.explained(address, fault, handler).await.error(entry);
        if entry == 0 { Err(why) } else { Ok((acknowledged.outcomes, Some(why))) }
    }

    /// What became of the delivery whose lease is gone: by the id of the lease, or else by where the message is now.
    async fn explained(&self, address: &GroupAddress, fault: HandlerFault, handler: Option<Handler>) -> HandlerFault {
        let Some(handler) = handler else { return fault };
        let fault = fault.by_lease_id(handler, self.core.clock.now());
        match fault {
            HandlerFault::EndedOrSettled { at: Some(at) } if self.is_unacknowledged(address, handler).await => {
                HandlerFault::LeaseEnded { at }
            }
            known => known,
        }
    }

    /// Whether the message waits for another delivery, or has been delivered again. No, when that cannot be found out now.
    async fn is_unacknowledged(&self, address: &GroupAddress, handler: Handler) -> bool {
        let Ok(_share) = self.core.pool_shares.enter(&address.project).await else { return false };
        let found = leases::is_unacknowledged(&self.core.store.pool, handler.key, handler.offset).await;
        found.inspect_err(|error| tracing::debug!(%error, "a refused handler is not explained")).unwrap_or_default()
    }
}

/// The error for dead letters of a queue that has none.
fn without_dead_letters(entries: &[(Option<Handler>, AckStatus)]) -> Error {
    match entries.first() {
        Some((Some(_), _)) => {
            let message = "entries[0].handler: of no dead letter of this group: its queue has no redrive policy";
            Error::new(ErrorKind::HandlerMismatch, message).about("entries[0].handler")
        }
        _ => HandlerFault::Unparsable.error(0),
    }
}
