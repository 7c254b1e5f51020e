//! The claim lane: grants leases.
//!
//! A lane owns what it knows of the subscriptions hashed to it, so there is nothing to lock: requests and events arrive in its
//! queue, and each round serves all subscriptions that can be served with one statement. A request that cannot be served stays
//! parked here, without a connection, until an event makes its subscription ready, or its caller gives up.

mod budget;
mod carry_out;
mod cut;
mod failed;
mod find;
pub(super) mod long_poll;
mod news;
mod planned;
mod round;
mod scan;
mod states;
mod subscription;
mod suspects;
mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::oneshot;
use tracing::Span;

pub(super) use self::news::StreamNews;

use self::subscription::Subscription;
use self::suspects::Suspects;
use super::batching::flush_cycle::FlushCycle;
use super::batching::lane::{LaneQueue, Merge};
use super::core::Core;
use super::replicas::cache::Epoch;
use crate::domain::Result;
use crate::domain::ids::{StreamId, SubscriptionKey};
use crate::domain::labels::LabelRule;
use crate::domain::message::Delivery;
use crate::memory::Reservation;
use crate::store::session::connection::{Durability, LaneConnection};
use crate::store::subscriptions::leases::LeaseKey;

/// What is known of a subscription is trusted this long: a wake-up of another replica may have been lost with it.
const REFRESH: Duration = Duration::from_secs(10);
/// Subscriptions that nobody waits for are forgotten after this.
const IDLE: Duration = Duration::from_secs(60);
/// After an error of the database, parked requests are tried again.
const RETRY: Duration = Duration::from_millis(250);

/// A batch under a lease, on its way to its consumer.
#[derive(Debug)]
pub(super) struct Granted {
    /// The lease.
    pub lease: LeaseKey,
    /// Its messages.
    pub deliveries: Vec<Delivery>,
    /// Bytes that they keep in memory until they are dropped: of whole segments, where they are most of them.
    pub(crate) kept_bytes: usize,
    /// Reserved for that until the caller has counted them as an answer.
    pub kept: Option<Reservation>,
}

/// One consumer that wants messages.
#[derive(Debug)]
pub(super) struct ClaimRequest {
    /// Whose messages.
    pub key: SubscriptionKey,
    /// FIFO: nothing while a batch is in flight.
    pub exclusive: bool,
    /// How long messages of the stream are kept.
    pub retention: Duration,
    /// At most so many.
    pub max_messages: usize,
    /// For how long.
    pub lease: Duration,
    /// Selected by label.
    pub rule: Option<LabelRule>,
    /// The span of the call.
    pub caller: Span,
    /// Closed when the caller has given up.
    pub reply: oneshot::Sender<Result<Granted>>,
    /// Whether it was looked after once and waits: it survives an outage of the database.
    pub parked: bool,
}

/// What arrives in the queue of a claim lane.
#[derive(Debug)]
pub(super) enum ClaimMessage {
    /// A consumer.
    Request(ClaimRequest),
    /// What has happened to a stream and its subscriptions.
    News(StreamId, StreamNews),
    /// Anything may have changed.
    Refresh,
}

impl Merge for ClaimMessage {
    fn merge(&mut self, newer: Self) {
        match (self, newer) {
            (Self::News(_, news), Self::News(_, newer)) => news.merge(newer),
            (message, newer) => *message = newer,
        }
    }
}

struct ClaimLane {
    core: Arc<Core>,
    connection: LaneConnection,
    /// The session of the connection that everything known was read in.
    session: u64,
    /// Of the cache, as the round began.
    epoch: Epoch,
    subscriptions: HashMap<SubscriptionKey, Subscription>,
    by_stream: HashMap<StreamId, BTreeSet<SubscriptionKey>>,
    ready: BTreeSet<SubscriptionKey>,
    suspects: Suspects,
    /// Those of rounds that have failed, to be tried again.
    failed: BTreeSet<SubscriptionKey>,
    served_last: Option<SubscriptionKey>,
    /// Subscriptions whose last walk over the log has found little in much: they go on behind those who can be served at once.
    searching: BTreeSet<SubscriptionKey>,
    searched_last: Option<SubscriptionKey>,
    next_refresh: Instant,
    retry_at: Option<Instant>,
    /// The one that runs.
    cycle: FlushCycle,
}

/// Grants leases until the lane is closed.
pub(super) async fn run(core: Arc<Core>, queue: Arc<LaneQueue<ClaimMessage>>) {
    let durability = if core.settings.synchronous_leases { Durability::Synchronous } else { Durability::Asynchronous };
    let mut lane = ClaimLane {
        connection: LaneConnection::new(&core.store, "dms-claim", durability),
        session: 0,
        epoch: core.cache.epoch(),
        core,
        subscriptions: HashMap::default(),
        by_stream: HashMap::default(),
        ready: BTreeSet::new(),
        suspects: Suspects::default(),
        failed: BTreeSet::new(),
        served_last: None,
        searching: BTreeSet::new(),
        searched_last: None,
        next_refresh: Instant::now() + REFRESH,
        retry_at: None,
        cycle: FlushCycle::default(),
    };
    while let Some(messages) = lane.next_messages(&queue).await {
        messages.into_iter().for_each(|message| lane.apply(message));
        lane.tick();
        lane.round().await;
    }
    lane.connection.close().await;
}

impl ClaimLane {
    /// What has arrived; waits only when no subscription is ready. `None` when the lane is closed.
    async fn next_messages(&self, queue: &LaneQueue<ClaimMessage>) -> Option<Vec<ClaimMessage>> {
        if !self.ready.is_empty() {
            return Some(queue.take());
        }
        let dues = [Some(self.next_refresh), self.retry_at, self.suspects.next_end()];
        let due = dues.into_iter().flatten().min().unwrap_or(self.next_refresh);
        tokio::time::timeout_at(due.into(), queue.next()).await.unwrap_or(Some(Vec::new()))
    }

    fn apply(&mut self, message: ClaimMessage) {
        match message {
            ClaimMessage::Request(request) => {
                let key = request.key;
                self.by_stream.entry(key.stream).or_default().insert(key);
                if self.subscriptions.entry(key).or_insert_with(|| Subscription::new(&request)).push(request) {
                    self.make_ready(key);
                }
            }
            ClaimMessage::News(stream, news) => self.hear(stream, news),
            ClaimMessage::Refresh => self.refresh(),
        }
    }

    fn hear(&mut self, stream: StreamId, news: StreamNews) {
        if let Some(tail) = news.tail {
            self.wake_stream(stream, |subscription| subscription.grown_to(tail));
        }
        if news.changed {
            return self.wake_stream(stream, Subscription::forget_row);
        }
        for lease in news.ended_leases {
            if let Some(subscription) = self.subscriptions.get_mut(&lease.subscription) {
                subscription.lease_ended(lease.id);
                if subscription.is_waiting() {
                    self.make_ready(lease.subscription);
                }
            }
        }
    }

    fn wake_stream(&mut self, stream: StreamId, mut wake: impl FnMut(&mut Subscription)) {
        for key in self.by_stream.get(&stream).into_iter().flatten() {
            if let Some(subscription) = self.subscriptions.get_mut(key) {
                wake(subscription);
                if subscription.is_waiting() && !self.suspects.is_resting(*key) {
                    self.ready.insert(*key);
                }
            }
        }
    }

    /// Has a subscription served in the next rounds, or when it has rested.
    fn make_ready(&mut self, key: SubscriptionKey) {
        if !self.suspects.is_resting(key) {
            self.ready.insert(key);
        }
    }

    /// Has all subscriptions read again, also those whose consumers are about to come back: many together cost less than each alone.
    fn refresh(&mut self) {
        for (key, subscription) in &mut self.subscriptions {
            subscription.forget_row();
            if !self.suspects.is_resting(*key) {
                self.ready.insert(*key);
            }
        }
    }

    /// Whether the connection is still the one that everything known was read on. If not, all of it is forgotten: claims and
    /// sends to KAFKA_HT queues can be seen before they are on disk, and a crash of Postgres takes the last of them back.
    async fn same_session(&mut self) -> Result<bool> {
        self.connection.open().await?;
        let session = self.connection.session();
        if session != self.session {
            self.session = session;
            self.core.cache.clear();
            self.epoch = self.core.cache.epoch();
            self.refresh();
            return Ok(false);
        }
        self.epoch = self.core.cache.epoch();
        Ok(true)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.next_refresh {
            self.next_refresh = now + REFRESH;
            self.forget_idle(now);
            self.refresh();
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            for key in std::mem::take(&mut self.failed) {
                if self.subscriptions.contains_key(&key) {
                    self.make_ready(key);
                }
            }
        }
        for key in self.suspects.rested(now) {
            if self.subscriptions.get(&key).is_some_and(Subscription::is_waiting) {
                self.ready.insert(key);
            }
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        let idle: Vec<SubscriptionKey> = self
            .subscriptions
            .iter_mut()
            .filter_map(|(key, subscription)| subscription.is_idle(now, IDLE).then_some(*key))
            .collect();
        idle.into_iter().for_each(|key| drop(self.forget(key)));
    }

    fn forget(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        self.ready.remove(&key);
        self.searching.remove(&key);
        if let Some(keys) = self.by_stream.get_mut(&key.stream) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_stream.remove(&key.stream);
            }
        }
        self.subscriptions.remove(&key)
    }
}
