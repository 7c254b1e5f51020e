//! Violations, by the guarantee that they break.

use std::collections::BTreeMap;
use std::fmt;

/// A guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// No answered send is lost to any group.
    Lost,
    /// Nothing is delivered to a group after its answered acknowledgement.
    AfterAck,
    /// A lease is exclusive until it ends, and is there until then.
    Lease,
    /// Handlers of ended or settled leases are refused.
    OldHandler,
    /// Handlers of other groups, queues, streams and projects are refused.
    ForeignHandler,
    /// A FIFO queue delivers in the order of its sends, one batch at a time to a group.
    Fifo,
    /// On other queues failed and new messages share the deliveries: none waits behind any number of others.
    Starved,
    /// At most `max_consume_count` counted deliveries, each counted.
    Attempts,
    /// Exactly one dead letter, of what failed so often, and of nothing else.
    DeadLetter,
    /// The counters are right when nothing is in flight.
    Counters,
    /// Nothing is delivered that was not sent, or that was sent to another queue, or changed.
    Stranger,
    /// Answers are those that are documented.
    Answer,
    /// The service works again by itself when a fault is over, ends in order when told, and never by itself.
    Recovery,
}

impl Rule {
    /// How reports name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rule::Lost => "lost",
            Rule::AfterAck => "after-ack",
            Rule::Lease => "lease",
            Rule::OldHandler => "old-handler",
            Rule::ForeignHandler => "foreign-handler",
            Rule::Fifo => "fifo",
            Rule::Starved => "starved",
            Rule::Attempts => "attempts",
            Rule::DeadLetter => "dead-letter",
            Rule::Counters => "counters",
            Rule::Stranger => "stranger",
            Rule::Answer => "answer",
            Rule::Recovery => "recovery",
        }
    }
}

/// Violations of one rule: all are counted, the first ones told.
#[derive(Debug, Clone, Default)]
struct Found {
    count: u64,
    first: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    by_rule: BTreeMap<Rule, Found>,
}

impl Findings {
    const TOLD_MAX: usize = 10;

    /// Adds a violation.
    pub(crate) fn add(&mut self, rule: Rule, text: impl FnOnce() -> String) {
        let found = self.by_rule.entry(rule).or_default();
        found.count += 1;
        if found.first.len() < Self::TOLD_MAX {
            found.first.push(text());
        }
    }

    /// The rules that were violated.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.by_rule.keys().copied().collect()
    }

    /// Violations of all rules.
    pub(crate) fn count(&self) -> u64 {
        self.by_rule.values().map(|found| found.count).sum()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, found) in &self.by_rule {
            writeln!(f, "VIOLATION of {}: {} times", rule.name(), found.count)?;
            for text in &found.first {
                writeln!(f, "  {text}")?;
            }
        }
        Ok(())
    }
}
