//! The quiet project: thousands of parked consumers, and a few messages a second for some of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;
use tonic::transport::Channel;

use crate::bench::args::{Scenario, System};
use crate::bench::client::{Delivered, GrpcClient, Topic};
use crate::bench::meter::empty_histogram;
use crate::bench::testbed::Testbed;
use crate::bench::topics;
use crate::bench::workload::Workload;

/// Each on a queue of its own.
pub(super) const CONSUMERS: u32 = 3_000;
/// Messages a second.
pub(super) const RATE: u32 = 200;
const CONNECTIONS: u32 = 8;
/// How long a poll waits; it is renewed while others are measured.
const POLL: Duration = Duration::from_secs(20);
/// Spreads the renewals of all polls over a few seconds.
const STAGGER: Duration = Duration::from_millis(2);
/// Consumers that have not failed for this long are parked, which takes this long at most.
const SETTLED: Duration = Duration::from_secs(3);
const PARKING_MAX: Duration = Duration::from_secs(60);
/// A message that takes longer than this counts as a failed call.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the project felt for a while.
#[derive(Debug)]
pub(super) struct Felt {
    /// Microseconds from when a send was due until its consumer had the message.
    pub latencies: Histogram<u64>,
    /// Failed calls, and messages that did not come, by reason.
    pub failures: BTreeMap<String, u64>,
}

impl Felt {
    /// Nothing yet.
    pub(super) fn nothing() -> Self {
        Self { latencies: empty_histogram(), failures: BTreeMap::new() }
    }

    /// Adds what was felt at another time.
    pub(super) fn add(&mut self, other: &Felt) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
        Ok(())
    }

    /// Milliseconds that this share of the messages took at most.
    pub(super) fn millis(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// Failed calls.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// What the tasks of the project share.
struct Shared {
    felt: Mutex<Felt>,
    /// When each message that is on its way was due.
    under_way: Mutex<HashMap<u64, Instant>>,
    parked: AtomicU32,
}

impl Shared {
    fn felt(&self) -> MutexGuard<'_, Felt> {
        self.felt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, call: &str, reason: &str) {
        tracing::warn!(call, reason, "a call of the quiet project failed");
        *self.felt().failures.entry(format!("{call}: {reason}")).or_default() += 1;
    }

    fn refused(&self, call: &str, status: &Status) {
        self.failed(call, &format!("{:?} {}", status.code(), status.message()));
    }

    fn arrived(&self, delivered: &Delivered) {
        let number = std::str::from_utf8(&delivered.body).ok().and_then(|body| body.parse().ok());
        let due = number.and_then(|number: u64| self.under_way().remove(&number));
        match due {
            Some(due) => {
                let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.felt().latencies.saturating_record(micros);
            }
            None => self.failed("consume", "a message that was never sent, or came before"),
        }
    }
}

/// The project and its consumers. They end with this value.
pub(super) struct Quiet {
    topics: Vec<Topic>,
    sender: GrpcClient,
    shared: Arc<Shared>,
    consumers: JoinSet<()>,
    sent: u64,
}

impl Quiet {
    /// Makes the queues, and parks a consumer on each.
    pub(super) async fn park(testbed: &Testbed) -> Result<Self> {
        let topics = topics::create_queues(testbed, CONSUMERS, 1).await?;
        let load = Workload { connections: CONNECTIONS, ..Workload::new(System::Grpc, Scenario::Both) };
        let channels = testbed.channels(&load).await?;
        let shared = Arc::new(Shared {
            felt: Mutex::new(Felt::nothing()),
            under_way: Mutex::default(),
            parked: AtomicU32::new(0),
        });
        let mut consumers = JoinSet::new();
        for (number, topic) in (0..).zip(&topics) {
            let channel = channels[number as usize % channels.len()].clone();
            consumers.spawn(consume(client(testbed, channel), topic.clone(), number, shared.clone()));
        }
        let sender = client(testbed, channels[0].clone());
        let mut quiet = Self { topics, sender, shared, consumers, sent: 0 };
        quiet.wait_until_parked().await?;
        Ok(quiet)
    }

    /// Waits until all consumers have begun and none has failed for a while: the first polls of thousands ask for as many
    /// queues at once, and a slow machine may refuse some of them.
    async fn wait_until_parked(&mut self) -> Result<()> {
        let deadline = Instant::now() + STAGGER * CONSUMERS + PARKING_MAX;
        loop {
            sleep(SETTLED).await;
            let failures = self.take().failures;
            let parked = self.shared.parked.load(Relaxed);
            if parked == CONSUMERS && failures.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{parked} of {CONSUMERS} consumers wait; failed: {failures:?}");
        }
    }

    /// Sends at an even pace for a while, and waits until everything has come.
    pub(super) async fn feel(&mut self, duration: Duration) -> Felt {
        let first = self.sent;
        let mut due = Instant::now();
        let end = due + duration;
        let mut sends = JoinSet::new();
        while due < end {
            sleep_until(due).await;
            sends.spawn(self.send(due));
            due += Duration::from_secs(1) / RATE;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && !(sends.is_empty() && self.missing(first) == 0) {
            while sends.try_join_next().is_some() {}
            sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..self.missing(first) + sends.len() {
            self.shared.failed("consume", "a message did not come in time");
        }
        self.take()
    }

    /// A send to a queue at random.
    fn send(&mut self, due: Instant) -> impl Future<Output = ()> + Send + use<> {
        let number = self.sent;
        self.sent += 1;
        let topic = self.topics[rand::rng().random_range(0..self.topics.len())].clone();
        let (mut client, shared) = (self.sender.clone(), self.shared.clone());
        async move {
            shared.under_way().insert(number, due);
            if let Err(status) = client.send(&topic, vec![Bytes::from(number.to_string())]).await {
                shared.under_way().remove(&number);
                shared.refused("send", &status);
            }
        }
    }

    /// Messages from this one on that have not come.
    fn missing(&self, first: u64) -> usize {
        self.shared.under_way().keys().filter(|number| **number >= first).count()
    }

    fn take(&self) -> Felt {
        std::mem::replace(&mut *self.shared.felt(), Felt::nothing())
    }

    /// Ends the consumers and deletes the queues.
    pub(super) async fn leave(mut self, testbed: &Testbed) -> Result<()> {
        self.consumers.shutdown().await;
        topics::delete(testbed, &Workload::new(System::Grpc, Scenario::Both), &self.topics).await
    }
}

fn client(testbed: &Testbed, channel: Channel) -> GrpcClient {
    let mut client = GrpcClient::new(testbed.project_id.clone(), channel);
    client.wait = POLL;
    client
}

/// Polls, and acknowledges what comes.
async fn consume(mut client: GrpcClient, topic: Topic, number: u32, shared: Arc<Shared>) {
    sleep(STAGGER * number).await;
    shared.parked.fetch_add(1, Relaxed);
    loop {
        let began = Instant::now();
        match client.consume(&topic, 0, 1).await {
            // A second for clocks that differ.
            Ok(delivered) if delivered.is_empty() && began.elapsed() + Duration::from_secs(1) >= POLL => {}
            Ok(delivered) if delivered.is_empty() => shared.failed("consume", "answered with nothing before its time"),
            Ok(delivered) => {
                delivered.iter().for_each(|delivered| shared.arrived(delivered));
                let receipts = delivered.into_iter().map(|delivered| delivered.receipt).collect();
                match client.ack(&topic, 0, receipts).await {
                    Ok(outcomes) if outcomes == [true] => {}
                    Ok(outcomes) => shared.failed("ack", &format!("{outcomes:?}")),
                    Err(status) => shared.refused("ack", &status),
                }
            }
            Err(status) => {
                shared.refused("consume", &status);
                // Not all at once again.
                sleep(Duration::from_secs(1).mul_f64(1.0 + rand::random::<f64>())).await;
            }
        }
    }
}
