//! One group: its two readers, and what has become of every message for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dms_client::v1::{DeadLetterReason, QueueMode};

use super::operations::{Death, Micros, Number, Place, Rule, Source, Token};
use super::queue::{QueueModel, Stored};
use super::reader::{At, Item, ReaderModel};

/// What has become of a message for one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Available, or under a lease.
    Open,
    Acked,
    Dead,
    Expired,
    /// Not selected by the group's labels.
    Passed,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupModel {
    pub rule: Option<Rule>,
    pub normal: ReaderModel,
    pub dead: ReaderModel,
    /// By offset.
    pub fates: Vec<Fate>,
    pub consumed: i64,
    pub died: i64,
    /// Messages that the labels do not select and that no retrieval has passed over yet: the service cannot know them
    /// without reading, so its count of available messages may include them until a retrieval has looked.
    pub unread: BTreeMap<i64, Micros>,
}

/// How a delivery failed, and what the queue makes of it.
pub(super) struct Failing {
    reason: DeadLetterReason,
    by: Option<Token>,
    now: Micros,
    horizon: Micros,
    pub dead_letter_horizon: Micros,
    log: Arc<Vec<Stored>>,
    max_consume_count: Option<i32>,
    /// The present one.
    since: u64,
    /// 0 where dead letters have no order: each is then known by its offset in the queue alone.
    round: u64,
}

impl Failing {
    pub(super) fn new(queue: &QueueModel, reason: DeadLetterReason, by: Option<Token>) -> Self {
        let fifo = queue.spec.mode == QueueMode::Fifo;
        Self {
            reason,
            by: by.filter(|_| fifo),
            now: queue.now,
            horizon: queue.horizon(),
            dead_letter_horizon: queue.dead_letter_horizon(),
            log: Arc::clone(&queue.log),
            max_consume_count: queue.spec.max_consume_count,
            since: queue.round,
            round: if fifo { queue.round } else { 0 },
        }
    }
}

impl GroupModel {
    pub(super) fn new(exclusive: bool) -> Self {
        let reader = ReaderModel { exclusive, ..ReaderModel::default() };
        Self {
            rule: None,
            normal: reader.clone(),
            dead: reader,
            fates: Vec::new(),
            consumed: 0,
            died: 0,
            unread: BTreeMap::new(),
        }
    }

    pub(super) fn reader(&mut self, source: Source) -> &mut ReaderModel {
        match source {
            Source::Normal => &mut self.normal,
            Source::Dead => &mut self.dead,
        }
    }

    pub(super) fn end(&mut self, offset: i64, fate: Fate) {
        self.fates[usize::try_from(offset).unwrap()] = fate;
    }

    pub(super) fn appended(
        &mut self,
        number: Number,
        labels: &[String],
        Place { offset, appended_at }: Place,
        since: u64,
    ) {
        self.fates.push(Fate::Open);
        let item = Item { number, offset, appended_at, attempts: 0, death: None, since };
        if self.rule.as_ref().is_none_or(|rule| rule.matches(labels)) {
            self.normal.available.insert((0, offset), item);
        } else {
            self.pass(&item);
        }
    }

    fn pass(&mut self, item: &Item) {
        self.unread.insert(item.offset, item.appended_at);
        self.end(item.offset, Fate::Passed);
    }

    /// From now on the group selects by labels.
    pub(super) fn bind(&mut self, rule: Option<Rule>, log: &[Stored]) {
        self.rule = rule;
        for item in std::mem::take(&mut self.normal.available).into_values() {
            self.retry(item, log);
        }
    }

    fn retry(&mut self, item: Item, log: &[Stored]) {
        let labels = &log[usize::try_from(item.offset).unwrap()].labels;
        if self.rule.as_ref().is_none_or(|rule| rule.matches(labels)) {
            self.normal.available.insert((0, item.offset), item);
        } else {
            self.pass(&item);
        }
    }

    /// A counted delivery has failed.
    pub(super) fn fail(&mut self, source: Source, at: At, item: Item, failing: &Failing) {
        let item = Item { since: failing.since, ..item };
        if source == Source::Dead {
            if item.appended_at > failing.dead_letter_horizon {
                self.dead.available.insert(at, item);
            }
            return;
        }
        // What has expired becomes no dead letter, also when its lease ended before: a clock that jumps does both at once.
        if item.appended_at <= failing.horizon {
            self.end(item.offset, Fate::Expired);
        } else if failing.max_consume_count.is_some_and(|max| item.attempts >= max) {
            self.end(item.offset, Fate::Dead);
            self.died += 1;
            let origin = Place { offset: item.offset, appended_at: item.appended_at };
            let death = Death { reason: failing.reason, attempts: item.attempts, origin };
            let dead = Item { attempts: 0, appended_at: failing.now, death: Some((death, failing.by)), ..item };
            self.dead.available.insert((failing.round, dead.offset), dead);
        } else {
            self.retry(item, &failing.log);
        }
    }

    pub(super) fn expire(&mut self, horizon: Micros, dead_letter_horizon: Micros) {
        let expired: Vec<i64> =
            self.normal.available.values().filter(|item| item.appended_at <= horizon).map(|item| item.offset).collect();
        self.normal.available.retain(|_, item| item.appended_at > horizon);
        expired.into_iter().for_each(|offset| self.end(offset, Fate::Expired));
        self.unread.retain(|_, appended_at| *appended_at > horizon);
        self.dead.available.retain(|_, item| item.appended_at > dead_letter_horizon);
    }
}
