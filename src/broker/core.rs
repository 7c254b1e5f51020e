//! What the lanes, the upkeep and the calls of a replica share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ack::{LEASE_BYTES, SettleRequest};
use super::batching::lane::{LaneLimits, LaneQueue};
use super::batching::pool_shares::PoolShares;
use super::consume::{ClaimMessage, StreamNews};
use super::metadata::counters::LastRead;
use super::replicas::cache::{Epoch, SegmentCache};
use super::replicas::catalog::Catalog;
use super::replicas::wakeups::{NotifyBuffer, Wakeup};
use super::send::AppendRequest;
use super::settings::Settings;
use super::upkeep::leadership::Leadership;
use super::upkeep::next_delay::NextDelay;
use super::upkeep::partitions::KnownPartitions;
use super::upkeep::timers::LeaseTimers;
use crate::domain::Result;
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::ids::{QueueId, StreamId, SubscriptionKey};
use crate::domain::queue::Queue;
use crate::memory::{ByteBudget, Memory, Use};
use crate::observe::metrics::Metrics;
use crate::store::Store;
use crate::store::log::segments::Segment;
use crate::store::subscriptions::leases::LeaseKey;

const FLUSH_CALLS_MAX: usize = 512;

/// The queues in front of the lanes; a stream always takes the same ones.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Sends.
    pub append: Vec<Arc<LaneQueue<AppendRequest>>>,
    /// Sends to KAFKA_HT queues, answered before they are on disk.
    pub(crate) append_unflushed: Arc<LaneQueue<AppendRequest>>,
    /// Claims.
    pub claim: Vec<Arc<LaneQueue<ClaimMessage>>>,
    /// Acknowledgements, expired leases.
    pub settle: Vec<Arc<LaneQueue<SettleRequest>>>,
}

impl Lanes {
    fn new(settings: &Settings, memory: &Memory, metrics: &Metrics) -> Self {
        let bytes = memory.part(Use::Lanes);
        let limits = LaneLimits {
            calls_max: settings.lane_calls_max,
            bytes_max: settings.lane_bytes_max,
            flush_calls_max: FLUSH_CALLS_MAX,
            flush_bytes_max: settings.flush_bytes_max(),
        };
        metrics.lanes().set_limits(limits.calls_max, limits.bytes_max);
        Self {
            append: queues(settings.append_lanes, limits, bytes, metrics),
            append_unflushed: Arc::new(LaneQueue::new(limits, bytes.clone(), metrics.clone())),
            claim: queues(settings.claim_lanes, limits, bytes, metrics),
            settle: queues(settings.settle_lanes, limits, bytes, metrics),
        }
    }

    /// Takes no more calls.
    pub(super) fn close_writes(&self) {
        self.append.iter().for_each(|lane| lane.close());
        self.append_unflushed.close();
        self.settle.iter().for_each(|lane| lane.close());
    }
}

fn queues<T>(count: usize, limits: LaneLimits, bytes: &ByteBudget, metrics: &Metrics) -> Vec<Arc<LaneQueue<T>>> {
    (0..count.max(1)).map(|_| Arc::new(LaneQueue::new(limits, bytes.clone(), metrics.clone()))).collect()
}

fn of_stream<T>(lanes: &[Arc<T>], stream: StreamId) -> &Arc<T> {
    let hash = stream.0.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    &lanes[usize::try_from(hash).unwrap_or(0) % lanes.len()]
}

/// Shared by everything in a replica.
#[derive(Debug)]
pub(super) struct Core {
    /// Tells this replica's wake-ups from others'.
    pub replica: Uuid,
    /// Postgres.
    pub store: Store,
    /// Who may use how much of its pool.
    pub(crate) pool_shares: Arc<PoolShares>,
    /// What the operator set.
    pub settings: Settings,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Queues and groups.
    pub(crate) catalog: Catalog,
    /// What it may hold in memory.
    pub memory: Memory,
    /// Recent segments.
    pub cache: SegmentCache,
    /// Leases granted here.
    pub(crate) timers: LeaseTimers,
    /// Wake-ups for other replicas.
    pub(crate) notify_buffer: NotifyBuffer,
    /// When the next delay ends, as far as is known here.
    pub delays: NextDelay,
    /// Whether this replica does the work of all.
    pub leadership: Leadership,
    /// Queues in front of the lanes.
    pub lanes: Lanes,
    /// What is counted.
    pub metrics: Metrics,
    /// When Postgres was last read for them.
    pub observed: LastRead,
    /// Parked consumers are answered.
    pub(crate) stop_waiting: CancellationToken,
    /// Everything ends.
    pub stop: CancellationToken,
    /// Days of the log that had a partition when Postgres was last asked.
    pub partitions: KnownPartitions,
}

impl Core {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// `Internal` when the memory is too little for the lanes.
    pub(super) fn new(store: Store, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let metrics = Metrics::default();
        let memory = settings.memory()?;
        let pool_shares = Arc::new(PoolShares::new(settings.pool_connections));
        Ok(Self {
            replica: Uuid::new_v4(),
            catalog: Catalog::new(store.clone(), Arc::clone(&pool_shares)),
            pool_shares,
            cache: SegmentCache::new(settings.cache_bytes_max()),
            lanes: Lanes::new(&settings, &memory, &metrics),
            memory,
            store,
            settings,
            clock,
            timers: LeaseTimers::default(),
            notify_buffer: NotifyBuffer::default(),
            delays: NextDelay::default(),
            leadership: Leadership::default(),
            metrics,
            observed: LastRead::default(),
            stop_waiting: CancellationToken::new(),
            stop: CancellationToken::new(),
            partitions: KnownPartitions::default(),
        })
    }

    /// The lane that commits sends to a queue.
    pub(super) fn append_lane(&self, queue: &Queue) -> &Arc<LaneQueue<AppendRequest>> {
        match queue.mode {
            crate::domain::queue::QueueMode::KafkaHt => &self.lanes.append_unflushed,
            _ => of_stream(&self.lanes.append, queue.stream),
        }
    }

    /// The lane that claims from a stream.
    pub(super) fn claim_lane(&self, stream: StreamId) -> &Arc<LaneQueue<ClaimMessage>> {
        of_stream(&self.lanes.claim, stream)
    }

    /// The lane that settles deliveries of a stream.
    pub(super) fn settle_lane(&self, stream: StreamId) -> &Arc<LaneQueue<SettleRequest>> {
        of_stream(&self.lanes.settle, stream)
    }

    /// What was appended then or before has expired, if it is kept for so long.
    pub(super) fn horizon(&self, retention: Duration) -> Timestamp {
        self.clock.expiry_now().minus(retention)
    }

    /// No consumer has seen this batch: it is available again, and not counted.
    pub(super) fn release(&self, lease: LeaseKey) {
        let lane = self.settle_lane(lease.subscription.stream);
        lane.push_event(SettleRequest::Release(lease), LEASE_BYTES);
    }

    /// A segment was committed here: keep it, and wake who waits for it, here and elsewhere. `epoch` is of before the commit.
    pub(super) fn appended(&self, epoch: Epoch, segment: Segment) {
        let (stream, tail) = (segment.stream, segment.end_offset());
        self.cache.insert(epoch, Arc::new(segment));
        self.tell(Wakeup::Appended(stream, tail));
    }

    /// A subscription's state has changed other than by a claim: wake who waits for it, here and elsewhere.
    pub(super) fn changed(&self, key: SubscriptionKey) {
        self.tell(Wakeup::Changed(key.stream));
    }

    /// A FIFO batch was acknowledged whole: wake who waits for the next one, here and elsewhere.
    pub(super) fn lease_ended(&self, lease: LeaseKey) {
        let stream = lease.subscription.stream;
        self.tell_lane(stream, StreamNews::lease_ended(lease));
        self.notify_buffer.push(Wakeup::Changed(stream));
    }

    /// A queue, or one of its groups, was deleted here, with subscriptions of these streams: who waits for them is told, here and
    /// elsewhere, and nobody else is looked after.
    pub(super) fn deleted(&self, queue: QueueId, streams: impl IntoIterator<Item = StreamId>) {
        self.catalog.forget(queue);
        self.notify_buffer.push(Wakeup::Deleted(queue));
        streams.into_iter().for_each(|stream| self.tell(Wakeup::Changed(stream)));
    }

    fn tell(&self, wakeup: Wakeup) {
        self.apply(wakeup);
        self.notify_buffer.push(wakeup);
    }

    /// Passes a wake-up to the lane it is for.
    pub(super) fn apply(&self, wakeup: Wakeup) {
        match wakeup {
            Wakeup::Appended(stream, tail) => self.tell_lane(stream, StreamNews::grown_to(tail)),
            Wakeup::Changed(stream) => self.tell_lane(stream, StreamNews::changed()),
            // A replica of an older version names no streams: those that are known of the queue are meant.
            Wakeup::Deleted(queue) => {
                let streams = self.catalog.forget(queue);
                streams.into_iter().for_each(|stream| self.tell_lane(stream, StreamNews::changed()));
            }
            Wakeup::Delayed(due) => self.delays.stored(due),
        }
    }

    fn tell_lane(&self, stream: StreamId, news: StreamNews) {
        self.claim_lane(stream).tell(stream, ClaimMessage::News(stream, news));
    }

    /// Wake-ups of other replicas may have been missed, and Postgres may have crashed: nothing that is known is trusted.
    pub(super) fn missed_wakeups(&self) {
        self.catalog.forget_all();
        self.cache.clear();
        self.delays.look();
        self.refresh_all();
    }

    /// Has every parked consumer looked after again.
    pub(super) fn refresh_all(&self) {
        self.lanes.claim.iter().for_each(|lane| lane.push_event(ClaimMessage::Refresh, 0));
    }

    /// Runs a future to its end, or gives it up when the service stops.
    pub(super) async fn until_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(future).await
    }
}
