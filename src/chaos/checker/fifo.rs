//! A FIFO queue: each group gets the messages of a producer in the order it sent them, a failed one again before those behind
//! it, and one batch at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::{Hold, Holds};
use super::sent::Stored;
use crate::chaos::history::{MessageId, Moment, Window};

pub(super) fn check(group: &GroupView<'_>, findings: &mut Findings) {
    if !group.is_fifo() {
        return;
    }
    let flights = flights(&group.normal);
    check_in_flight(group.index, &flights, findings);
    check_order(group, &flights, findings);
    check_in_flight(group.index, &self::flights(&group.dead_letters), findings);
}

/// A batch on its way to be settled.
struct Flight<'a> {
    holds: &'a [Hold],
    claimed: Window,
    /// It was in flight until this at least.
    until: Moment,
}

/// The batches by the order of their answers.
fn flights(holds: &Holds) -> Vec<Flight<'_>> {
    let batches = holds.batches().filter_map(|holds| {
        let until = holds.iter().map(Hold::in_flight_until).max()?;
        Some(Flight { holds, claimed: holds.first()?.claimed, until })
    });
    let mut flights: Vec<Flight<'_>> = batches.collect();
    flights.sort_by_key(|flight| flight.claimed.ended);
    flights
}

/// No batch was claimed while another was in flight.
fn check_in_flight(group: usize, flights: &[Flight<'_>], findings: &mut Findings) {
    let mut longest: Option<&Flight<'_>> = None;
    for flight in flights {
        if let Some(other) = longest
            && other.until > flight.claimed.ended
            && flight.until > other.claimed.ended
        {
            findings.add(Rule::Fifo, || {
                let (one, next) = (other.holds[0].message, flight.holds[0].message);
                let (claimed, later) = (other.claimed, flight.claimed);
                format!(
                    "group {group}: {next} was delivered {later} while the batch of {one}, {claimed}, was in flight"
                )
            });
        }
        if longest.is_none_or(|longest| flight.until > longest.until) {
            longest = Some(flight);
        }
    }
}

/// Whatever comes later was not sent before what is here, unless it was here too, in front of it. Sends without an answer may
/// have been stored late and have no place in the order.
fn check_order(group: &GroupView<'_>, flights: &[Flight<'_>], findings: &mut Findings) {
    let ordered = |hold: &&Hold| group.sent.to_queue(group.log.queue, hold.message) == Some(Stored::Surely);
    let mut last: BTreeMap<MessageId, usize> = BTreeMap::new();
    for (index, flight) in flights.iter().enumerate() {
        last.extend(flight.holds.iter().filter(ordered).map(|hold| (hold.message, index)));
    }
    let mut to_come: BTreeSet<MessageId> = last.keys().copied().collect();
    for (index, flight) in flights.iter().enumerate() {
        for (place, hold) in flight.holds.iter().enumerate().filter(|(_, hold)| ordered(hold)) {
            let Some(passed) = first_passed(&to_come, &flight.holds[..place], hold.message) else { continue };
            let later = &flights[last[&passed]];
            if later.until > flight.claimed.ended {
                findings.add(Rule::Fifo, || {
                    let (group, message, claimed, later) = (group.index, hold.message, flight.claimed, later.claimed);
                    format!("group {group}: {message}, delivered {claimed}, has passed {passed}, delivered {later}")
                });
            }
        }
        for hold in flight.holds.iter().filter(|hold| last.get(&hold.message) == Some(&index)) {
            to_come.remove(&hold.message);
        }
    }
}

/// The first message to come that was sent before this one by the same producer and is not among those in front of it.
fn first_passed(to_come: &BTreeSet<MessageId>, in_front: &[Hold], message: MessageId) -> Option<MessageId> {
    let first = MessageId { sequence: 0, ..message };
    let mut before = to_come.range(first..message);
    before.find(|passed| !in_front.iter().any(|hold| hold.message == **passed)).copied()
}
