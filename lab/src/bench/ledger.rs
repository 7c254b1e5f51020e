//! Which messages were sent and which came back: the proof that the figures are those of a correct service.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::harness::payload::MessageId;

/// A set of message ids, one bit a message.
#[derive(Debug, Default)]
struct IdSet {
    /// By producer, then 64 sequences a word.
    words: Vec<Vec<u64>>,
    count: u64,
}

impl IdSet {
    /// Says whether the id was new.
    fn insert(&mut self, producer: u32, sequence: u32) -> bool {
        let (producer, word, bit) = (producer as usize, sequence as usize / 64, 1_u64 << (sequence % 64));
        if self.words.len() <= producer {
            self.words.resize_with(producer + 1, Vec::new);
        }
        let words = &mut self.words[producer];
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let fresh = words[word] & bit == 0;
        words[word] |= bit;
        self.count += u64::from(fresh);
        fresh
    }

    fn word(&self, producer: usize, word: usize) -> u64 {
        self.words.get(producer).and_then(|words| words.get(word)).copied().unwrap_or(0)
    }

    /// How many ids of this set are in neither of the others.
    fn count_beyond(&self, one: &IdSet, other: &IdSet) -> u64 {
        let mut count = 0;
        for (producer, words) in self.words.iter().enumerate() {
            for (at, bits) in words.iter().enumerate() {
                count += u64::from((bits & !one.word(producer, at) & !other.word(producer, at)).count_ones());
            }
        }
        count
    }
}

/// Ids whose call was answered, and ids whose call failed, so that it may or may not have taken effect.
#[derive(Debug, Default)]
struct Marks {
    sure: IdSet,
    unsure: IdSet,
}

/// What one group did with the messages.
#[derive(Debug, Default)]
struct GroupMarks {
    acked: Marks,
    duplicates: u64,
}

/// What is wrong with the results of a run. All zero is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Faults {
    /// Messages whose send was answered and which a group never got.
    pub lost: u64,
    /// Messages that a group could ack with success more than once.
    pub duplicates: u64,
    /// Messages acked that were never sent.
    pub unknown: u64,
    /// Bodies that came back changed or through another queue.
    pub damaged: u64,
    /// Messages that came to a consumer before earlier ones of the same producer.
    pub disordered: u64,
    /// Answers that contradict the contract: refused handlers of young leases, counters that are off, unexpected errors.
    pub wrong_answers: u64,
}

impl Faults {
    /// Whether nothing is wrong.
    pub(super) fn is_none(&self) -> bool {
        *self == Faults::default()
    }
}

/// Follows every message of a run through every group.
#[derive(Debug)]
pub(super) struct Ledger {
    sent: Mutex<Marks>,
    groups: Vec<Mutex<GroupMarks>>,
}

impl Ledger {
    /// For groups `0..groups`.
    pub(super) fn new(groups: u32) -> Self {
        Self { sent: Mutex::default(), groups: (0..groups).map(|_| Mutex::default()).collect() }
    }

    /// A send of `count` messages from `first` on was answered (`sure`) or failed.
    pub(super) fn mark_sent(&self, first: MessageId, count: u32, sure: bool) {
        let mut marks = lock(&self.sent);
        let set = if sure { &mut marks.sure } else { &mut marks.unsure };
        for sequence in first.sequence..first.sequence.saturating_add(count) {
            set.insert(first.producer, sequence);
        }
    }

    /// A group acked messages with success (`sure`), or its ack call failed without an answer.
    pub(super) fn mark_acked(&self, group: usize, ids: impl IntoIterator<Item = MessageId>, sure: bool) {
        let mut marks = lock(&self.groups[group]);
        for id in ids {
            if !sure {
                marks.acked.unsure.insert(id.producer, id.sequence);
            } else if !marks.acked.sure.insert(id.producer, id.sequence) {
                marks.duplicates += 1;
            }
        }
    }

    /// Messages whose send was answered, and messages whose send failed and which may be stored nonetheless.
    pub(super) fn sent(&self) -> (u64, u64) {
        let marks = lock(&self.sent);
        (marks.sure.count, marks.unsure.count)
    }

    /// Messages that were surely sent and not yet acked by some group, summed over the groups.
    pub(super) fn missing(&self) -> u64 {
        let sent = lock(&self.sent);
        self.groups.iter().map(|group| missing(&sent, &lock(group).acked)).sum()
    }

    /// Everything that this ledger can prove wrong.
    pub(super) fn faults(&self) -> Faults {
        let sent = lock(&self.sent);
        let mut faults = Faults::default();
        for group in &self.groups {
            let marks = lock(group);
            faults.lost += missing(&sent, &marks.acked);
            faults.duplicates += marks.duplicates;
            faults.unknown += marks.acked.sure.count_beyond(&sent.sure, &sent.unsure);
        }
        faults
    }
}

fn missing(sent: &Marks, acked: &Marks) -> u64 {
    sent.sure.count_beyond(&acked.sure, &acked.unsure)
}

/// Marks stay usable when a client task panicked; the panic itself is reported where the task is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(producer: u32, sequence: u32) -> MessageId {
        MessageId { queue: 0, producer, sequence }
    }

    #[test]
    fn all_acked_once_is_right() {
        let ledger = Ledger::new(2);
        ledger.mark_sent(id(1, 60), 10, true);
        assert_eq!((ledger.sent(), ledger.missing()), ((10, 0), 20));
        for group in 0..2 {
            ledger.mark_acked(group, (60..70).map(|sequence| id(1, sequence)), true);
        }
        assert_eq!(ledger.missing(), 0);
        assert!(ledger.faults().is_none());
    }

    #[test]
    fn losses_duplicates_and_strangers_are_counted() {
        let ledger = Ledger::new(1);
        ledger.mark_sent(id(0, 0), 3, true);
        ledger.mark_acked(0, [id(0, 0)], true);
        ledger.mark_acked(0, [id(0, 0)], true);
        ledger.mark_acked(0, [id(5, 700)], true);
        assert_eq!(ledger.faults(), Faults { lost: 2, duplicates: 1, unknown: 1, ..Faults::default() });
    }

    #[test]
    fn failed_calls_may_have_taken_effect_or_not() {
        let ledger = Ledger::new(1);
        ledger.mark_sent(id(0, 0), 2, false);
        ledger.mark_acked(0, [id(0, 0)], true);
        ledger.mark_sent(id(0, 2), 1, true);
        ledger.mark_acked(0, [id(0, 2)], false);
        assert!(ledger.faults().is_none());
        ledger.mark_acked(0, [id(0, 2)], true);
        assert!(ledger.faults().is_none());
    }
}
