//! What a run did and found, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::checker::Findings;
use super::history::{AckAnswer, History, ReaderLog};
use super::injector::Tally;

/// Figures of a run.
#[derive(Debug)]
pub(super) struct Report {
    /// From the first send to the last acknowledgement.
    pub duration: Duration,
    /// Rounds, faults, recoveries.
    pub tally: Tally,
    /// Failed calls by kind.
    pub errors: BTreeMap<String, u64>,
    /// What is wrong.
    pub findings: Findings,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    answered: u64,
    unanswered: u64,
    deliveries: u64,
    dead_letter_deliveries: u64,
    acks: u64,
    refused: u64,
    unknown: u64,
    crashes: usize,
}

impl Counts {
    fn of(history: &History) -> Self {
        let mut counts = Self { crashes: history.crashes.len(), ..Self::default() };
        for send in &history.sends {
            *if send.answered { &mut counts.answered } else { &mut counts.unanswered } += u64::from(send.count);
        }
        for group in &history.groups {
            counts.deliveries += deliveries(&group.normal);
            counts.dead_letter_deliveries += deliveries(&group.dead_letters);
            for ack in group.normal.acks.iter().chain(&group.dead_letters.acks) {
                *match ack.answer {
                    AckAnswer::Outcomes(_) => &mut counts.acks,
                    AckAnswer::Refused => &mut counts.refused,
                    AckAnswer::Unknown => &mut counts.unknown,
                } += 1;
            }
        }
        counts
    }
}

fn deliveries(log: &ReaderLog) -> u64 {
    log.batches.iter().map(|batch| batch.deliveries.len() as u64).sum()
}

impl Report {
    /// Sums up a run.
    pub(super) fn new(
        history: &History,
        findings: Findings,
        tally: Tally,
        errors: BTreeMap<String, u64>,
        duration: Duration,
    ) -> Self {
        Self { duration, tally, errors, findings, counts: Counts::of(history) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { answered, unanswered, deliveries, dead_letter_deliveries, acks, refused, unknown, crashes } =
            self.counts;
        writeln!(f, "{} rounds of faults in {:.0} s", self.tally.rounds, self.duration.as_secs_f64())?;
        let faults: Vec<String> =
            self.tally.faults.iter().map(|(fault, count)| format!("{} {count}", fault.name())).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        if let (Some(median), Some(longest)) = (median(&self.tally.recoveries), self.tally.recoveries.iter().max()) {
            let (median, longest) = (median.as_secs_f64(), longest.as_secs_f64());
            writeln!(f, "every replica took sends again {median:.2} s after a round, {longest:.2} s at most")?;
        }
        writeln!(f, "crashes of Postgres: {crashes}")?;
        writeln!(f, "messages sent: {answered} answered, {unanswered} without an answer")?;
        writeln!(f, "deliveries: {deliveries}, of dead letters {dead_letter_deliveries}")?;
        writeln!(f, "acknowledgements: {acks} answered, {refused} refused, {unknown} without an answer")?;
        for (label, count) in &self.errors {
            writeln!(f, "failed: {label} {count}")?;
        }
        write!(f, "{}violations: {}", self.findings, self.findings.count())
    }
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied()
}
