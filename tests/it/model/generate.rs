//! Random operations, aimed at what is there: few that cannot find anything, many at the same readers at the same time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::group::GroupModel;
use super::operations::*;
use super::queue::{QueueModel, Spec};
use super::reader::ReaderModel;
use super::site::Given;
use dms_client::v1::QueueMode;

const DAY_HOURS: u64 = 24;
const LABELS: [&str; 3] = ["a", "b", "c"];

/// One queue with redrive of each order, and any other.
pub(super) fn specs(rng: &mut StdRng) -> Vec<Spec> {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let redrive = |rng: &mut StdRng| Some(rng.random_range(1..=3));
    let of = |mode, max_consume_count, retention| Spec { mode, max_consume_count, retention };
    let others = [
        of(QueueMode::Normal, None, hours(72)),
        of(QueueMode::Fifo, None, hours(72)),
        of(QueueMode::KafkaHa, None, hours(rng.random_range(1..=2))),
        of(QueueMode::KafkaHt, None, hours(rng.random_range(1..=72))),
    ];
    vec![
        of(QueueMode::Fifo, redrive(rng), hours(72)),
        of(QueueMode::Normal, redrive(rng), hours(72)),
        others.choose(rng).unwrap().clone(),
    ]
}

/// How far to turn the clock.
pub(super) fn turn(rng: &mut StdRng) -> Duration {
    let seconds = match rng.random_range(0..100) {
        0..60 => rng.random_range(1..=16),
        60..91 => rng.random_range(16..=310),
        91..96 => rng.random_range(1800..=2 * 3600),
        _ => rng.random_range(DAY_HOURS * 3600..=73 * 3600),
    };
    Duration::from_secs(seconds)
}

/// Makes the operations of one round.
pub(super) struct Generator<'a> {
    pub rng: &'a mut StdRng,
    pub given: &'a [Given],
    pub next_number: &'a mut Number,
    pub next_group: &'a mut GroupNo,
    /// Consumers sent to each reader in this round.
    pub asked: HashMap<ReaderName, usize>,
    /// Operations that begin a little later, on the queue of the one before.
    pub later: Vec<Op>,
}

impl Generator<'_> {
    /// An operation on a queue; its witness group is left alone.
    pub(super) fn op(&mut self, queue: usize, model: &QueueModel, witness: GroupNo, gone: &[GroupNo]) -> Op {
        let groups: Vec<(GroupNo, &GroupModel)> = model
            .groups
            .iter()
            .map(|(number, group)| (*number, group))
            .filter(|(number, _)| *number != witness)
            .collect();
        let Some((number, group)) = groups.choose(self.rng).copied() else { return self.create_group() };
        match self.rng.random_range(0..100) {
            0..2 => self.create_group(),
            2 => Op::DeleteGroup(number),
            3..22 => self.send(model),
            22..55 => self.consume(model, number, group, Source::Normal),
            55..64 => self.consume(model, number, group, Source::Dead),
            64..66 => self.at_deleted(gone, queue).unwrap_or_else(|| self.send(model)),
            66..92 => self.ack(model, queue, number, group, Source::Normal),
            _ => self.ack(model, queue, number, group, Source::Dead),
        }
    }

    fn create_group(&mut self) -> Op {
        *self.next_group += 1;
        Op::CreateGroup(*self.next_group)
    }

    fn send(&mut self, model: &QueueModel) -> Op {
        let count = if self.rng.random_bool(0.5) { 1 } else { self.rng.random_range(1..=10) };
        let delays = !model.spec.is_kafka();
        let message = |_| {
            *self.next_number += 1;
            let labels = LABELS.iter().filter(|_| self.rng.random_bool(0.3)).map(ToString::to_string).collect();
            let delayed = delays && self.rng.random_bool(0.08);
            let delay = if delayed { self.rng.random_range(1..=600) } else { 0 };
            Sent { number: *self.next_number, labels, delay }
        };
        Op::Send((0..count).map(message).collect())
    }

    /// Mostly where something is left for one consumer more: an empty answer takes a second. Else now and then a consumer
    /// that has to wait, with an operation a little later that may bring what it waits for.
    fn consume(&mut self, model: &QueueModel, group: GroupNo, state: &GroupModel, source: Source) -> Op {
        let name = ReaderName { group, source };
        let reader = if source == Source::Normal { &state.normal } else { &state.dead };
        let asked = self.asked.entry(name).or_default();
        let left = if reader.exclusive { 1 } else { reader.available.len().div_ceil(5) };
        let wakes = reader.is_blocked() || source == Source::Normal;
        let finds = reader.owes() && *asked < left;
        if !finds && self.rng.random_bool(if wakes { 0.8 } else { 0.98 }) {
            return if source == Source::Normal { self.send(model) } else { self.ack_normal(model, state, group) };
        }
        *asked += 1;
        if !reader.owes() && wakes {
            let held = tokens(reader);
            let waker = if held.is_empty() { self.send(model) } else { self.ack_of(model, name, held) };
            self.later.push(waker);
        }
        let rule = (source == Source::Normal).then(|| self.rule(state)).flatten();
        Op::Consume { reader: name, max: self.rng.random_range(1..=10), lease: self.lease(), rule }
    }

    fn lease(&mut self) -> Duration {
        Duration::from_secs(*[15, 20, 30, 60, 300].choose(self.rng).unwrap())
    }

    /// Some groups are bound to labels, and some consumers do not know to which.
    fn rule(&mut self, group: &GroupModel) -> Option<Rule> {
        let chance = if group.rule.is_some() { 0.1 } else { 0.03 };
        if !self.rng.random_bool(chance) {
            return group.rule.clone();
        }
        let labels: BTreeSet<String> =
            LABELS.iter().filter(|_| self.rng.random_bool(0.5)).map(ToString::to_string).collect();
        let all = labels.len() > 1 && self.rng.random_bool(0.3);
        (!labels.is_empty()).then_some(Rule { labels, all })
    }

    fn ack_normal(&mut self, model: &QueueModel, state: &GroupModel, group: GroupNo) -> Op {
        self.ack_of(model, ReaderName { group, source: Source::Normal }, tokens(&state.normal))
    }

    fn ack(&mut self, model: &QueueModel, queue: usize, group: GroupNo, state: &GroupModel, source: Source) -> Op {
        let reader = if source == Source::Normal { &state.normal } else { &state.dead };
        let name = ReaderName { group, source };
        let entries = self.shape(tokens(reader), name);
        let entries = self.spoil(entries, queue);
        if entries.is_empty() { self.send(model) } else { Op::Ack { reader: name, entries } }
    }

    fn ack_of(&mut self, model: &QueueModel, name: ReaderName, held: Vec<Token>) -> Op {
        let entries = self.shape(held, name);
        if entries.is_empty() { self.send(model) } else { Op::Ack { reader: name, entries } }
    }

    /// All shapes of lists: all, a beginning, a piece, any order; all good, or a failure somewhere.
    fn shape(&mut self, mut held: Vec<Token>, to: ReaderName) -> Vec<(Handler, bool)> {
        if held.is_empty() {
            return Vec::new();
        }
        if self.rng.random_bool(0.5) {
            let begin = self.rng.random_range(0..held.len());
            held.drain(..begin);
        }
        if self.rng.random_bool(0.6) {
            held.truncate(self.rng.random_range(1..=held.len()));
        }
        if self.rng.random_bool(0.15) {
            held.shuffle(self.rng);
        }
        let mut entries: Vec<(Handler, bool)> =
            held.into_iter().map(|token| (Handler::Given { token, to }, true)).collect();
        if self.rng.random_bool(0.4) {
            let index = self.rng.random_range(0..entries.len());
            entries[index].1 = false;
        }
        entries
    }

    /// Now and then a handler that is repeated, old, of another group, or nonsense.
    fn spoil(&mut self, mut entries: Vec<(Handler, bool)>, queue: usize) -> Vec<(Handler, bool)> {
        let chance = if entries.is_empty() { 0.4 } else { 0.15 };
        if !self.rng.random_bool(chance) {
            return entries;
        }
        let bad = match self.rng.random_range(0..10) {
            0 => Some(Handler::Nonsense),
            1..4 => entries.choose(self.rng).map(|(handler, _)| *handler),
            _ => self.any_given(queue),
        };
        if let Some(bad) = bad {
            let (index, success) = (self.rng.random_range(0..=entries.len()), self.rng.random_bool(0.8));
            entries.insert(index, (bad, success));
        }
        entries
    }

    /// Any handler of the queue, the latest ones rather.
    fn any_given(&mut self, queue: usize) -> Option<Handler> {
        let from = self.given.len().saturating_sub(100);
        let of_queue: Vec<Token> = (from..self.given.len()).filter(|token| self.given[*token].queue == queue).collect();
        let token = *of_queue.choose(self.rng)?;
        Some(Handler::Given { token, to: self.given[token].to })
    }

    /// What is left to do at a group that is gone.
    fn at_deleted(&mut self, gone: &[GroupNo], queue: usize) -> Option<Op> {
        let group = *gone.choose(self.rng)?;
        let reader = ReaderName { group, source: Source::Normal };
        Some(match self.any_given(queue) {
            Some(handler) if self.rng.random_bool(0.6) => Op::Ack { reader, entries: vec![(handler, true)] },
            _ if self.rng.random_bool(0.5) => Op::DeleteGroup(group),
            _ => Op::Consume { reader, max: 1, lease: self.lease(), rule: None },
        })
    }
}

/// The handlers of what is under leases, in the order they were given out.
fn tokens(reader: &ReaderModel) -> Vec<Token> {
    let mut tokens: Vec<Token> = reader.leased.values().map(|(_, hold)| hold.token).collect();
    tokens.sort_unstable();
    tokens
}
