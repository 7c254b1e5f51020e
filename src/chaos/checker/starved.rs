//! Nothing starves where failed and new messages share the deliveries of a group: while a new message waits, failed ones are
//! delivered hardly more often than new ones, and while a failed one waits, new ones hardly more than twice as often.
//!
//! Only of waits whose both ends were told: a delivery that was lost on its way shows in the count of attempts.

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::Hold;
use crate::chaos::history::Moment;
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
    let (first, again, untold) =
        (by(&by_message, |n| n == Some(1)), by(&by_message, |n| n > Some(1)), by(&by_message, |n| n.is_none()));
    for deliveries in by_message.chunk_by(|one, next| one.message == next.message) {
        if let Some((sent, delivered)) = first_wait(group, deliveries) {
            let (passed, new) =
                (again.surely(sent, delivered), first.perhaps(sent, delivered) + untold.perhaps(sent, delivered));
            if passed > new + SLACK {
                findings.add(Rule::Starved, || text(group, deliveries[0], passed, "failed", new, "new"));
            }
        }
        for pair in deliveries.windows(2) {
            let Some((failed, delivered)) = wait_again(pair[0], pair[1]) else { continue };
            let (passed, fair) =
                (first.surely(failed, delivered), again.perhaps(failed, delivered) + untold.perhaps(failed, delivered));
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

/// Deliveries of one kind by time.
struct Times {
    began: Vec<Moment>,
    ended: Vec<Moment>,
}

fn by(holds: &[&Hold], kind: impl Fn(Option<u8>) -> bool) -> Times {
    let of_kind = || holds.iter().filter(|hold| kind(hold.attempts));
    let mut times = Times {
        began: of_kind().map(|hold| hold.claimed.began).collect(),
        ended: of_kind().map(|hold| hold.claimed.ended).collect(),
    };
    times.began.sort_unstable();
    times.ended.sort_unstable();
    times
}

impl Times {
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
