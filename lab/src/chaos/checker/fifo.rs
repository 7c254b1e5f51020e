//! A FIFO queue: each group gets the messages in the order of their sends, a failed one again before those behind it, and one
//! batch at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::{Hold, Holds};
use super::sent::Order;
use crate::chaos::history::{MessageId, Moment, SendCall, Window};

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

/// Whatever comes later was not sent before what is here, unless it is here too, in front of it.
fn check_order(group: &GroupView<'_>, flights: &[Flight<'_>], findings: &mut Findings) {
    let send = |hold: &Hold| group.sent.to_queue(group.log.queue, hold.message);
    let order = |hold: &Hold| Order::of(send(hold)?, hold.message);
    let mut last: BTreeMap<Order, usize> = BTreeMap::new();
    for (index, flight) in flights.iter().enumerate() {
        last.extend(flight.holds.iter().filter_map(order).map(|order| (order, index)));
    }
    let mut to_come: BTreeSet<Order> = last.keys().copied().collect();
    for (index, flight) in flights.iter().enumerate() {
        for (place, hold) in flight.holds.iter().enumerate() {
            let Some(send) = send(hold).filter(|send| send.answered) else { continue };
            let Some(passed) = first_passed(&to_come, &flight.holds[..place], send, hold.message) else { continue };
            let later = &flights[last[&passed]];
            if later.until > flight.claimed.ended {
                findings.add(Rule::Fifo, || {
                    let (group, message, passed) = (group.index, hold.message, passed.message());
                    let (claimed, later) = (flight.claimed, later.claimed);
                    format!("group {group}: {message}, delivered {claimed}, has passed {passed}, delivered {later}")
                });
            }
        }
        for order in flight.holds.iter().filter_map(order).filter(|order| last.get(order) == Some(&index)) {
            to_come.remove(&order);
        }
    }
}

/// The first message to come that was sent before this one and is not among those in front of it.
fn first_passed(to_come: &BTreeSet<Order>, in_front: &[Hold], send: &SendCall, message: MessageId) -> Option<Order> {
    let mut before = Order::in_front(send, message).into_iter().flat_map(|range| to_come.range(range));
    before.find(|passed| !in_front.iter().any(|hold| hold.message == passed.message())).copied()
}
