//! Settles deliveries: acknowledgements, expired leases, batches whose caller went away.
//!
//! A batch acknowledged whole is one row deleted, many batches in one statement. Everything else takes the transaction of
//! [`store::settlement`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use super::cache::Epoch;
use super::core::Core;
use super::fate::{Decided, Op, Present, decide};
use super::lane::LaneQueue;
use super::rounds::Round;
use super::{Broker, rounds};
use crate::domain::handler::Handler;
use crate::domain::ids::SubscriptionKey;
use crate::domain::message::GroupAddress;
use crate::domain::settle::{AckEntry, AckOutcome, AckStatus};
use crate::domain::{Error, ErrorKind, Result};
use crate::metrics::{Lane, SettledCounts};
use crate::store;
use crate::store::connection::{Durability, LaneConnection, flush};
use crate::store::leases::LeaseKey;
use crate::store::settlement::Settled;

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
    /// Leases that have ended: their messages have failed.
    Expire(Vec<LeaseKey>),
    /// A batch that no consumer has seen: available again, and not counted.
    Release(LeaseKey),
}

impl SettleRequest {
    /// The span of the call, if it is one.
    fn caller(&self) -> Option<&Span> {
        match self {
            Self::Ack(ack) => Some(&ack.caller),
            Self::Expire(_) | Self::Release(_) => None,
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

/// Settles deliveries until the lane is closed and empty.
pub async fn run(core: Arc<Core>, queue: Arc<LaneQueue<SettleRequest>>) {
    let mut connection = LaneConnection::new(&core.store, "dms-settle", Durability::Synchronous);
    while let Some(requests) = queue.next().await {
        let callers = || requests.iter().filter_map(SettleRequest::caller);
        let round = Round::begin(Lane::Settle, requests.len(), callers());
        round.serves(callers());
        settle_all(&core, &mut connection, requests).instrument(round.span()).await;
        round.end();
    }
    connection.close().await;
}

async fn settle_all(core: &Core, connection: &mut LaneConnection, requests: Vec<SettleRequest>) {
    let (begun, calls) = (Instant::now(), requests.len());
    let (whole, mut rest) = split_whole(requests);
    if !whole.is_empty() {
        rest.splice(0..0, settle_whole(core, connection, whole).await);
    }
    if !rest.is_empty() {
        settle_rest(core, connection, rest).await;
    }
    core.metrics.lanes().flushed(Lane::Settle, calls, 0, begun.elapsed());
}

/// Sets apart acknowledgements of a whole batch with success, one per lease.
fn split_whole(requests: Vec<SettleRequest>) -> (Vec<(LeaseKey, Ack)>, Vec<SettleRequest>) {
    let (mut whole, mut rest, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for request in requests {
        match request {
            SettleRequest::Ack(ack) => match whole_batch(&ack) {
                Some(lease) if seen.insert(lease) => whole.push((lease, ack)),
                _ => rest.push(SettleRequest::Ack(ack)),
            },
            other => rest.push(other),
        }
    }
    (whole, rest)
}

/// The lease that an acknowledgement names every message of, all with success.
fn whole_batch(ack: &Ack) -> Option<LeaseKey> {
    let first = ack.entries.first()?.0?;
    let len = usize::from(first.batch_len);
    let fits = |(handler, status): &(Option<Handler>, AckStatus)| {
        let same = |handler: Handler| handler.lease == first.lease && handler.key == ack.key;
        *status == AckStatus::Success && handler.is_some_and(same)
    };
    let offsets: BTreeSet<i64> = ack.entries.iter().filter_map(|(handler, _)| Some((*handler)?.offset)).collect();
    let all = ack.entries.len() == len && offsets.len() == len && ack.entries.iter().all(fits);
    all.then_some(LeaseKey { subscription: ack.key, id: first.lease })
}

/// Deletes whole leases; returns the acknowledgements that have to be looked at more closely.
async fn settle_whole(core: &Core, connection: &mut LaneConnection, whole: Vec<(LeaseKey, Ack)>) -> Vec<SettleRequest> {
    let offsets = |ack: &Ack| ack.entries.iter().filter_map(|(handler, _)| Some((*handler)?.offset)).collect();
    let leases: Vec<(LeaseKey, Vec<i64>)> = whole.iter().map(|(lease, ack)| (*lease, offsets(ack))).collect();
    let now = core.clock.now();
    let deleted = flush!(connection, conn => store::leases::delete_whole(conn, &leases, now));
    let deleted: HashSet<_> = match deleted {
        Ok(deleted) => deleted.into_iter().collect(),
        Err(error) => {
            whole.into_iter().for_each(|(_, ack)| drop(ack.reply.send(Err(error.clone()))));
            return Vec::new();
        }
    };
    let gone = whole.iter().filter(|(lease, _)| deleted.contains(&lease.id));
    let acked = gone.map(|(_, ack)| ack.entries.len()).sum();
    core.metrics.messages().settled(SettledCounts { acked, ..SettledCounts::default() });
    let mut rest = Vec::new();
    for (lease, ack) in whole {
        if !deleted.contains(&lease.id) {
            rest.push(SettleRequest::Ack(ack));
            continue;
        }
        core.timers.remove(lease.id);
        if ack.exclusive {
            core.freed(lease);
        }
        drop(ack.reply.send(Ok(vec![AckOutcome::Acked; ack.entries.len()])));
    }
    rest
}

/// Settles deliveries one by one. When they cannot be settled together for another reason than the state of the database, or are
/// too much for one transaction, each half is tried: a row that cannot be read must not fail the others.
async fn settle_rest(core: &Core, connection: &mut LaneConnection, requests: Vec<SettleRequest>) {
    let (ops, mut replies) = into_ops(requests);
    let mut parts: Vec<_> = std::iter::once(0..ops.len()).collect();
    while let Some(part) = parts.pop() {
        let settled = settle_ops(core, connection, &ops[part.clone()]).await;
        let is_worth_splitting = match &settled {
            Ok(settled) => settled.is_none(),
            Err(error) => error.kind() != ErrorKind::Unavailable,
        };
        if is_worth_splitting && part.len() > 1 {
            let middle = part.start + part.len() / 2;
            parts.extend([middle..part.end, part.start..middle]);
            continue;
        }
        let of_part = part.clone().filter_map(|index| Some((index - part.start, replies.remove(&index)?)));
        let settled = settled.and_then(|settled| settled.ok_or_else(|| Error::internal("one batch was not settled")));
        answer(core, settled, of_part.collect::<Vec<_>>());
    }
}

/// What was settled, and the epoch of the cache before.
type Done = (Epoch, Settled, Decided);

async fn settle_ops(core: &Core, connection: &mut LaneConnection, ops: &[Op]) -> Result<Option<Done>> {
    let keys: Vec<LeaseKey> = ops.iter().flat_map(Op::leases).collect::<BTreeSet<_>>().into_iter().collect();
    let now = core.clock.now();
    core.ensure_partitions(now).await?;
    let at = Present { now, expiry_now: core.clock.expiry_now() };
    let epoch = core.cache.epoch();
    let cached = |stream, at| core.cache.message(stream, at);
    let dying_bytes_max = if ops.len() > 1 { DYING_BYTES_MAX } else { usize::MAX };
    let decide = |leases, policies: &[_]| decide(ops, leases, policies, at);
    let settled =
        flush!(connection, conn => store::settlement::settle(conn, &keys, now, decide, cached, dying_bytes_max))?;
    Ok(settled.map(|(settled, decided)| (epoch, settled, decided)))
}

/// Tells the callers, and whoever the change concerns.
fn answer(
    core: &Core,
    settled: Result<Done>,
    replies: impl IntoIterator<Item = (usize, oneshot::Sender<Result<Vec<AckOutcome>>>)>,
) {
    match settled {
        Ok((epoch, settled, mut decided)) => {
            core.metrics.messages().settled(decided.counts);
            after_settling(core, epoch, settled);
            for (index, reply) in replies {
                drop(reply.send(Ok(decided.outcomes.remove(&index).unwrap_or_default())));
            }
        }
        Err(error) => replies.into_iter().for_each(|(_, reply)| drop(reply.send(Err(error.clone())))),
    }
}

type Replies = BTreeMap<usize, oneshot::Sender<Result<Vec<AckOutcome>>>>;

/// What there is to settle, each lease that has ended by itself.
fn into_ops(requests: Vec<SettleRequest>) -> (Vec<Op>, Replies) {
    let (mut ops, mut replies) = (Vec::new(), BTreeMap::new());
    for request in requests {
        match request {
            SettleRequest::Ack(ack) => {
                replies.insert(ops.len(), ack.reply);
                ops.push(Op::Ack { key: ack.key, entries: ack.entries });
            }
            SettleRequest::Expire(leases) => ops.extend(leases.into_iter().map(Op::Expire)),
            SettleRequest::Release(lease) => ops.push(Op::Release(lease)),
        }
    }
    (ops, replies)
}

fn after_settling(core: &Core, epoch: Epoch, settled: Settled) {
    core.metrics.messages().dead_letters_lost(settled.lost);
    settled.ended.into_iter().for_each(|lease| core.timers.remove(lease));
    settled.changed.into_iter().for_each(|key| core.changed(key));
    settled.dead_letters.into_iter().for_each(|segment| core.appended(epoch, segment));
}
