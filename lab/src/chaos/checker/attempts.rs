//! At most `max_consume_count` counted deliveries, and each is counted. Those that a crash of Postgres may have taken back are
//! not.

use super::GroupView;
use super::findings::{Findings, Rule};
use super::holds::Hold;

pub(super) fn check(group: &GroupView<'_>, findings: &mut Findings) {
    for deliveries in group.normal.by_message().chunk_by(|one, next| one.message == next.message) {
        check_count(group, deliveries, findings);
        check_steps(group.index, deliveries, findings);
    }
}

fn check_count(group: &GroupView<'_>, deliveries: &[&Hold], findings: &mut Findings) {
    let Some(max) = group.max_consume_count() else { return };
    let counted = deliveries.iter().filter(|hold| hold.is_counted()).count();
    let told = deliveries.iter().filter_map(|hold| hold.attempts).max().unwrap_or(0);
    if counted > max as usize || u32::from(told) > max {
        findings.add(Rule::Attempts, || {
            let (group, message) = (group.index, deliveries[0].message);
            format!(
                "group {group}: {message} was delivered {counted} times, the service counts {told}, {max} are allowed"
            )
        });
    }
}

/// Of two deliveries the later one counts more.
fn check_steps(group: usize, deliveries: &[&Hold], findings: &mut Findings) {
    let told: Vec<(&Hold, u8)> = deliveries.iter().filter_map(|hold| Some((*hold, hold.attempts?))).collect();
    for pair in told.windows(2) {
        let [(one, before), (next, after)] = pair else { continue };
        if after <= before && one.is_counted() && one.surely_precedes(next) {
            findings.add(Rule::Attempts, || {
                let (message, claimed) = (one.message, one.claimed);
                format!("group {group}: attempt {before} of {message}, {claimed}, was followed by attempt {after}")
            });
        }
    }
}
