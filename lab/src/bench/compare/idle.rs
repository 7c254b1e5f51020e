//! Many consumers that wait for messages which do not come: what they cost, and how fast they wake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use super::runner::Runner;
use super::section::{Section, Target};
use crate::bench::args::Scenario;
use crate::bench::client::{GrpcClient, Topic};
use crate::bench::meter::empty_histogram;
use crate::bench::postgres_usage::UsageProbe;
use crate::bench::testbed::Testbed;
use crate::bench::topics;
use crate::bench::workload::Workload;
use crate::harness::process::ProcessStat;
use crate::sql::instance::STATISTICS_LAG;

const POLLS: u32 = 10_000;
const WAKEUPS: u32 = 1_000;
/// How long a poll waits: shorter than what is watched, so that its renewal is a part of what it costs.
const POLL: Duration = Duration::from_secs(20);
/// [`POLLS`] of them take one [`POLL`], so that they don't renew all at once.
const STAGGER: Duration = Duration::from_millis(2);
/// From when all have begun until the service has them, and what came with them is over.
const SETTLE: Duration = Duration::from_secs(5);
const CONNECTIONS: u32 = 20;
/// Polls end and come again meanwhile, and what is known of readers is refreshed.
const WATCHED: Duration = Duration::from_secs(30);
/// Longer than any wake-up may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One poll on each of many queues.
pub(super) async fn compare(runner: &Runner<'_>) -> Result<Section> {
    let testbed = runner.testbed;
    let load = Workload { queues: POLLS, connections: CONNECTIONS, ..runner.ours(Scenario::Consume) };
    let topics = topics::create_queues(testbed, POLLS, 1).await?;
    let channels = testbed.channels(&load).await?;
    // What is used once is there for good: connections, pools, caches of the queues.
    let mut polls = Polls::start(testbed, &channels, &topics[..100]);
    polls.wait_until_parked(100).await?;
    polls.stop().await;
    sleep(Duration::from_secs(2)).await;
    let resident_before = resident(testbed)?;
    let mut polls = Polls::start(testbed, &channels, &topics);
    polls.wait_until_parked(POLLS).await?;
    let each = (resident(testbed)? - resident_before) / f64::from(POLLS) / 1_000.0;
    let (statements, cpu) = watch(testbed, WATCHED.max(runner.duration())).await?;
    polls.check()?;
    let wakeups = polls.wake(testbed, &channels[0], &topics).await?;
    polls.check()?;
    polls.stop().await;
    topics::delete(testbed, &load, &topics).await?;
    let p99 = wakeups.value_at_quantile(0.99) as f64 / 1_000.0;
    let p50 = wakeups.value_at_quantile(0.5) as f64 / 1_000.0;
    Ok(Section::new('j', "j. 10^4 idle long polls, each on a queue of its own")
        .with_figure('j', "transactions a second (each one statement)", Some(statements), Target::AtMost(5.0))
        .with_figure('j', "resident memory of the service for each, KB", Some(each), Target::AtMost(20.0))
        .with_figure('j', "p99 ms from before a send to the woken consumer", Some(p99), Target::AtMost(20.0))
        .with_figure('j', "p50 ms of the same", Some(p50), Target::None)
        .with_figure('j', "CPU of the service meanwhile, ms a second", cpu, Target::None)
        .with_note(format!(
            "{POLLS} polls of {} s on {CONNECTIONS} connections, renewed evenly over time; {WAKEUPS} sends, one after the \
             other, to queues at random. Each was delivered once and acked, and no poll ended early.",
            POLL.as_secs()
        )))
}

/// Bytes in memory of the service.
fn resident(testbed: &Testbed) -> Result<f64> {
    let process =
        testbed.addresses.first().and_then(|address| address.process).context("the service's process is not known")?;
    let stat = ProcessStat::read(process).context("the service's memory is not known")?;
    Ok(stat.resident_bytes as f64)
}

/// Transactions a second while nothing happens, and milliseconds of CPU a second.
async fn watch(testbed: &Testbed, duration: Duration) -> Result<(f64, Option<f64>)> {
    // What sessions did while the polls began must not count.
    sleep(STATISTICS_LAG).await;
    let mut probe = UsageProbe::connect(testbed).await?;
    let before = probe.read().await;
    sleep(duration).await;
    let usage = probe.read().await.since(&before);
    let commits = usage.commits.context("Postgres tells no transactions")?;
    // The two readings are transactions themselves: one of WAL and one of commits, each time.
    let commits = commits.saturating_sub(2) as f64 / duration.as_secs_f64();
    Ok((commits, usage.service_cpu.map(|cpu| cpu.as_secs_f64() * 1_000.0 / duration.as_secs_f64())))
}

/// What the polls did.
#[derive(Default)]
struct Counts {
    begun: AtomicU32,
    acked: AtomicU32,
    /// Polls and acks that failed, and polls that were answered with nothing before their time.
    failed: AtomicU32,
}

/// Polls in flight, each asking again when it is answered.
struct Polls {
    tasks: JoinSet<()>,
    counts: Arc<Counts>,
    woken: mpsc::UnboundedReceiver<Instant>,
}

impl Polls {
    fn start(testbed: &Testbed, channels: &[Channel], topics: &[Topic]) -> Self {
        let (sender, woken) = mpsc::unbounded_channel();
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        for (number, topic) in (0_u32..).zip(topics) {
            let channel = channels[number as usize % channels.len()].clone();
            let mut client = GrpcClient::new(testbed.project_id.clone(), channel);
            client.wait = POLL;
            let (topic, counts, sender) = (topic.clone(), counts.clone(), sender.clone());
            tasks.spawn(async move {
                sleep(STAGGER * number).await;
                poll(client, topic, counts, sender).await;
            });
        }
        Self { tasks, counts, woken }
    }

    /// Waits until all have begun and the service has had time to take them in. One that it did not keep has failed.
    async fn wait_until_parked(&mut self, count: u32) -> Result<()> {
        let deadline = Instant::now() + STAGGER * count + PATIENCE;
        let begun = || self.counts.begun.load(Relaxed);
        while begun() < count {
            ensure!(Instant::now() < deadline, "only {} of {count} polls have begun", begun());
            sleep(Duration::from_millis(50)).await;
        }
        sleep(SETTLE).await;
        self.check()
    }

    /// Whether all did what polls should.
    fn check(&self) -> Result<()> {
        let failed = self.counts.failed.load(Relaxed);
        ensure!(failed == 0, "{failed} polls or acks failed, or ended before their time");
        Ok(())
    }

    /// Microseconds from before each send until its consumer has it.
    async fn wake(&mut self, testbed: &Testbed, channel: &Channel, topics: &[Topic]) -> Result<Histogram<u64>> {
        let mut latencies = empty_histogram();
        let mut client = GrpcClient::new(testbed.project_id.clone(), channel.clone());
        for _ in 0..WAKEUPS {
            let topic = &topics[rand::rng().random_range(0..topics.len())];
            let began = Instant::now();
            client.send(topic, vec![Bytes::from_static(b"1")]).await?;
            let woken = timeout(PATIENCE, self.woken.recv()).await.context("a consumer was not woken")?;
            let woken = woken.context("no consumer is left")?;
            latencies.saturating_record(u64::try_from((woken - began).as_micros())?);
        }
        // The last ack may be on its way.
        sleep(SETTLE).await;
        ensure!(self.woken.try_recv().is_err(), "messages came more than once");
        let acked = self.counts.acked.load(Relaxed);
        ensure!(acked == WAKEUPS, "{acked} of {WAKEUPS} messages were acked");
        Ok(latencies)
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn poll(mut client: GrpcClient, topic: Topic, counts: Arc<Counts>, woken: mpsc::UnboundedSender<Instant>) {
    counts.begun.fetch_add(1, Relaxed);
    loop {
        let began = Instant::now();
        match client.consume(&topic, 0, 1).await {
            // A second for clocks that differ.
            Ok(delivered) if delivered.is_empty() && began.elapsed() + Duration::from_secs(1) >= POLL => {}
            Ok(delivered) if delivered.is_empty() => counts.fail("poll", "nothing came before its time").await,
            Ok(delivered) => {
                let _ = woken.send(Instant::now());
                let receipts = delivered.into_iter().map(|delivered| delivered.receipt).collect();
                match client.ack(&topic, 0, receipts).await {
                    Ok(outcomes) if outcomes == [true] => _ = counts.acked.fetch_add(1, Relaxed),
                    Ok(outcomes) => counts.fail("ack", &format!("{outcomes:?}")).await,
                    Err(status) => counts.fail("ack", &status.to_string()).await,
                }
            }
            Err(status) => counts.fail("poll", &status.to_string()).await,
        }
    }
}

impl Counts {
    /// Counts a failure, and waits a moment.
    async fn fail(&self, call: &str, reason: &str) {
        tracing::warn!(call, reason, "an idle consumer failed");
        self.failed.fetch_add(1, Relaxed);
        sleep(Duration::from_secs(1)).await;
    }
}
