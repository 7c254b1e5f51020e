//! The rules of one queue, in memory: one message at a time, no storage, nothing clever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dms_client::v1::{self as pb, AckOutcome, DeadLetterReason, QueueMode};

use super::group::{Failing, Fate, GroupModel};
use super::operations::*;
use super::reader::{At, ReaderModel};

pub(super) const SECOND: Micros = 1_000_000;
pub(super) const GROUPS_MAX: usize = 3;
const DEAD_LETTER_RETENTION: Duration = Duration::from_secs(72 * 3600);

/// What a queue was created as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub mode: QueueMode,
    /// `None`: redrive disabled.
    pub max_consume_count: Option<i32>,
    pub retention: Duration,
}

impl Spec {
    pub(super) fn is_kafka(&self) -> bool {
        matches!(self.mode, QueueMode::KafkaHa | QueueMode::KafkaHt)
    }
}

/// A message in the log of the queue; its index is its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub number: Number,
    pub labels: Vec<String>,
    pub appended_at: Micros,
}

/// The queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueueModel {
    pub spec: Arc<Spec>,
    pub now: Micros,
    pub round: u64,
    pub log: Arc<Vec<Stored>>,
    /// With the time each becomes available.
    pub delayed: BTreeMap<Number, (Micros, Vec<String>)>,
    pub groups: BTreeMap<GroupNo, GroupModel>,
    /// Groups deleted in this round.
    pub deleted: Vec<GroupNo>,
}

pub(super) fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap()
}

impl QueueModel {
    pub(super) fn new(spec: Spec, now: Micros) -> Self {
        Self {
            spec: Arc::new(spec),
            now,
            round: 0,
            log: Arc::default(),
            delayed: BTreeMap::new(),
            groups: BTreeMap::new(),
            deleted: Vec::new(),
        }
    }

    /// Messages appended then or before have expired.
    pub(super) fn horizon(&self) -> Micros {
        self.now - micros(self.spec.retention)
    }

    /// Dead letters moved then or before have expired.
    pub(super) fn dead_letter_horizon(&self) -> Micros {
        self.now - micros(DEAD_LETTER_RETENTION)
    }

    pub(super) fn begin_round(&mut self) {
        self.round += 1;
        self.deleted.clear();
    }

    /// Carries out one operation, if its answer is one that the rules allow at this point.
    pub(super) fn apply(&mut self, op: &Op, answer: &Answer) -> Result<(), String> {
        match op {
            Op::Send(messages) => self.send(messages, answer),
            Op::Consume { reader, max, lease, rule } => self.consume(*reader, *max, *lease, rule.as_ref(), answer),
            Op::Ack { reader, entries } => self.ack(*reader, entries, answer),
            Op::CreateGroup(group) => self.create_group(*group, answer),
            Op::Bind(group, rule) => {
                if let Some(group) = self.groups.get_mut(group).filter(|group| group.rule.is_none()) {
                    group.bind(Some(rule.clone()), &self.log);
                }
                Ok(())
            }
            Op::DeleteGroup(group) => {
                let found = self.groups.remove(group);
                self.deleted.push(*group);
                if found.is_some() { expect(answer, &Answer::Done) } else { refused(answer, GROUP_NOT_FOUND) }
            }
        }
    }

    fn send(&mut self, messages: &[Sent], answer: &Answer) -> Result<(), String> {
        let Answer::Sent(places) = answer else { return Err(format!("not stored: {answer}")) };
        for (sent, place) in messages.iter().zip(places) {
            if sent.delay > 0 {
                let due = self.now + micros(Duration::from_secs(sent.delay));
                self.delayed.insert(sent.number, (due, sent.labels.clone()));
                continue;
            }
            let Some(place) = place else { return Err(format!("{} did not reach the witness", sent.number)) };
            self.append(sent.number, &sent.labels, *place)?;
        }
        Ok(())
    }

    /// Offsets have no gaps, and the time of an append is the present, or later by as little as keeps times of a stream in order.
    fn append(&mut self, number: Number, labels: &[String], place: Place) -> Result<(), String> {
        let expected = Place { offset: i64::try_from(self.log.len()).unwrap(), appended_at: self.now };
        let last = self.log.last().map_or(self.now, |stored| stored.appended_at.max(self.now));
        if place.offset != expected.offset || !(last..self.now + MOMENT).contains(&place.appended_at) {
            return Err(format!("{number} was appended at {place:?}, not {expected:?}"));
        }
        Arc::make_mut(&mut self.log).push(Stored { number, labels: labels.to_vec(), appended_at: place.appended_at });
        for group in self.groups.values_mut() {
            group.appended(number, labels, place, self.round);
        }
        Ok(())
    }

    fn consume(
        &mut self,
        reader: ReaderName,
        max: usize,
        lease: Duration,
        rule: Option<&Rule>,
        answer: &Answer,
    ) -> Result<(), String> {
        let (kafka, redrive) = (self.spec.is_kafka(), self.spec.max_consume_count.is_some());
        let expires = self.now + micros(lease);
        let Some(group) = self.groups.get_mut(&reader.group) else { return refused(answer, GROUP_NOT_FOUND) };
        let model = match reader.source {
            Source::Dead if kafka => return refused(answer, REQUEST_FORMAT),
            Source::Dead if !redrive => return expect(answer, &Answer::Batch(Vec::new())),
            Source::Dead => &mut group.dead,
            Source::Normal => {
                if group.rule.is_none() && rule.is_some() {
                    group.bind(rule.cloned(), &self.log);
                }
                if group.rule.as_ref() != rule {
                    return refused(answer, CONSUME_FAILED);
                }
                &mut group.normal
            }
        };
        let Answer::Batch(batch) = answer else { return Err(format!("not a batch: {answer}")) };
        model.deliver(batch, max, expires, self.round)?;
        if batch.is_empty() && reader.source == Source::Normal && !group.normal.is_blocked() {
            group.unread.clear();
        }
        Ok(())
    }

    fn ack(&mut self, name: ReaderName, entries: &[(Handler, bool)], answer: &Answer) -> Result<(), String> {
        let gone = ReaderModel::default();
        let group = self.groups.get(&name.group);
        if group.is_none() && *answer == Answer::Refused(GROUP_NOT_FOUND.into()) {
            return Ok(());
        }
        let reader = match (group, name.source) {
            // Another replica may hear of the deletion a little later; what it says until then is of a group without leases.
            (None, _) if self.deleted.contains(&name.group) => &gone,
            (None, _) => return refused(answer, GROUP_NOT_FOUND),
            (Some(_), Source::Dead) if self.spec.is_kafka() => return refused(answer, REQUEST_FORMAT),
            (Some(group), Source::Dead) => &group.dead,
            (Some(group), Source::Normal) => &group.normal,
        };
        let live = reader.live(name, entries, self.now);
        let outcomes = walk(entries, &live);
        if outcomes.first() == Some(&AckOutcome::InvalidHandler) {
            let foreign = matches!(entries[0].0, Handler::Given { to, .. } if to != name);
            return refused(answer, if foreign { HANDLER_MISMATCH } else { HANDLER_INVALID });
        }
        expect(answer, &Answer::Acked(outcomes.clone()))?;
        self.settle(name, &live, &outcomes, entries);
        Ok(())
    }

    fn settle(&mut self, name: ReaderName, live: &[Option<At>], outcomes: &[AckOutcome], entries: &[(Handler, bool)]) {
        let by = entries.iter().find_map(|(handler, _)| match handler {
            Handler::Given { token, .. } => Some(*token),
            Handler::Nonsense => None,
        });
        let failing = Failing::new(self, DeadLetterReason::AckFail, by);
        let Some(group) = self.groups.get_mut(&name.group) else { return };
        for (at, outcome) in live.iter().zip(outcomes) {
            let Some(at) = at else { continue };
            let Some((item, _)) = group.reader(name.source).leased.remove(at) else { continue };
            match (outcome, name.source) {
                (AckOutcome::Acked, Source::Normal) => {
                    group.consumed += 1;
                    group.end(item.offset, Fate::Acked);
                }
                (AckOutcome::Acked, Source::Dead) => {}
                _ => group.fail(name.source, *at, item, &failing),
            }
        }
    }

    fn create_group(&mut self, number: GroupNo, answer: &Answer) -> Result<(), String> {
        if self.groups.len() >= GROUPS_MAX {
            return refused(answer, TOO_MANY_GROUPS);
        }
        let exclusive = self.spec.mode == QueueMode::Fifo;
        let mut group = GroupModel::new(exclusive);
        for (offset, stored) in (0..).zip(self.log.iter()) {
            let place = Place { offset, appended_at: stored.appended_at };
            group.appended(stored.number, &stored.labels, place, self.round);
        }
        group.expire(self.horizon(), self.dead_letter_horizon());
        self.groups.insert(number, group);
        expect(answer, &Answer::Done)
    }

    /// Turns the clock: leases end, messages expire, delays end. `due`: what the witness saw appear.
    pub(super) fn advance(&mut self, by: Duration, due: &[(Number, Place)]) -> Result<(), String> {
        self.begin_round();
        self.now += micros(by);
        let (now, horizon) = (self.now, self.horizon());
        let failing = Failing::new(self, DeadLetterReason::LeaseExpired, None);
        for group in self.groups.values_mut() {
            for source in [Source::Normal, Source::Dead] {
                for (at, item) in group.reader(source).take_ended(now) {
                    group.fail(source, at, item, &failing);
                }
            }
            group.expire(horizon, failing.dead_letter_horizon);
        }
        self.end_delays(due)
    }

    /// Ordered by availability time; the witness tells the order among equals.
    fn end_delays(&mut self, due: &[(Number, Place)]) -> Result<(), String> {
        let mut last = Micros::MIN;
        for (number, place) in due {
            let Some((at, labels)) = self.delayed.remove(number) else {
                return Err(format!("{number} appeared twice, or was not delayed"));
            };
            if at > self.now || at < last {
                return Err(format!("{number} is due at {at}, it appeared at {} behind {last}", self.now));
            }
            last = at;
            self.append(*number, &labels, *place)?;
        }
        let late = self.delayed.iter().find(|(_, (at, _))| *at <= self.now);
        late.map_or(Ok(()), |(number, _)| Err(format!("{number} is due and has not appeared")))
    }

    /// Messages whose delay ends by then.
    pub(super) fn due_by(&self, now: Micros) -> BTreeSet<Number> {
        self.delayed.iter().filter(|(_, (at, _))| *at <= now).map(|(number, _)| *number).collect()
    }

    /// The counters of a group at rest.
    pub(super) fn counters(&self, group: &GroupModel) -> pb::GroupCounters {
        let horizon = self.horizon();
        let produced = self.log.iter().filter(|stored| stored.appended_at > horizon).count();
        pb::GroupCounters {
            produced_messages: i64::try_from(produced).unwrap(),
            consumed_messages: group.consumed,
            available_messages: group.normal.live_count(horizon),
            produced_dead_letters: group.died,
            available_dead_letters: group.dead.live_count(self.dead_letter_horizon()),
        }
    }
}

/// The ack rule: the first fail or bad handler ends the walk, and what stands behind it fails with it.
fn walk(entries: &[(Handler, bool)], live: &[Option<At>]) -> Vec<AckOutcome> {
    let mut ended = false;
    let outcome = |((_, success), at): (&(Handler, bool), &Option<At>)| {
        let outcome = match (ended, at, success) {
            (true, _, _) => AckOutcome::AfterFailure,
            (_, None, _) => AckOutcome::InvalidHandler,
            (_, Some(_), true) => AckOutcome::Acked,
            (_, Some(_), false) => AckOutcome::Failed,
        };
        ended |= outcome != AckOutcome::Acked;
        outcome
    };
    entries.iter().zip(live).map(outcome).collect()
}

fn expect(answer: &Answer, expected: &Answer) -> Result<(), String> {
    if answer == expected { Ok(()) } else { Err(format!("expected: {expected}")) }
}

fn refused(answer: &Answer, code: &str) -> Result<(), String> {
    expect(answer, &Answer::Refused(code.into()))
}
