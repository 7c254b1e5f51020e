//! Takes down what the clients see while they run. Each reader has a lock of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::checker::{Findings, Rule};
use super::history::{
    AckCall, Allowance, Batch, GroupLog, History, Moment, QueueRules, ReaderLog, SendCall, Unanswered, Window,
};
use crate::chaos::api::{GroupCounters, Source};

/// One stream of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ReaderId {
    /// Index of the group.
    pub group: usize,
    /// Which of its streams.
    pub source: Source,
}

#[derive(Debug)]
struct Group {
    queue: usize,
    normal: Mutex<ReaderLog>,
    dead_letters: Mutex<ReaderLog>,
    counters: Mutex<Option<GroupCounters>>,
    /// Messages that have ended here, roughly.
    ended: AtomicU64,
}

/// The history on its way.
#[derive(Debug)]
pub(super) struct Recorder {
    started: Instant,
    queues: Vec<QueueRules>,
    groups: Vec<Group>,
    sends: Mutex<Vec<SendCall>>,
    sent: Vec<AtomicU64>,
    crashes: Mutex<Vec<Window>>,
    clock_steps: Mutex<Vec<Window>>,
    findings: Mutex<Findings>,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Recorder {
    /// Starts now. Each group is told by the index of its queue.
    pub(super) fn new(queues: Vec<QueueRules>, groups: &[usize]) -> Self {
        let group = |queue: &usize| Group {
            queue: *queue,
            normal: Mutex::default(),
            dead_letters: Mutex::default(),
            counters: Mutex::default(),
            ended: AtomicU64::new(0),
        };
        Self {
            started: Instant::now(),
            sent: queues.iter().map(|_| AtomicU64::new(0)).collect(),
            groups: groups.iter().map(group).collect(),
            queues,
            sends: Mutex::default(),
            crashes: Mutex::default(),
            clock_steps: Mutex::default(),
            findings: Mutex::default(),
            errors: Mutex::default(),
        }
    }

    /// The time of the run.
    pub(super) fn now(&self) -> Moment {
        Moment::default().plus(self.started.elapsed())
    }

    /// From a moment until now.
    pub(super) fn since(&self, began: Moment) -> Window {
        Window { began, ended: self.now() }
    }

    /// A send has ended.
    pub(super) fn send(&self, send: SendCall) {
        if send.answered {
            self.sent[send.queue].fetch_add(u64::from(send.count), Relaxed);
        }
        lock(&self.sends).push(send);
    }

    /// A consume has brought something; the number of the batch.
    pub(super) fn batch(&self, reader: ReaderId, batch: Batch) -> u32 {
        let mut log = self.reader(reader);
        log.batches.push(batch);
        u32::try_from(log.batches.len() - 1).unwrap_or(u32::MAX)
    }

    /// A consume has ended without an answer.
    pub(super) fn unanswered(&self, reader: ReaderId, consume: Unanswered) {
        self.reader(reader).unanswered.push(consume);
    }

    /// An acknowledgement has ended.
    pub(super) fn ack(&self, reader: ReaderId, ack: AckCall) {
        self.reader(reader).acks.push(ack);
    }

    /// Messages have ended in a group.
    pub(super) fn ended(&self, group: usize, count: usize) {
        self.groups[group].ended.fetch_add(count as u64, Relaxed);
    }

    /// Postgres has crashed.
    pub(super) fn crash(&self, window: Window) {
        lock(&self.crashes).push(window);
    }

    /// The counters of a group at the end.
    pub(super) fn counters(&self, group: usize, counters: GroupCounters) {
        *lock(&self.groups[group].counters) = Some(counters);
    }

    /// A call has failed, which is nothing wrong by itself.
    pub(super) fn error(&self, label: String) {
        *lock(&self.errors).entry(label).or_default() += 1;
    }

    /// Something is wrong that needs no history to tell.
    pub(super) fn violation(&self, rule: Rule, text: String) {
        tracing::error!(rule = rule.name(), "{text}");
        lock(&self.findings).add(rule, || text);
    }

    /// Messages of answered sends.
    pub(super) fn sent_count(&self) -> u64 {
        self.sent.iter().map(|sent| sent.load(Relaxed)).sum()
    }

    /// How far a queue's slowest group is behind, roughly.
    pub(super) fn lag(&self, queue: usize) -> u64 {
        let groups = self.groups.iter().filter(|group| group.queue == queue);
        let slowest = groups.map(|group| group.ended.load(Relaxed)).min().unwrap_or(0);
        self.sent[queue].load(Relaxed).saturating_sub(slowest)
    }

    /// Failed calls by kind.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }

    /// Postgres's clock was set.
    pub(super) fn clock_step(&self, step: Window) {
        lock(&self.clock_steps).push(step);
    }

    /// All of it, and what was found wrong meanwhile. Nothing may be recorded afterwards.
    pub(super) fn finish(&self, taken_back: Option<Duration>, clock_error: Duration) -> (History, Findings) {
        let group = |group: &Group| GroupLog {
            queue: group.queue,
            normal: std::mem::take(&mut lock(&group.normal)),
            dead_letters: std::mem::take(&mut lock(&group.dead_letters)),
            counters: *lock(&group.counters),
        };
        let history = History {
            queues: self.queues.clone(),
            groups: self.groups.iter().map(group).collect(),
            sends: std::mem::take(&mut lock(&self.sends)),
            crashes: std::mem::take(&mut lock(&self.crashes)),
            clock_steps: std::mem::take(&mut lock(&self.clock_steps)),
            allowance: Allowance { clock_error, taken_back },
        };
        (history, lock(&self.findings).clone())
    }

    fn reader(&self, reader: ReaderId) -> MutexGuard<'_, ReaderLog> {
        let group = &self.groups[reader.group];
        lock(match reader.source {
            Source::Normal => &group.normal,
            Source::DeadLetters => &group.dead_letters,
        })
    }
}

/// A client task that panicked is reported where it is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
