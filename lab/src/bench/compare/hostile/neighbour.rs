//! The hostile projects, one an act: what they need, and how they begin and end.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::acts::{self, Actor};
use crate::bench::args::{Scenario, System};
use crate::bench::client::Topic;
use crate::bench::meter::back_off;
use crate::bench::testbed::Testbed;
use crate::bench::topics;
use crate::bench::workload::Workload;
use crate::sql::interference::Interference;

/// Messages that wait as failed ones.
const FAILED: u32 = 100_000;
/// Bytes that each group with a label rule reads.
const SCANNED_BYTES: u32 = 64 << 20;
/// Enough queues for every lane to have one.
const QUEUES: u32 = 8;
const CONNECTIONS: u32 = 4;
/// How long the peak is measured.
const PEAK_TRIAL: Duration = Duration::from_secs(3);
const PEAK_CLIENTS: u32 = 64;
const OVERLOAD_FACTOR: f64 = 3.0;
const OVERLOAD_CLIENTS: u32 = 1_024;

/// What a neighbour does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Creates and deletes queues and groups as fast as it may.
    Churn,
    /// Fails every message that it gets.
    Fail,
    /// Looks for a rare label in segments of 2 MiB.
    Scan,
    /// Holds locks on its own rows.
    Lock,
    /// Sends to streams that refuse every append.
    Refuse,
    /// Sends three times as much as the service can store.
    Flood,
}

impl Act {
    /// All of them, in the order of the report.
    pub(super) const ALL: [Act; 6] = [Act::Churn, Act::Fail, Act::Scan, Act::Lock, Act::Refuse, Act::Flood];

    /// For the report.
    pub(super) fn title(self) -> &'static str {
        match self {
            Act::Churn => "queues and groups created and deleted",
            Act::Fail => "10^5 failed messages, failed again and again",
            Act::Scan => "label rules over segments of 2 MiB",
            Act::Lock => "locks of 10 s on its own rows",
            Act::Refuse => "streams that cannot be appended to",
            Act::Flood => "sends at three times the peak",
        }
    }

    fn tasks(self) -> u32 {
        match self {
            Act::Churn => 8,
            Act::Fail | Act::Lock | Act::Refuse => 16,
            Act::Scan => 40,
            Act::Flood => OVERLOAD_CLIENTS,
        }
    }
}

/// A project and its act.
pub(super) struct Neighbour {
    /// What it does.
    pub act: Act,
    testbed: Testbed,
    actor: Actor,
    /// Between two sends of one client of a flood.
    pace: Duration,
}

impl Neighbour {
    /// Makes what the act needs, in a project of its own.
    pub(super) async fn prepare(act: Act, beside: &Testbed) -> Result<Self> {
        let testbed = Testbed::at(beside.addresses.clone(), beside.database_url.clone());
        let queues = if matches!(act, Act::Lock | Act::Refuse) { QUEUES } else { 1 };
        let topics = topics::create_queues(&testbed, queues, 1).await?;
        let load = Workload { connections: CONNECTIONS, ..Workload::new(System::Grpc, Scenario::Both) };
        let actor = Actor::new(&testbed, topics, &testbed.channels(&load).await?);
        let mut neighbour = Self { act, testbed, actor, pace: Duration::ZERO };
        match act {
            Act::Churn | Act::Lock => {}
            Act::Fail => {
                acts::fill(&neighbour.actor, FAILED).await?;
                let failed = neighbour.interfere().await?.fail_all().await?;
                anyhow::ensure!(failed == u64::from(FAILED), "{failed} messages are marked as failed");
            }
            Act::Scan => acts::fill_for_scans(&neighbour.actor, SCANNED_BYTES).await?,
            Act::Refuse => {
                acts::fill(&neighbour.actor, 10 * QUEUES).await?;
                neighbour.interfere().await?.refuse_appends().await?;
            }
            Act::Flood => neighbour.pace = neighbour.measure_pace().await?,
        }
        Ok(neighbour)
    }

    async fn interfere(&self) -> Result<Interference> {
        let url = self.testbed.database_url.as_deref().context("database-url: not known")?;
        let queue_ids = self.actor.topics.iter().map(|topic| topic.queue_id.clone()).collect();
        Ok(Interference::connect(url, queue_ids).await?)
    }

    /// Measures the peak of sends, and how often each client has to send for three times as much.
    async fn measure_pace(&self) -> Result<Duration> {
        let acting = Acting::default();
        let tasks: JoinSet<()> = (0..PEAK_CLIENTS)
            .map(|number| acts::flood(self.actor.clone(), acting.clone(), number, Duration::ZERO))
            .collect();
        sleep(PEAK_TRIAL).await;
        acting.stop.cancel();
        tasks.join_all().await;
        let calls_per_second = acting.deeds.done.load(Relaxed) as f64 / PEAK_TRIAL.as_secs_f64();
        let each = OVERLOAD_FACTOR * calls_per_second.max(1.0) / f64::from(OVERLOAD_CLIENTS);
        Ok(Duration::from_secs_f64(1.0 / each))
    }

    /// Begins to act.
    pub(super) async fn start(&self) -> Result<(Acting, JoinSet<()>)> {
        let acting = Acting::default();
        let mut tasks = JoinSet::new();
        if self.act == Act::Lock {
            tasks.spawn(acts::hold_locks(self.interfere().await?, acting.clone()));
        }
        for number in 0..self.act.tasks() {
            let (actor, acting) = (self.actor.clone(), acting.clone());
            match self.act {
                Act::Churn => tasks.spawn(acts::churn(actor, acting, number)),
                Act::Fail => tasks.spawn(acts::fail(actor, acting)),
                Act::Scan => tasks.spawn(acts::scan(actor, acting)),
                Act::Lock => tasks.spawn(acts::use_queue(actor, acting, number)),
                Act::Refuse => tasks.spawn(acts::send(actor, acting, number)),
                Act::Flood => tasks.spawn(acts::flood(actor, acting, number, self.pace)),
            };
        }
        Ok((acting, tasks))
    }

    /// Deletes the project's queues.
    pub(super) async fn leave(self) -> Result<()> {
        let load = Workload::new(System::Grpc, Scenario::Both);
        let topics: &[Topic] = &self.actor.topics;
        topics::delete(&self.testbed, &load, topics).await
    }
}

/// What the tasks of one neighbour share while it acts.
#[derive(Debug, Clone, Default)]
pub(super) struct Acting {
    /// Ends them.
    pub stop: CancellationToken,
    /// What they did.
    pub deeds: Arc<Deeds>,
}

impl Acting {
    /// Whether there is more to do.
    pub(super) fn goes_on(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// Counts a call, and waits after a failed one for as long as the service asks.
    pub(super) async fn count(&self, called: Result<(), Status>) {
        match called {
            Ok(()) => _ = self.deeds.done.fetch_add(1, Relaxed),
            Err(status) => {
                self.deeds.failed.fetch_add(1, Relaxed);
                tokio::select! {
                    () = sleep(back_off(&status)) => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
    }
}

/// What a neighbour did.
#[derive(Debug)]
pub(super) struct Deeds {
    begun: Instant,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Default for Deeds {
    fn default() -> Self {
        Self { begun: Instant::now(), done: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }
}

impl Display for Deeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, failed) = (self.done.load(Relaxed), self.failed.load(Relaxed));
        let rate = |count: u64| count as f64 / self.begun.elapsed().as_secs_f64();
        write!(f, "{:.0} calls/s, {:.0}/s refused or failed", rate(done), rate(failed))
    }
}
