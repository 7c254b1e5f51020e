//! Consume: finds the subscription, asks its lane, and waits.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::{ClaimMessage, ClaimRequest, Granted};
use crate::broker::Broker;
use crate::broker::batching::flush_cycle;
use crate::broker::core::Core;
use crate::domain::ids::{ProjectId, SubscriptionKey};
use crate::domain::limits::RETENTION_DEFAULT;
use crate::domain::message::{ConsumeOptions, Delivery, GroupAddress, Source};
use crate::domain::queue::{Group, Queue, QueueMode};
use crate::domain::{Error, ErrorKind, Result};
use crate::memory::Answer;

/// Bytes a parked consumer counts against the lane while it is on its way in.
const REQUEST_BYTES: usize = 256;

/// Times that the bytes of messages are in memory while they are answered, beside what they keep alive: as protobuf and as JSON.
const COPIES: usize = 2;
/// What a delivery takes beside its message.
const DELIVERY_BYTES: usize = 512;

/// The subscription that an address means.
pub(in crate::broker) struct AddressedReader {
    /// `None`: dead letters of a queue without redrive, a stream that is always empty.
    pub key: Option<SubscriptionKey>,
    /// FIFO.
    pub exclusive: bool,
    /// How long its messages are kept.
    pub retention: std::time::Duration,
}

impl Broker {
    /// Leases messages to the caller, or waits until some arrive, the wait ends or the service stops; then none.
    ///
    /// # Errors
    /// `QueueNotFound`, `GroupNotFound`, `RequestFormat` for dead letters of a Kafka queue, `ConsumeFailed` for another label
    /// rule than the bound one, `Overloaded`, `Unavailable`.
    pub async fn consume(
        &self,
        address: &GroupAddress,
        options: ConsumeOptions,
        memory: &Answer,
    ) -> Result<Vec<Delivery>> {
        let GroupAddress { project, queue, group, .. } = address;
        let span = tracing::debug_span!("consume", %project, %queue, %group);
        self.lease(address, options, memory).instrument(span).await
    }

    async fn lease(&self, address: &GroupAddress, options: ConsumeOptions, memory: &Answer) -> Result<Vec<Delivery>> {
        memory.can_begin()?;
        let subscription = self.subscription(address).await?;
        let deadline = tokio::time::sleep(options.wait);
        let Some(key) = subscription.key else {
            let _ = self.core.stop_waiting.run_until_cancelled(deadline).await;
            return Ok(Vec::new());
        };
        let mut pending = self.request(&address.project, key, &subscription, options)?;
        let answer = tokio::select! {
            biased;
            answer = &mut pending.answer => answer.ok(),
            () = deadline => pending.give_up(),
            () = self.core.stop_waiting.cancelled() => pending.give_up(),
        };
        match answer {
            None => Ok(Vec::new()),
            Some(Ok(granted)) => self.deliver(granted, memory),
            Some(Err(error)) if error.kind() == ErrorKind::GroupNotFound => {
                self.core.catalog.forget(address.queue);
                self.subscription(address).await?;
                Err(error)
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// What cannot be held is refused, and released for others uncounted.
    fn deliver(&self, granted: Granted, memory: &Answer) -> Result<Vec<Delivery>> {
        let Granted { lease, deliveries, kept_bytes, kept } = granted;
        if let Err(error) = memory.grow(kept_bytes + answer_bytes(&deliveries)) {
            self.core.release(lease);
            return Err(error);
        }
        drop(kept);
        tracing::debug!(lease = %lease.id.0, messages = deliveries.len(), kept_bytes, "delivered");
        Ok(deliveries)
    }

    fn request(
        &self,
        project: &ProjectId,
        key: SubscriptionKey,
        subscription: &AddressedReader,
        options: ConsumeOptions,
    ) -> Result<PendingClaim> {
        let (reply, answer) = oneshot::channel();
        let request = ClaimRequest {
            key,
            exclusive: subscription.exclusive,
            retention: subscription.retention,
            max_messages: options.max_messages,
            lease: options.lease,
            rule: options.rule,
            caller: flush_cycle::caller(),
            reply,
            parked: false,
        };
        self.core.claim_lane(key.stream).push(project, ClaimMessage::Request(request), REQUEST_BYTES)?;
        Ok(PendingClaim { core: Arc::clone(&self.core), answer })
    }

    /// Finds the subscription that an address means.
    pub(in crate::broker) async fn subscription(&self, address: &GroupAddress) -> Result<AddressedReader> {
        let (entry, group) = self.core.catalog.group(&address.project, address.queue, address.group).await?;
        addressed(&entry.queue, &group, address.source)
    }
}

fn addressed(queue: &Queue, group: &Group, source: Source) -> Result<AddressedReader> {
    let exclusive = queue.mode == QueueMode::Fifo;
    let key = |stream| SubscriptionKey { stream, subscription: group.subscription };
    match source {
        Source::Normal => Ok(AddressedReader { key: Some(key(queue.stream)), exclusive, retention: queue.retention() }),
        Source::DeadLetters if queue.mode.is_kafka() => {
            let message = format!("queue_id: queue {} is a Kafka queue and has no dead letters", queue.id);
            Err(Error::new(ErrorKind::RequestFormat, message).about("queue_id"))
        }
        Source::DeadLetters => {
            Ok(AddressedReader { key: group.dead_letters.map(key), exclusive, retention: RETENTION_DEFAULT })
        }
    }
}

/// What an answer takes beside what its messages keep alive.
fn answer_bytes(deliveries: &[Delivery]) -> usize {
    deliveries.iter().map(|delivery| delivery.message.size_bytes() * COPIES + DELIVERY_BYTES).sum()
}

/// A claim that was asked for. When its caller goes away after it was granted, the batch is released.
struct PendingClaim {
    core: Arc<Core>,
    answer: oneshot::Receiver<Result<Granted>>,
}

impl PendingClaim {
    /// Asks no longer; what was granted in the same instant still counts.
    fn give_up(&mut self) -> Option<Result<Granted>> {
        self.answer.close();
        self.answer.try_recv().ok()
    }
}

impl Drop for PendingClaim {
    fn drop(&mut self) {
        if let Some(Ok(granted)) = self.give_up() {
            self.core.release(granted.lease);
        }
    }
}
