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
use crate::bench::client::{GrpcClient, Topic};
use crate::bench::postgres_usage::{ProcessStat, UsageProbe};
use crate::bench::site::Site;
use crate::bench::topics;
use crate::bench::workload::Workload;
use crate::config::Scenario;

const POLLS: u32 = 10_000;
const WAKEUPS: u32 = 1_000;
/// The longest that a poll may wait.
const POLL: Duration = Duration::from_secs(60);
const CONNECTIONS: u32 = 20;
/// Longer than any wake-up may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One poll on each of many queues.
pub async fn compare(runner: &Runner<'_>) -> Result<Section> {
    let site = runner.site;
    let load = Workload { queues: POLLS, connections: CONNECTIONS, ..runner.ours(Scenario::Consume) };
    let topics = topics::create_queues(site, POLLS, 1).await?;
    let channels = site.channels(&load).await?;
    // What is used once is there for good: connections, pools, caches of the queues.
    let mut polls = Polls::start(site, &channels, &topics[..100]);
    polls.wait_until_parked(100).await?;
    polls.stop().await;
    sleep(Duration::from_secs(2)).await;
    let resident_before = resident(site)?;
    let mut polls = Polls::start(site, &channels, &topics);
    polls.wait_until_parked(POLLS).await?;
    let each = (resident(site)? - resident_before) / f64::from(POLLS) / 1_000.0;
    let (statements, cpu) = watch(site, runner.duration()).await?;
    let wakeups = polls.wake(site, &channels[0], &topics).await?;
    polls.stop().await;
    topics::delete(site, &load, &topics).await?;
    let p99 = wakeups.value_at_quantile(0.99) as f64 / 1_000.0;
    let p50 = wakeups.value_at_quantile(0.5) as f64 / 1_000.0;
    Ok(Section::new('j', "j. 10^4 idle long polls, each on a queue of its own")
        .with_figure('j', "transactions a second (each one statement)", Some(statements), Target::AtMost(5.0))
        .with_figure('j', "resident memory of the service for each, KB", Some(each), Target::AtMost(20.0))
        .with_figure('j', "p99 ms from before a send to the woken consumer", Some(p99), Target::AtMost(20.0))
        .with_figure('j', "p50 ms of the same", Some(p50), Target::None)
        .with_figure('j', "CPU of the service meanwhile, ms a second", cpu, Target::None)
        .with_note(format!(
            "{POLLS} polls on {CONNECTIONS} connections; {WAKEUPS} sends, one after the other, to queues at random."
        )))
}

/// Bytes in memory of the service.
fn resident(site: &Site) -> Result<f64> {
    let process =
        site.addresses.first().and_then(|address| address.process).context("the service's process is not known")?;
    let stat = ProcessStat::read(process).context("the service's memory is not known")?;
    Ok(stat.resident_bytes as f64)
}

/// Transactions a second while nothing happens, and milliseconds of CPU a second.
async fn watch(site: &Site, duration: Duration) -> Result<(f64, Option<f64>)> {
    // Sessions count what they have done up to a second late.
    sleep(Duration::from_secs(5)).await;
    let mut probe = UsageProbe::connect(site).await?;
    let before = probe.read().await;
    sleep(duration).await;
    let usage = probe.read().await.since(&before);
    let commits = usage.commits.context("Postgres tells no transactions")?;
    // The two readings are transactions themselves: one of WAL and one of commits, each time.
    let commits = commits.saturating_sub(2) as f64 / duration.as_secs_f64();
    Ok((commits, usage.service_cpu.map(|cpu| cpu.as_secs_f64() * 1_000.0 / duration.as_secs_f64())))
}

/// Polls in flight, each asking again when it is answered.
struct Polls {
    tasks: JoinSet<()>,
    begun: Arc<AtomicU32>,
    woken: mpsc::UnboundedReceiver<Instant>,
}

impl Polls {
    fn start(site: &Site, channels: &[Channel], topics: &[Topic]) -> Self {
        let (sender, woken) = mpsc::unbounded_channel();
        let begun = Arc::new(AtomicU32::new(0));
        let mut tasks = JoinSet::new();
        for (index, topic) in topics.iter().enumerate() {
            let channel = channels[index % channels.len()].clone();
            let mut client = GrpcClient::new(site.project_id.clone(), channel);
            client.wait = POLL;
            tasks.spawn(poll(client, topic.clone(), begun.clone(), sender.clone()));
        }
        Self { tasks, begun, woken }
    }

    /// Waits until all have begun and have settled down.
    async fn wait_until_parked(&mut self, count: u32) -> Result<()> {
        let deadline = Instant::now() + POLL;
        while self.begun.load(Relaxed) < count {
            ensure!(Instant::now() < deadline, "only {} of {count} polls have begun", self.begun.load(Relaxed));
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(5)).await;
        Ok(())
    }

    /// Microseconds from before each send until its consumer has it.
    async fn wake(&mut self, site: &Site, channel: &Channel, topics: &[Topic]) -> Result<Histogram<u64>> {
        let mut latencies = Histogram::new(3)?;
        let mut client = GrpcClient::new(site.project_id.clone(), channel.clone());
        for _ in 0..WAKEUPS {
            let topic = &topics[rand::rng().random_range(0..topics.len())];
            let began = Instant::now();
            client.send(topic, vec![Bytes::from_static(b"1")]).await?;
            let woken = timeout(PATIENCE, self.woken.recv()).await.context("a consumer was not woken")?;
            let woken = woken.context("no consumer is left")?;
            latencies.saturating_record(u64::try_from((woken - began).as_micros())?);
        }
        Ok(latencies)
    }

    async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn poll(mut client: GrpcClient, topic: Topic, begun: Arc<AtomicU32>, woken: mpsc::UnboundedSender<Instant>) {
    begun.fetch_add(1, Relaxed);
    loop {
        match client.consume(&topic, 0, 1).await {
            Ok(delivered) if delivered.is_empty() => {}
            Ok(delivered) => {
                let _ = woken.send(Instant::now());
                let receipts = delivered.into_iter().map(|delivered| delivered.receipt).collect();
                if let Err(status) = client.ack(&topic, 0, receipts).await {
                    tracing::warn!(%status, "ack failed");
                }
            }
            Err(status) => {
                tracing::warn!(%status, "poll failed");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
