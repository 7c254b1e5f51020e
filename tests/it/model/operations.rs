//! What clients ask and what they were answered, in the words of the model.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use dms_client::v1 as pb;

/// Microseconds since 1970.
pub(super) type Micros = i64;
/// No stream has as many appends while the clock stands still as this has microseconds.
pub(super) const MOMENT: Micros = 1_000;
/// A message: the number that is its body.
pub(super) type Number = u32;
/// A consumer group, never used again after its deletion.
pub(super) type GroupNo = u32;
/// A handler that was given out.
pub(super) type Token = usize;

/// Answers that refuse.
pub(super) const TOO_MANY_GROUPS: &str = "DMS.10240019";
pub(super) const GROUP_NOT_FOUND: &str = "DMS.10240405";
pub(super) const HANDLER_MISMATCH: &str = "DMS.10540004";
pub(super) const REQUEST_FORMAT: &str = "DMS.10540010";
pub(super) const CONSUME_FAILED: &str = "DMS.10542204";
pub(super) const HANDLER_INVALID: &str = "DMS.10542209";

/// Normal messages or dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    Normal,
    Dead,
}

/// Which stream of which group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ReaderName {
    pub group: GroupNo,
    pub source: Source,
}

/// Which messages a group selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub labels: BTreeSet<String>,
    pub all: bool,
}

impl Rule {
    pub(super) fn matches(&self, labels: &[String]) -> bool {
        let has = |label: &String| labels.contains(label);
        if self.all { self.labels.iter().all(has) } else { self.labels.iter().any(has) }
    }
}

/// A message as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub number: Number,
    pub labels: Vec<String>,
    /// Seconds.
    pub delay: u64,
}

/// Where a message landed in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: i64,
    pub appended_at: Micros,
}

/// What a dead letter says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    pub reason: pb::DeadLetterReason,
    pub attempts: i32,
    pub origin: Place,
}

/// One message of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub number: Number,
    pub place: Place,
    pub attempt: i32,
    pub token: Token,
    pub expires: Micros,
    pub death: Option<Death>,
}

/// A handler to settle: one that was given out (to whom?), or nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    Given { token: Token, to: ReaderName },
    Nonsense,
}

/// What a client asks of one queue.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Send(Vec<Sent>),
    Consume {
        reader: ReaderName,
        max: usize,
        lease: Duration,
        rule: Option<Rule>,
    },
    Ack {
        reader: ReaderName,
        entries: Vec<(Handler, bool)>,
    },
    CreateGroup(GroupNo),
    DeleteGroup(GroupNo),
    /// No call of its own: what a retrieval with labels does on arrival, maybe long before it is answered.
    Bind(GroupNo, Rule),
}

/// What it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// With the places of the messages that are not delayed, as the witness group saw them.
    Sent(Vec<Option<Place>>),
    Batch(Vec<Delivery>),
    Acked(Vec<pb::AckOutcome>),
    Done,
    Refused(String),
}

/// One operation of a round, with its beginning and end since the round began.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub op: Op,
    pub answer: Answer,
    pub replica: usize,
    pub began: Duration,
    pub ended: Duration,
}

impl fmt::Display for ReaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = if self.source == Source::Dead { " dead letters" } else { "" };
        write!(f, "g{}{source}", self.group)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        f.write_str(&labels.join(if self.all { "&" } else { "|" }))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(messages) => {
                f.write_str("send")?;
                messages.iter().try_for_each(|sent| {
                    write!(f, " {}{}", sent.number, sent.labels.concat())?;
                    if sent.delay > 0 { write!(f, "+{}s", sent.delay) } else { Ok(()) }
                })
            }
            Self::Consume { reader, max, lease, rule } => {
                write!(f, "consume {reader} max {max} lease {}s", lease.as_secs())?;
                rule.as_ref().map_or(Ok(()), |rule| write!(f, " labels {rule}"))
            }
            Self::Ack { reader, entries } => {
                write!(f, "ack {reader}")?;
                entries.iter().try_for_each(|(handler, success)| {
                    let sign = if *success { '+' } else { '-' };
                    match handler {
                        Handler::Given { token, to } if to == reader => write!(f, " {sign}h{token}"),
                        Handler::Given { token, to } => write!(f, " {sign}h{token}({to})"),
                        Handler::Nonsense => write!(f, " {sign}nonsense"),
                    }
                })
            }
            Self::CreateGroup(group) => write!(f, "create g{group}"),
            Self::DeleteGroup(group) => write!(f, "delete g{group}"),
            Self::Bind(group, rule) => write!(f, "bind g{group} to {rule}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(places) => {
                f.write_str("stored")?;
                places.iter().flatten().try_for_each(|place| write!(f, " @{}", place.offset))
            }
            Self::Batch(batch) if batch.is_empty() => f.write_str("nothing"),
            Self::Batch(batch) => batch.iter().try_for_each(|delivery| {
                let Delivery { number, place, attempt, token, .. } = delivery;
                write!(f, "{number}@{}#{attempt}:h{token} ", place.offset)
            }),
            Self::Acked(outcomes) => {
                let short = |outcome: &pb::AckOutcome| match outcome {
                    pb::AckOutcome::Acked => "acked",
                    pb::AckOutcome::Failed => "failed",
                    pb::AckOutcome::InvalidHandler => "invalid",
                    pb::AckOutcome::AfterFailure => "after",
                    pb::AckOutcome::Unspecified => "?",
                };
                f.write_str(&outcomes.iter().map(short).collect::<Vec<_>>().join(" "))
            }
            Self::Done => f.write_str("done"),
            Self::Refused(code) => write!(f, "refused {code}"),
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (began, ended) = (self.began.as_millis(), self.ended.as_millis());
        write!(f, "[{began:>4}-{ended:>4} ms, replica {}] {} -> {}", self.replica, self.op, self.answer)
    }
}
