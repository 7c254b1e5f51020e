//! Verifies the guarantees over a history. Pure: no clock, no network, no service.
//!
//! - `sent` is what was sent and surely or perhaps stored.
//! - `holds` is what each delivery may have held, from when to when; the other rules compare holds.
//! - `leases`, `fifo`, `starved`, `attempts`, `ends` and `counters` are the rules; each says which guarantee it is about.
//!
//! Calls have windows and not instants, so every rule asks whether any instants within the windows would do. What cannot be
//! told apart from a right run is let pass.

mod attempts;
mod counters;
mod ends;
mod fifo;
mod findings;
mod holds;
mod leases;
mod sent;
mod starved;
#[cfg(test)]
mod tests;

pub(super) use findings::{Findings, Rule};

use self::holds::Holds;
use self::sent::Sent;
use super::history::{GroupLog, History};

/// One group with everything that the rules need to know.
struct GroupView<'a> {
    /// How violations name it.
    index: usize,
    log: &'a GroupLog,
    history: &'a History,
    sent: &'a Sent<'a>,
    normal: Holds,
    dead_letters: Holds,
}

/// Everything that is wrong with a history.
pub(super) fn check(history: &History, findings: &mut Findings) {
    let sent = Sent::new(&history.sends);
    for (index, log) in history.groups.iter().enumerate() {
        let normal = Holds::new(&log.normal, history);
        let dead_letters = Holds::new(&log.dead_letters, history);
        let group = GroupView { index, log, history, sent: &sent, normal, dead_letters };
        leases::check(&group, findings);
        fifo::check(&group, findings);
        starved::check(&group, findings);
        attempts::check(&group, findings);
        ends::check(&group, findings);
        counters::check(&group, findings);
    }
}

impl GroupView<'_> {
    /// Counted deliveries that make a dead letter.
    fn max_consume_count(&self) -> Option<u32> {
        self.history.queues.get(self.log.queue).and_then(|rules| rules.max_consume_count)
    }

    fn is_fifo(&self) -> bool {
        self.history.queues.get(self.log.queue).is_some_and(|rules| rules.fifo)
    }
}
