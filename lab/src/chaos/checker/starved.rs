//! Nothing starves where failed and new messages share the deliveries of a group: while a new message waits, failed ones are
//! delivered hardly more often than new ones, and while a failed one waits, new ones hardly more than twice as often.
//!
//! Only of waits whose both ends were told: a delivery that was lost on its way shows in the count of attempts.

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::Hold;
use crate::chaos::history::{Moment, Unanswered, Window};
use std::time::Duration;

/// Deliveries that are claimed together, or before another replica has heard of what waits.
const SLACK: usize = 200;
/// A delayed message is there so long after its send, and every replica has heard of it.
const HEARD: Duration = Duration::from_secs(3);

pub(super) fn check(group: &GroupView<'_>, findings: &mut Findings) {
    if group.is_fifo() {
        return;
    }
    let by_message = group.normal.by_message();
    let turns = Turns::new(&by_message, group);
    for deliveries in by_message.chunk_by(|one, next| one.message == next.message) {
        if let Some((sent, delivered)) = first_wait(group, deliveries) {
            let (passed, new) = (turns.surely_again(sent, delivered), turns.perhaps_new(sent, delivered));
            if passed > new + SLACK {
                findings.add(Rule::Starved, || text(group, deliveries[0], passed, "failed", new, "new"));
            }
        }
        for pair in deliveries.windows(2) {
            let Some((failed, delivered)) = wait_again(pair[0], pair[1]) else { continue };
            let (passed, fair) = (turns.surely_new(failed, delivered), turns.perhaps_again(failed, delivered));
            if passed > 2 * fair + SLACK {
                findings.add(Rule::Starved, || text(group, pair[1], passed, "new", fair, "failed"));
            }
        }
    }
}

fn text(group: &GroupView<'_>, hold: &Hold, passed: usize, those: &str, fair: usize, others: &str) -> String {
    let (group, message, claimed) = (group.index, hold.message, hold.claimed);
    format!(
        "group {group}: {message}, delivered {claimed}, waited while {passed} {those} and {fair} {others} messages were delivered"
    )
}

/// From when a message was surely there until it was perhaps claimed, if its first delivery is known.
fn first_wait(group: &GroupView<'_>, deliveries: &[&Hold]) -> Option<(Moment, Moment)> {
    let hold = deliveries.first().filter(|hold| hold.attempts == Some(1))?;
    let send = group.sent.to_queue(group.log.queue, hold.message).filter(|send| send.answered)?;
    Some((send.window.ended.plus(HEARD), hold.claimed.began))
}

/// From when a message had surely failed until it was perhaps claimed again, if no delivery between the two is missing.
fn wait_again(one: &Hold, next: &Hold) -> Option<(Moment, Moment)> {
    let is_next = one.attempts?.checked_add(1) == next.attempts && one.is_counted() && next.is_counted();
    is_next.then_some((one.failed?.ended, next.claimed.began))
}

/// The deliveries of a group, new messages and failed ones.
struct Turns<'a> {
    /// Whose answer says that they are the first of their message.
    new: Times,
    /// Whose answer says that they are not, or that came after another delivery of their message.
    again: Times,
    /// Answers of REST tell no count. These are the first of their message that anybody was told of.
    untold: Times,
    /// These may have leased a message before the first delivery that anybody was told of.
    unanswered: &'a [Unanswered],
}

impl<'a> Turns<'a> {
    fn new(by_message: &[&Hold], group: &GroupView<'a>) -> Self {
        let (mut new, mut again, mut untold) = (Vec::new(), Vec::new(), Vec::new());
        for deliveries in by_message.chunk_by(|one, next| one.message == next.message) {
            for (index, hold) in deliveries.iter().enumerate() {
                match hold.attempts {
                    Some(1) => new.push(hold.claimed),
                    None if index == 0 => untold.push(hold.claimed),
                    _ => again.push(hold.claimed),
                }
            }
        }
        let unanswered = &group.log.normal.unanswered;
        Self { new: Times::new(&new), again: Times::new(&again), untold: Times::new(&untold), unanswered }
    }

    /// At most so many of the untold ones were not the first of their message.
    fn hidden(&self, until: Moment) -> usize {
        self.unanswered.iter().filter(|consume| consume.began <= until).map(|consume| consume.max as usize).sum()
    }

    fn surely_new(&self, from: Moment, until: Moment) -> usize {
        self.new.surely(from, until) + self.untold.surely(from, until).saturating_sub(self.hidden(until))
    }

    fn perhaps_new(&self, from: Moment, until: Moment) -> usize {
        self.new.perhaps(from, until) + self.untold.perhaps(from, until)
    }

    fn surely_again(&self, from: Moment, until: Moment) -> usize {
        self.again.surely(from, until)
    }

    fn perhaps_again(&self, from: Moment, until: Moment) -> usize {
        self.again.perhaps(from, until) + self.untold.perhaps(from, until).min(self.hidden(until))
    }
}

/// Deliveries of one kind by time.
struct Times {
    began: Vec<Moment>,
    ended: Vec<Moment>,
}

impl Times {
    fn new(claims: &[Window]) -> Self {
        let mut times = Self {
            began: claims.iter().map(|claim| claim.began).collect(),
            ended: claims.iter().map(|claim| claim.ended).collect(),
        };
        times.began.sort_unstable();
        times.ended.sort_unstable();
        times
    }

    /// At least so many were claimed between the two.
    fn surely(&self, from: Moment, until: Moment) -> usize {
        let ended = self.ended.partition_point(|ended| *ended <= until);
        ended.saturating_sub(self.began.partition_point(|began| *began < from))
    }

    /// At most so many were claimed between the two.
    fn perhaps(&self, from: Moment, until: Moment) -> usize {
        let began = self.began.partition_point(|began| *began <= until);
        began.saturating_sub(self.ended.partition_point(|ended| *ended < from))
    }
}
