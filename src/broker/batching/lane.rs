//! The queue in front of a lane: whatever arrives while a transaction is in flight is the next transaction.
//!
//! No linger: a lone call is flushed at once, a thousand concurrent ones share a commit. Bounded by calls and bytes, for each
//! project too; beyond that a call is refused with a hint to retry. Projects take turns. What the service itself has to tell a
//! lane takes no place of a call.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::fair_queue::FairQueue;
use crate::domain::ids::{ProjectId, StreamId};
use crate::domain::{Error, Result};
use crate::memory::{ByteBudget, Owner, Reservation};
use crate::observe::metrics::{Lane, Metrics, Refusal};

/// Bytes of a waiting call beside what it brings.
const CALL_OVERHEAD_BYTES: usize = 512;
/// A project that sends little waits for the flush that is under way when it comes, and for its own, so where several projects
/// share a lane its flushes are small. A lane is shared for so many flushes after one that had messages of several: who sends
/// little is seldom there at the same instant as the others.
const SMALL_FLUSHES: u32 = 64;
/// A small flush has this part of the bytes of a large one, which is worth a few hundredths of the throughput.
const SMALL_PART: usize = 4;
/// A lane that has panicked rests for this long.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Runs a lane to its end, and again should it panic: whoever was in its hands learns that the outcome is not known, and whoever
/// waits in front of it is served.
pub(crate) async fn keep_running<F>(lane: Lane, metrics: Metrics, run: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(ended) = tokio::spawn(run()).await {
        if !ended.is_panic() {
            return;
        }
        metrics.lanes().panicked(lane);
        tracing::error!(lane = lane.name(), "a lane has panicked and is started again: please report this");
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// How much may wait, and how much one flush takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneLimits {
    /// Calls that may wait.
    pub calls_max: usize,
    /// Bytes that may wait.
    pub bytes_max: usize,
    /// Calls in one flush.
    pub(crate) flush_calls_max: usize,
    /// Bytes in one flush; a single call may be larger.
    pub(crate) flush_bytes_max: usize,
}

/// What can be told in one with what came later.
pub(crate) trait Merge {
    /// Adds what came later.
    fn merge(&mut self, newer: Self);
}

#[derive(Debug)]
struct Waiting<T> {
    shares: FairQueue<(T, Option<Reservation>)>,
    /// How many of the next flushes are small.
    small_flushes: u32,
    /// News of streams.
    news: BTreeMap<StreamId, T>,
    closed: bool,
}

impl<T> Waiting<T> {
    /// All news, which cost no statement of their own, and calls and events within the limits of a flush.
    fn take(&mut self, limits: &LaneLimits) -> Vec<T> {
        let mut taken: Vec<T> = std::mem::take(&mut self.news).into_values().collect();
        let (mut calls, mut bytes) = (0, 0);
        let bytes_max = self.flush_bytes_max(limits);
        while let Some(size) = self.shares.next_bytes() {
            if calls == limits.flush_calls_max || (bytes + size > bytes_max && bytes > 0) {
                break;
            }
            calls += 1;
            bytes += size;
            // What a flush in work holds is set aside beside what may wait.
            taken.extend(self.shares.pop().map(|(item, _reserved)| item));
        }
        taken
    }

    fn flush_bytes_max(&mut self, limits: &LaneLimits) -> usize {
        self.small_flushes = match self.shares.projects() {
            0 => self.small_flushes,
            1 => self.small_flushes.saturating_sub(1),
            _ => SMALL_FLUSHES,
        };
        if self.small_flushes > 0 { limits.flush_bytes_max / SMALL_PART } else { limits.flush_bytes_max }
    }
}

/// Calls on their way to a lane.
#[derive(Debug)]
pub(crate) struct LaneQueue<T> {
    waiting: Mutex<Waiting<T>>,
    arrived: Notify,
    limits: LaneLimits,
    /// For the calls of all lanes.
    memory: ByteBudget,
    metrics: Metrics,
}

impl<T> LaneQueue<T> {
    /// An empty queue.
    pub(crate) fn new(limits: LaneLimits, memory: ByteBudget, metrics: Metrics) -> Self {
        let waiting = Waiting { shares: FairQueue::default(), small_flushes: 0, news: BTreeMap::new(), closed: false };
        Self { waiting: Mutex::new(waiting), arrived: Notify::new(), limits, memory, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call of a project.
    pub(crate) fn push(&self, project: &ProjectId, item: T, bytes: usize) -> Result<()> {
        let owner = Some(project.clone());
        let reserved = self.reserve(project, bytes + CALL_OVERHEAD_BYTES);
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Error::unavailable("the service is shutting down"));
        }
        if !waiting.shares.has_room(&owner, bytes, self.limits.calls_max, self.limits.bytes_max) {
            self.metrics.calls().refused(Refusal::Lane);
            return Err(Error::overloaded("too many calls are waiting; retry later"));
        }
        waiting.shares.push(owner, (item, Some(reserved?)), bytes);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    fn reserve(&self, project: &ProjectId, bytes: usize) -> Result<Reservation> {
        let reserved = self.memory.reserve(Some(Owner::project(project)), bytes);
        reserved.inspect_err(|_| self.metrics.calls().refused(Refusal::Memory))
    }

    /// Adds an event of the service itself, which is never refused and not counted against the limits of calls: there are at
    /// most a few per flush of another lane. Its bytes keep a flush small.
    pub(crate) fn push_event(&self, item: T, bytes: usize) {
        self.lock().shares.push(None, (item, None), bytes);
        self.arrived.notify_one();
    }

    /// Tells what has happened to a stream: one item a stream, however much happens before the lane looks.
    pub(crate) fn tell(&self, stream: StreamId, news: T)
    where
        T: Merge,
    {
        match self.lock().news.entry(stream) {
            Entry::Occupied(mut known) => known.get_mut().merge(news),
            Entry::Vacant(unknown) => drop(unknown.insert(news)),
        }
        self.arrived.notify_one();
    }

    /// Takes what has arrived, within the limits of a flush; empty when nothing has.
    pub(crate) fn take(&self) -> Vec<T> {
        self.lock().take(&self.limits)
    }

    /// What has arrived, or whether anything still can.
    fn poll(&self) -> ControlFlow<Option<Vec<T>>> {
        // Under one lock: what arrives between a look and the next must not be lost to a lane that was closed meanwhile.
        let mut waiting = self.lock();
        let taken = waiting.take(&self.limits);
        match taken.is_empty() {
            false => ControlFlow::Break(Some(taken)),
            true if waiting.closed => ControlFlow::Break(None),
            true => ControlFlow::Continue(()),
        }
    }

    /// Waits for the next flush; `None` when the lane is closed and nothing is left. What other tasks are about to add comes
    /// along: they run first. That costs a lone call nothing and makes the flushes of a busy service larger.
    pub(crate) async fn next(&self) -> Option<Vec<T>> {
        loop {
            tokio::task::yield_now().await;
            if let ControlFlow::Break(next) = self.poll() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    /// Calls and events that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let waiting = self.lock();
        let (items, bytes) = waiting.shares.waiting();
        (items + waiting.news.len(), bytes)
    }

    /// Takes no more calls; what waits is still flushed.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::ErrorKind;

    fn queue() -> LaneQueue<u32> {
        let limits = LaneLimits { calls_max: 4, bytes_max: 100, flush_calls_max: 3, flush_bytes_max: 50 };
        LaneQueue::new(limits, ByteBudget::new(1 << 20, "tests"), Metrics::default())
    }

    fn project() -> ProjectId {
        ProjectId::parse("project").expect("a project")
    }

    #[test]
    fn a_flush_is_bounded_by_calls_and_bytes() {
        let queue = queue();
        for (item, bytes) in [(1, 40), (2, 20), (3, 1)] {
            queue.push(&project(), item, bytes).expect("fits");
        }
        queue.push_event(4, 1);
        // The service has its turn too.
        assert_eq!(queue.take(), [1, 4]);
        assert_eq!(queue.take(), [2, 3]);
        assert!(queue.take().is_empty());
    }

    #[test]
    fn flushes_are_small_while_several_projects_share_the_lane() {
        let queue = queue();
        let other = ProjectId::parse("other").expect("a project");
        let flushed = |count: u32| {
            (0..count).for_each(|item| queue.push(&project(), item, 10).expect("fits"));
            queue.take().len()
        };
        assert_eq!(flushed(3), 3);
        queue.push(&other, 9, 1).expect("fits");
        assert_eq!(flushed(2), 2, "one of each");
        assert_eq!(flushed(0), 1);
        let mut small = 1;
        while flushed(2) == 1 {
            flushed(0);
            small += 2;
        }
        assert_eq!(small, SMALL_FLUSHES - 1, "alone again");
    }

    #[test]
    fn a_full_lane_refuses_with_a_hint() {
        let queue = queue();
        let refused = queue.push(&project(), 1, 101).expect_err("too many bytes");
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        assert!(refused.retry_hint().is_some());
        (0..4).for_each(|item| queue.push(&project(), item, 1).expect("fits"));
        assert_eq!(queue.push(&project(), 5, 1).expect_err("too many calls").kind(), ErrorKind::Overloaded);
        queue.push_event(6, 1000);
        assert!(queue.metrics.text().contains("dms_calls_refused_total{why=\"lane\"} 2\n"));
    }

    impl Merge for u32 {
        fn merge(&mut self, newer: Self) {
            *self += newer;
        }
    }

    #[test]
    fn news_of_a_stream_are_told_in_one_and_take_no_place_of_a_call() {
        let queue = queue();
        for news in 0..1000 {
            queue.tell(StreamId(7), news);
            queue.tell(StreamId(8), 1);
            queue.push_event(0, 1000);
        }
        assert_eq!(queue.waiting().0, 1002);
        (1..=4).for_each(|item| queue.push(&project(), item, 1).expect("fits"));
        queue.push(&project(), 5, 1).expect_err("too many calls");
        assert_eq!(queue.take()[..2], [499_500, 1000]);
        assert_eq!(queue.waiting().0, 1003, "the first event filled the flush");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_panics_goes_on_with_what_waits() {
        let queue = Arc::new(queue());
        (1..=3).for_each(|item| queue.push_event(item, 50));
        queue.close();
        let served = Arc::new(Mutex::new(Vec::new()));
        let run = || {
            let (queue, served) = (Arc::clone(&queue), Arc::clone(&served));
            async move {
                while let Some(items) = queue.next().await {
                    assert_ne!(items, [2], "a panic of the test");
                    served.lock().expect("no panic while it is locked").extend(items);
                }
            }
        };
        let metrics = Metrics::default();
        keep_running(Lane::Settle, metrics.clone(), run).await;
        assert_eq!(*served.lock().expect("no panic while it is locked"), [1, 3]);
        assert!(metrics.text().contains("dms_lane_panics_total{lane=\"settle\"} 1\n"));
    }

    #[tokio::test]
    async fn a_closed_lane_is_drained_first() {
        let queue = queue();
        queue.push(&project(), 1, 1).expect("fits");
        queue.close();
        assert_eq!(queue.next().await, Some(vec![1]));
        assert_eq!(queue.next().await, None);
        assert_eq!(queue.push(&project(), 2, 1).expect_err("closed").kind(), ErrorKind::Unavailable);
    }
}
