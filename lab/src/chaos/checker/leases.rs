//! Leases are exclusive until they end, are there until then, and their handlers are good for nothing afterwards. After an
//! answered acknowledgement the message never comes again.

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::{Hold, Holds};
use crate::chaos::api::AckOutcome;
use crate::chaos::history::{AckAnswer, AckCall, DeliveryRef, ReaderLog};

pub(super) fn check(group: &GroupView<'_>, findings: &mut Findings) {
    check_reader(group.index, &group.log.normal, &group.normal, None, findings);
    // A dead letter that was stored twice comes again beside its own lease, or after its acknowledgement.
    let rule = Some(Rule::DeadLetter);
    check_reader(group.index, &group.log.dead_letters, &group.dead_letters, rule, findings);
}

/// `again` is the rule that is broken by a message that comes again too soon, when it is the same one whatever the reason.
fn check_reader(group: usize, log: &ReaderLog, holds: &Holds, again: Option<Rule>, findings: &mut Findings) {
    let by_message = holds.by_message();
    for deliveries in by_message.chunk_by(|one, next| one.message == next.message) {
        for (index, one) in deliveries.iter().enumerate() {
            for next in &deliveries[index + 1..] {
                check_pair(group, one, next, again, findings);
            }
        }
    }
    check_acks(group, log, holds, findings);
}

/// Two deliveries of one message, by the order of their answers.
fn check_pair(group: usize, one: &Hold, next: &Hold, again: Option<Rule>, findings: &mut Findings) {
    if one.may_precede(next) || next.may_precede(one) {
        return check_failure(group, one, next, findings);
    }
    let (rule, what) = match one.acked {
        Some(acked) if next.claimed.began >= acked.ended => (Rule::AfterAck, "was delivered after its acknowledgement"),
        Some(acked) if acked.began >= next.claimed.ended && one.free_from() <= next.claimed.ended => {
            (Rule::OldHandler, "was acknowledged by the handler of a lease that had ended and was followed by another")
        }
        _ => (Rule::Lease, "was delivered while it was leased"),
    };
    findings.add(again.filter(|_| rule != Rule::OldHandler).unwrap_or(rule), || {
        let acked = one.acked.map(|acked| format!(", acknowledged {acked}")).unwrap_or_default();
        format!("group {group}: {} {what}: delivered {}{acked}, and {}", one.message, one.claimed, next.claimed)
    });
}

/// An answered failure by a handler whose message had been delivered again before.
fn check_failure(group: usize, one: &Hold, next: &Hold, findings: &mut Findings) {
    let Some(failed) = one.failed else { return };
    // Had this failure ended the lease, the next delivery would not have come before it.
    if failed.began >= next.claimed.ended && one.surely_precedes(next) {
        findings.add(Rule::OldHandler, || {
            let message = one.message;
            format!(
                "group {group}: {message} was failed {failed} by the handler of {}, after {}",
                one.claimed, next.claimed
            )
        });
    }
}

/// What each handler did: at most one thing, while its lease was there, and not nothing while it was there for sure.
fn check_acks(group: usize, log: &ReaderLog, holds: &Holds, findings: &mut Findings) {
    let mut uses: Vec<(DeliveryRef, Use<'_>)> = log.acks.iter().flat_map(uses_of).collect();
    uses.sort_by_key(|(delivery, used)| (*delivery, used.call.window.ended));
    for uses in uses.chunk_by(|(one, _), (next, _)| one == next) {
        let hold = holds.get(uses[0].0);
        let uses: Vec<&Use<'_>> = uses.iter().map(|(_, used)| used).collect();
        check_uses(group, hold, &uses, findings);
    }
}

/// One use of a handler.
struct Use<'a> {
    call: &'a AckCall,
    /// `None`: not known.
    outcome: Option<AckOutcome>,
}

impl Use<'_> {
    /// Whether it surely settled the delivery.
    fn settled(&self) -> bool {
        matches!(self.outcome, Some(AckOutcome::Acked | AckOutcome::Failed))
    }

    fn was_refused(&self) -> bool {
        self.outcome == Some(AckOutcome::InvalidHandler)
    }
}

fn uses_of(call: &AckCall) -> impl Iterator<Item = (DeliveryRef, Use<'_>)> {
    call.entries.iter().enumerate().filter_map(move |(index, entry)| {
        let outcome = match &call.answer {
            AckAnswer::Unknown => None,
            // Only the first handler is known to be bad; of the others nothing is said and nothing was done.
            AckAnswer::Refused if index == 0 => Some(AckOutcome::InvalidHandler),
            AckAnswer::Refused => return None,
            AckAnswer::Outcomes(outcomes) => outcomes.get(index).copied(),
        };
        Some((entry.delivery, Use { call, outcome }))
    })
}

fn check_uses(group: usize, hold: &Hold, uses: &[&Use<'_>], findings: &mut Findings) {
    let message = hold.message;
    let settled: Vec<&&Use<'_>> = uses.iter().filter(|used| used.settled()).collect();
    if settled.len() > 1 {
        findings.add(Rule::OldHandler, || {
            format!("group {group}: the handler of {message}, delivered {}, was accepted twice", hold.claimed)
        });
    }
    for used in settled.iter().filter(|used| used.call.window.began > hold.expires_until) {
        findings.add(Rule::OldHandler, || {
            let window = used.call.window;
            format!("group {group}: {message}, delivered {}, was settled {window}, after its lease", hold.claimed)
        });
    }
    for used in uses.iter().filter(|used| used.was_refused() && !is_excused(hold, used, uses)) {
        findings.add(Rule::Lease, || {
            let window = used.call.window;
            format!("group {group}: the handler of {message}, delivered {}, was refused {window}", hold.claimed)
        });
    }
}

/// Whether a handler may have been refused: its lease had ended, was taken back, or had been settled.
fn is_excused(hold: &Hold, used: &Use<'_>, uses: &[&Use<'_>]) -> bool {
    let ended = used.call.window.ended;
    let settles = |other: &&&Use<'_>| !other.was_refused() && other.call.window.began < ended;
    hold.expires_from <= ended
        || hold.taken_back_from.is_some_and(|from| from <= ended)
        || uses.iter().filter(settles).any(|other| !std::ptr::eq::<Use<'_>>(*other, used))
}
