//! Every message ends once in every group: acknowledged, or as one dead letter that is acknowledged in its turn. And nothing
//! else is delivered.

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::{Hold, of_message};

pub(super) fn check(group: &GroupView<'_>, findings: &mut Findings) {
    let normal = group.normal.by_message();
    let dead_letters = group.dead_letters.by_message();
    check_sent(group, &normal, &dead_letters, findings);
    for letters in dead_letters.chunk_by(|one, next| one.message == next.message) {
        check_letter(group, of_message(&normal, letters[0].message), letters, findings);
    }
    for deliveries in [&normal, &dead_letters] {
        for hold in deliveries.chunk_by(|one, next| one.message == next.message).map(|holds| holds[0]) {
            if group.sent.to_queue(group.log.queue, hold.message).is_none() {
                findings.add(Rule::Stranger, || {
                    format!(
                        "group {}: {} was not sent to its queue, delivered {}",
                        group.index, hold.message, hold.claimed
                    )
                });
            }
        }
    }
}

/// What was surely sent has ended.
fn check_sent(group: &GroupView<'_>, normal: &[&Hold], dead_letters: &[&Hold], findings: &mut Findings) {
    for message in group.sent.surely(group.log.queue) {
        let deliveries = of_message(normal, message);
        let letters = of_message(dead_letters, message);
        if !letters.is_empty() {
            if !letters.iter().any(|letter| letter.may_be_acked()) {
                findings
                    .add(Rule::DeadLetter, || format!("group {}: the dead letter of {message} is lost", group.index));
            }
        } else if !deliveries.iter().any(|hold| hold.may_be_acked()) {
            let counted = deliveries.iter().filter(|hold| hold.is_counted()).count();
            let failed_for_good = group.max_consume_count().is_some_and(|max| counted >= max as usize);
            let rule = if failed_for_good { Rule::DeadLetter } else { Rule::Lost };
            findings.add(rule, || {
                let last = deliveries.last().map(|hold| format!(", the last one {}", hold.claimed)).unwrap_or_default();
                format!("group {}: {message} never ended; delivered {} times{last}", group.index, deliveries.len())
            });
        }
    }
}

/// A dead letter failed as often as it may, and is nothing else any more.
fn check_letter(group: &GroupView<'_>, deliveries: &[&Hold], letters: &[&Hold], findings: &mut Findings) {
    let letter = letters[0];
    let mut add = |what: String| {
        let (group, message, claimed) = (group.index, letter.message, letter.claimed);
        findings.add(Rule::DeadLetter, || format!("group {group}: {message}, a dead letter {claimed}, {what}"));
    };
    let Some(max) = group.max_consume_count() else { return add("is of a queue without dead letters".into()) };
    if let Some(acked) = deliveries.iter().find_map(|hold| hold.acked) {
        add(format!("was acknowledged {acked}"));
    }
    if let Some(hold) = deliveries.iter().find(|hold| hold.claimed.began >= letter.claimed.ended) {
        add(format!("was delivered as a normal message {}", hold.claimed));
    }
    if let Some(attempts) = letters.iter().find_map(|letter| letter.attempts.filter(|told| u32::from(*told) != max)) {
        add(format!("had {attempts} counted deliveries, not {max}"));
    }
}
