//! The counters of a group when nothing is left: what was sent, what it acknowledged, what became dead letters.

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::Hold;
use crate::chaos::api::GroupCounters;

pub(super) fn check(group: &GroupView<'_>, findings: &mut Findings) {
    let Some(counters) = group.log.counters else {
        return findings.add(Rule::Counters, || format!("group {}: its counters could not be read", group.index));
    };
    for (name, value, low, high) in expected(group, counters) {
        if !(low..=high).contains(&value) {
            findings.add(Rule::Counters, || {
                let index = group.index;
                format!("group {index}: {name} is {value}, expected {low} to {high}; all counters: {counters:?}")
            });
        }
    }
}

/// Each counter with its bounds.
fn expected(group: &GroupView<'_>, counters: GroupCounters) -> [(&'static str, i64, i64, i64); 6] {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let (surely, perhaps) = group.sent.count(group.log.queue);
    let (surely, perhaps) = (count(surely), count(perhaps));
    let (acked, perhaps_acked) = acked(&group.normal.by_message());
    let dead_letters = group.dead_letters.by_message();
    let dead = count(dead_letters.chunk_by(|one, next| one.message == next.message).count() as u64);
    let produced = counters.produced_messages;
    [
        ("produced_messages", produced, surely, surely + perhaps),
        ("available_messages", counters.available_messages, 0, 0),
        ("produced_deadletters", counters.produced_dead_letters, dead, dead),
        ("available_deadletters", counters.available_dead_letters, 0, 0),
        ("consumed_messages", counters.consumed_messages, count(acked), count(acked + perhaps_acked)),
        ("consumed_messages + produced_deadletters", counters.consumed_messages + dead, produced, produced),
    ]
}

/// Messages surely acknowledged, and those that may be.
fn acked(by_message: &[&Hold]) -> (u64, u64) {
    let mut counts = (0, 0);
    for deliveries in by_message.chunk_by(|one, next| one.message == next.message) {
        if deliveries.iter().any(|hold| hold.acked.is_some()) {
            counts.0 += 1;
        } else if deliveries.iter().any(|hold| hold.may_be_acked()) {
            counts.1 += 1;
        }
    }
    counts
}
