//! The settle lane: commits what has been settled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use foldhash::HashSet;
use tracing::Instrument as _;

use super::{Ack, DYING_BYTES_MAX, Pending, SettleRequest};
use crate::broker::ack::settlement_plan::{Decided, Op, Present, decide};
use crate::broker::batching::apart::Apart;
use crate::broker::batching::flush_cycle::FlushCycle;
use crate::broker::batching::isolation::{self, Failed, Parts};
use crate::broker::batching::lane::LaneQueue;
use crate::broker::core::Core;
use crate::broker::replicas::cache::Epoch;
use crate::domain::Error;
use crate::domain::handler::Handler;
use crate::domain::settle::{AckStatus, Acknowledged};
use crate::observe::metrics::{Lane, SettledCounts};
use crate::store::session::connection::{Durability, Failure, FlushError, LaneConnection, try_flush};
use crate::store::subscriptions::leases::{self, LeaseKey};
use crate::store::subscriptions::locks;
use crate::store::subscriptions::settlement::{self, Settled};

/// Settles deliveries until the lane is closed and empty.
pub(crate) async fn run(core: Arc<Core>, queue: Arc<LaneQueue<SettleRequest>>, apart: Arc<Apart<Pending>>) {
    let connection = LaneConnection::new(&core.store, "dms-settle", Durability::Synchronous);
    let mut lane = SettleLane { core, apart, connection };
    while let Some(requests) = queue.next().await {
        let callers = || requests.iter().filter_map(SettleRequest::caller);
        let cycle = FlushCycle::begin(Lane::Settle, requests.len(), callers());
        cycle.serves(callers());
        lane.settle(requests).instrument(cycle.span()).await;
        cycle.end();
    }
    lane.connection.close().await;
}

struct SettleLane {
    core: Arc<Core>,
    /// Where subscriptions go that cannot be served with the others.
    apart: Arc<Apart<Pending>>,
    connection: LaneConnection,
}

impl SettleLane {
    async fn settle(&mut self, requests: Vec<SettleRequest>) {
        let (begun, calls) = (Instant::now(), requests.len());
        let (whole, mut rest) = split_whole(self.divert(requests));
        if !whole.is_empty() {
            rest.splice(0..0, self.settle_whole(whole).await);
        }
        if !rest.is_empty() {
            self.settle_rest(rest).await;
        }
        self.core.metrics.lanes().flushed(Lane::Settle, calls, 0, begun.elapsed());
    }

    /// Leaves out what is served apart.
    fn divert(&self, requests: Vec<SettleRequest>) -> Vec<SettleRequest> {
        if self.apart.is_empty() {
            return requests;
        }
        let (apart, rest): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| self.apart.has(request.key()));
        apart.into_iter().flat_map(Pending::of).for_each(|pending| self.apart.add(pending.key, pending));
        rest
    }

    /// Deletes whole leases; returns the acknowledgements that have to be looked at more closely: all of them, when one is locked
    /// or refused.
    async fn settle_whole(&mut self, whole: Vec<(LeaseKey, Ack)>) -> Vec<SettleRequest> {
        let offsets = |ack: &Ack| ack.entries.iter().filter_map(|(handler, _)| Some((*handler)?.offset)).collect();
        let leases: Vec<(LeaseKey, Vec<i64>)> = whole.iter().map(|(lease, ack)| (*lease, offsets(ack))).collect();
        let now = self.core.clock.now();
        let deleted = try_flush!(self.connection, conn => leases::delete_whole(conn, &leases, now));
        let deleted: HashSet<_> = match deleted {
            Ok(deleted) => deleted.into_iter().collect(),
            Err(FlushError { failure: Failure::Lost, error }) => {
                whole.into_iter().for_each(|(_, ack)| drop(ack.reply.send(Err(error.clone()))));
                return Vec::new();
            }
            Err(_) => return whole.into_iter().map(|(_, ack)| SettleRequest::Ack(ack)).collect(),
        };
        let (gone, rest): (Vec<_>, Vec<_>) = whole.into_iter().partition(|(lease, _)| deleted.contains(&lease.id));
        let acked = gone.iter().map(|(_, ack)| ack.entries.len()).sum();
        self.core.metrics.messages().settled(SettledCounts { acked, ..SettledCounts::default() });
        for (lease, ack) in gone {
            self.core.timers.remove(lease.id);
            if ack.exclusive {
                self.core.lease_ended(lease);
            }
            drop(ack.reply.send(Ok(Acknowledged::all(ack.entries.len()))));
        }
        rest.into_iter().map(|(_, ack)| SettleRequest::Ack(ack)).collect()
    }

    /// Settles deliveries one by one, in one transaction, or without those that are locked or refused: a row that cannot be read
    /// or locked must not fail the others.
    async fn settle_rest(&mut self, requests: Vec<SettleRequest>) {
        let limit = self.core.settings.statement_timeout;
        if let Err(failed) = self.attempt(requests.into_iter().flat_map(Pending::of).collect()).await {
            isolation::isolate(self, failed, limit).await;
        }
    }
}

impl Parts for SettleLane {
    type Item = Pending;

    async fn attempt(&mut self, part: Vec<Pending>) -> Result<(), Failed<Pending>> {
        match settle_ops(&self.core, &mut self.connection, &part).await {
            Ok(done) => {
                done.answer(&self.core, part);
                Ok(())
            }
            Err(error) => Err((part, error)),
        }
    }

    async fn split_locked(&mut self, part: Vec<Pending>) -> (Vec<Pending>, Vec<Pending>) {
        let leases: Vec<LeaseKey> = part.iter().flat_map(Pending::leases).collect();
        let locked = try_flush!(self.connection, conn => locks::settled(conn, &leases)).unwrap_or_default();
        part.into_iter().partition(|pending| locked.contains(&pending.key))
    }

    fn refused(&mut self, pending: Pending, error: Error) {
        self.apart.failed(pending.key);
        pending.answer(Err(error));
    }

    fn set_apart(&mut self, pending: Pending) {
        self.apart.failed(pending.key);
        self.apart.add(pending.key, pending);
    }

    fn lost(&mut self, part: Vec<Pending>, error: Error) {
        part.into_iter().for_each(|pending| pending.answer(Err(error.clone())));
    }
}

/// Sets apart acknowledgements of a whole batch with success, one per lease.
fn split_whole(requests: Vec<SettleRequest>) -> (Vec<(LeaseKey, Ack)>, Vec<SettleRequest>) {
    let (mut whole, mut rest, mut seen) = (Vec::new(), Vec::new(), HashSet::default());
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

/// What was settled together.
pub(super) struct Done {
    /// Of the cache, before.
    epoch: Epoch,
    settled: Settled,
    decided: Decided,
}

/// Settles some deliveries in one transaction.
pub(super) async fn settle_ops(
    core: &Core,
    connection: &mut LaneConnection,
    part: &[Pending],
) -> Result<Done, FlushError> {
    let ops: Vec<&Op> = part.iter().map(|pending| &pending.op).collect();
    let keys: Vec<LeaseKey> = ops.iter().flat_map(|op| op.leases()).collect::<BTreeSet<_>>().into_iter().collect();
    let now = core.clock.now();
    let unpartitioned = |error| FlushError { failure: Failure::Lost, error };
    core.ensure_partitions(now).await.map_err(unpartitioned)?;
    let epoch = core.cache.epoch();
    let cached = |stream, at| core.cache.message(stream, at);
    let at = Present { now, expiry_now: core.clock.expiry_now() };
    let dying_bytes_max = if ops.len() > 1 { DYING_BYTES_MAX } else { usize::MAX };
    let decide = |leases, policies: &[_]| decide(&ops, leases, policies, at);
    let settled =
        try_flush!(connection, conn => settlement::settle(conn, &keys, now, decide, cached, dying_bytes_max))?;
    // Too much for one transaction: it is tried by halves, as what is refused.
    let too_much = || FlushError { failure: Failure::Refused, error: Error::internal("one batch was not settled") };
    settled.map(|(settled, decided)| Done { epoch, settled, decided }).ok_or_else(too_much)
}

impl Done {
    /// Tells the callers, and whoever the change concerns.
    pub(super) fn answer(self, core: &Core, part: Vec<Pending>) {
        let Self { epoch, settled, mut decided } = self;
        core.metrics.messages().settled(decided.counts);
        core.metrics.messages().dead_letters_lost(settled.lost);
        settled.ended.into_iter().for_each(|lease| core.timers.remove(lease));
        settled.changed.into_iter().for_each(|key| core.changed(key));
        settled.dead_letters.into_iter().for_each(|segment| core.appended(epoch, segment));
        for (index, pending) in part.into_iter().enumerate() {
            pending.answer(Ok(decided.outcomes.remove(&index).unwrap_or_default()));
        }
    }
}
