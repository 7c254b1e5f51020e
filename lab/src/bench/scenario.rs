//! One scenario from fresh queues to its report.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::consumer::LEASE;
use super::load::{Lead, Load, Until};
use super::meter::{Meter, Window};
use super::postgres_usage::{Usage, UsageProbe};
use super::progress::Progress;
use super::report::{Observed, Report};
use super::testbed::Testbed;
use super::topics;
use super::workload::Workload;
use crate::bench::args::Scenario;

/// The longest that storing a backlog, draining what is left, and counting may take each.
const PHASE_LIMIT: Duration = Duration::from_secs(1_800);
/// No message for this long means that none will come: every lease has ended and every poll was answered meanwhile.
pub(super) const STALL_LIMIT: Duration = LEASE.saturating_add(Duration::from_secs(15));

/// One scenario on its way.
struct Run<'a> {
    testbed: &'a Testbed,
    load: Arc<Load>,
    meter: Arc<Meter>,
    stall_limit: Duration,
    /// All work is done.
    done: CancellationToken,
}

/// Runs the load on queues of its own and deletes them. `stall_limit` is [`STALL_LIMIT`] but in tests.
pub(super) async fn run(testbed: &Testbed, workload: &Workload, stall_limit: Duration) -> Result<Report> {
    let topics = topics::create(testbed, workload).await?;
    let needs_lead = workload.scenario == Scenario::Both && workload.rate.is_none();
    let lead = needs_lead.then(|| Lead::new(workload.groups, workload.lead));
    let load = Arc::new(Load::new(workload, topics, lead));
    let mut probe = UsageProbe::connect(testbed).await?;
    // Not between the backlog and its reading: a page changed first after a checkpoint goes to the WAL as a whole, which would
    // burden only the systems that change the rows of messages.
    probe.settle().await;
    let stored = store_backlog(testbed, &load).await?;
    let meter = Arc::new(Meter::new(Window::after(workload.warmup, workload.duration)));
    meter.take_errors(&stored);
    let run = Run { testbed, load, meter, stall_limit, done: CancellationToken::new() };
    let work = async { tokio::join!(run.measure(probe), run.clients()) };
    let ((seconds, usage), unread) = Progress::new(&workload.describe(), &run.meter).show_during(work).await;
    let observed = Observed { seconds, usage, unread: unread? };
    if workload.is_ours() && workload.scenario != Scenario::Noop {
        check_counters(testbed, &run.load).await?;
    }
    let report = Report::new(workload, &run.load, &run.meter, observed);
    topics::delete(testbed, workload, &run.load.topics).await?;
    Ok(report)
}

impl Run<'_> {
    /// Runs the clients to the end of the window, then until all is consumed. Returns the messages that were not read for
    /// want of time, though they kept coming.
    async fn clients(&self) -> Result<u64> {
        let Self { testbed, load, meter, done, .. } = self;
        let workload = &load.workload;
        // However this ends, nobody waits for it any longer.
        let _done = done.clone().drop_guard();
        let consumers = match workload.scenario.consumes() {
            true => load.start_consumers(testbed.clients(workload).await?, meter, done),
            false => JoinSet::new(),
        };
        let first = u32::try_from(per_producer(workload)).context("backlog: too many messages for so few clients")?;
        let until = Until { deadline: meter.window().end, first, messages: u64::MAX, paced: true };
        if workload.scenario.sends() {
            join(load.start_producers(testbed.clients(workload).await?, meter, until)).await?;
        }
        let unread = if workload.scenario.consumes() { self.drain().await } else { 0 };
        done.cancel();
        join(consumers).await?;
        Ok(unread)
    }

    /// Waits until everything is acked, or nothing more comes.
    async fn drain(&self) -> u64 {
        let deadline = Instant::now() + PHASE_LIMIT;
        let (mut acked, mut changed) = (0, Instant::now());
        loop {
            let missing = self.load.ledger.missing();
            let acked_now = self.meter.totals().acked.load(Relaxed);
            if acked_now != acked {
                (acked, changed) = (acked_now, Instant::now());
            }
            if missing == 0 || changed.elapsed() > self.stall_limit {
                return 0;
            }
            if Instant::now() > deadline || !self.load.workload.drain {
                return missing;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What was spent inside the window, and how long the window was: it ends early when all work is done.
    async fn measure(&self, mut probe: UsageProbe) -> (f64, Usage) {
        let window = self.meter.window();
        if self.done_before(window.begin).await {
            return (0.0, Usage::default());
        }
        let before = probe.read().await;
        self.done_before(window.end).await;
        let seconds = Instant::now().min(window.end).duration_since(window.begin).as_secs_f64();
        (seconds, probe.read().await.since(&before))
    }

    async fn done_before(&self, instant: Instant) -> bool {
        tokio::select! {
            () = sleep_until(instant) => false,
            () = self.done.cancelled() => true,
        }
    }
}

/// Messages of the backlog that each producer sends.
fn per_producer(workload: &Workload) -> u64 {
    workload.backlog.div_ceil(u64::from(workload.clients)).next_multiple_of(u64::from(workload.batch))
}

/// Sends the backlog as fast as it goes. What went wrong meanwhile is on the meter.
async fn store_backlog(testbed: &Testbed, load: &Arc<Load>) -> Result<Arc<Meter>> {
    let backlog = load.workload.backlog;
    let meter = Arc::new(Meter::new(Window::after(Duration::ZERO, Duration::ZERO)));
    if backlog == 0 {
        return Ok(meter);
    }
    let messages = per_producer(&load.workload);
    let until = Until { deadline: Instant::now() + PHASE_LIMIT, first: 0, messages, paced: false };
    let producers = load.start_producers(testbed.clients(&load.workload).await?, &meter, until);
    Progress::new("backlog", &meter).show_during(join(producers)).await?;
    let sent = load.ledger.sent().0;
    ensure!(sent >= backlog, "only {sent} of {backlog} messages of the backlog were stored: {:?}", meter.errors());
    Ok(meter)
}

/// The service must have counted what was sent.
async fn check_counters(testbed: &Testbed, load: &Load) -> Result<()> {
    let (sure, unsure) = load.ledger.sent();
    let counted = timeout(PHASE_LIMIT, topics::count_messages(testbed, &load.topics)).await??;
    if counted < sure || counted > sure + unsure {
        tracing::error!(counted, sure, unsure, "the queues' counters are wrong");
        load.count_wrong_answer();
    }
    Ok(())
}

/// Waits for all tasks; a panic in one of them ends the benchmark.
async fn join(mut tasks: JoinSet<()>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
