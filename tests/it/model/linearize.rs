//! Looks for an order of the concurrent operations of a round in which every answer is one that the model allows.
//!
//! Queues are independent, so each queue's operations are ordered on their own. Operations overlap and may stand in any order,
//! but for two things: what had ended before another began stands before it, and an empty answer stands where its wait ended,
//! behind everything that was answered clearly before: a consumer that waits is woken, whichever replica it waits at.
//!
//! A retrieval with labels takes effect twice: it binds the group when it arrives, and takes messages when it is answered.

use std::fmt;
use std::time::Duration;

use super::operations::{Answer, GroupNo, Observed, Op, ReaderName, Source};
use super::queue::QueueModel;

/// A waiting consumer hears of what was answered to others within this time; the wait is a second. Wake-ups take
/// milliseconds, but the machine may be busy.
const HEARD_WITHIN: Duration = Duration::from_millis(600);

/// No order was found: the longest legal beginning, and why nothing can follow it.
#[derive(Debug)]
pub(super) struct Illegal {
    legal: Vec<usize>,
    reasons: Vec<(usize, String)>,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "legal so far, by number (behind the last: bindings): {:?}; then", self.legal)?;
        self.reasons.iter().try_for_each(|(index, reason)| write!(f, "\n  {index}: {reason}"))
    }
}

/// The states the queue may be in after the round, from those it may have been in before.
pub(super) fn linearize(before: &[QueueModel], round: &[Observed]) -> Result<Vec<QueueModel>, Illegal> {
    let round = &with_bindings(before, round);
    let mut search =
        Search { round, order: Vec::new(), found: Vec::new(), deepest: Illegal { legal: vec![], reasons: vec![] } };
    before.iter().for_each(|model| search.extend(model));
    if search.found.is_empty() { Err(search.deepest) } else { Ok(search.found) }
}

/// The operations, and a binding for each retrieval with labels by a group that is not bound. It comes at any time of the
/// retrieval; when it comes behind it changes nothing any more.
fn with_bindings(before: &[QueueModel], round: &[Observed]) -> Vec<Observed> {
    let unbound =
        |group: &GroupNo| before.iter().any(|model| model.groups.get(group).is_some_and(|group| group.rule.is_none()));
    let binding = |observed: &Observed| match &observed.op {
        Op::Consume { reader: ReaderName { group, source: Source::Normal }, rule: Some(rule), .. }
            if unbound(group) =>
        {
            let op = Op::Bind(*group, rule.clone());
            Some(Observed { op, answer: Answer::Done, ..observed.clone() })
        }
        _ => None,
    };
    round.iter().cloned().chain(round.iter().filter_map(binding)).collect()
}

struct Search<'a> {
    round: &'a [Observed],
    order: Vec<usize>,
    found: Vec<QueueModel>,
    deepest: Illegal,
}

impl Search<'_> {
    fn extend(&mut self, model: &QueueModel) {
        if self.order.len() == self.round.len() {
            if !self.found.contains(model) {
                self.found.push(model.clone());
            }
            return;
        }
        for index in 0..self.round.len() {
            if self.order.contains(&index) {
                continue;
            }
            let mut next = model.clone();
            match self
                .must_wait(index, model)
                .map_or_else(|| next.apply(&self.round[index].op, &self.round[index].answer), Err)
            {
                Ok(()) => {
                    self.order.push(index);
                    self.extend(&next);
                    self.order.pop();
                }
                Err(reason) => self.note(index, reason),
            }
        }
    }

    fn must_wait(&self, index: usize, model: &QueueModel) -> Option<String> {
        let later = &self.round[index];
        let first = |other: &usize| {
            *other != index && !self.order.contains(other) && precedes(&self.round[*other], later, model)
        };
        (0..self.round.len()).find(first).map(|other| format!("stands behind {other}"))
    }

    fn note(&mut self, index: usize, reason: String) {
        if self.order.len() > self.deepest.legal.len() {
            self.deepest = Illegal { legal: self.order.clone(), reasons: Vec::new() };
        }
        if self.order.len() == self.deepest.legal.len() {
            self.deepest.reasons.push((index, reason));
        }
    }
}

fn precedes(earlier: &Observed, later: &Observed, model: &QueueModel) -> bool {
    earlier.ended < later.began || (is_empty_poll(later, model) && earlier.ended + HEARD_WITHIN < later.ended)
}

/// Where there can be no dead letters nobody looks while the time passes.
fn is_empty_poll(observed: &Observed, model: &QueueModel) -> bool {
    let Op::Consume { reader, .. } = &observed.op else { return false };
    let looked = reader.source == Source::Normal || model.spec.max_consume_count.is_some();
    looked && observed.answer == Answer::Batch(Vec::new())
}
