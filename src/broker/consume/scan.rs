//! Walks messages of a subscription in order and says which may be delivered: not expired, readable, selected by the rule.

use crate::domain::clock::Timestamp;
use crate::domain::labels::LabelRule;
use crate::domain::lease::MessageRef;
use crate::domain::message::Message;
use crate::store::log::segments::Segment;

/// A message that may be delivered.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Where it is, with the attempt that this delivery would be.
    pub at: MessageRef,
    /// What it is: a slice of its segment.
    pub message: Message,
    /// Size of the segment, which it keeps in memory.
    pub(crate) segment_bytes: usize,
    /// Offset of the first message of the segment.
    pub(crate) segment_base: i64,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a message that may be delivered comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Never claimed; so many offsets were passed over before it in this walk.
    New {
        /// Offsets passed over.
        skipped_before: i64,
        /// Those of them that the label rule does not select.
        unselected_before: i64,
    },
    /// Failed before; its place in the order of failures.
    Failed {
        /// See [`FailedMessage::failure`](crate::store::subscriptions::retries::FailedMessage::failure).
        failure: i64,
    },
}

impl Candidate {
    /// A message of a segment; `None` when it cannot be read.
    pub(super) fn of(segment: &Segment, at: MessageRef, origin: Origin) -> Option<Self> {
        let message = segment.message(at.offset)?.clone();
        let (segment_bytes, segment_base) = (segment.payload_bytes, segment.base_offset);
        Some(Self { at, message, segment_bytes, segment_base, origin })
    }
}

/// A walk over the log from a cursor.
#[derive(Debug)]
pub(super) struct LogScan<'a> {
    rule: Option<&'a LabelRule>,
    horizon: Timestamp,
    /// Messages found.
    pub(crate) candidates: Vec<Candidate>,
    /// Next offset to look at.
    pub offset: i64,
    /// Append time of the last segment looked at.
    pub time: Timestamp,
    /// Offsets passed over.
    pub skipped: i64,
    /// Those of them whose messages had expired.
    pub expired: i64,
    /// Those of them that the label rule does not select.
    pub(crate) unselected: i64,
    /// Bytes of the messages found.
    pub bytes: usize,
}

impl<'a> LogScan<'a> {
    /// Begins at a cursor.
    pub(super) fn new(rule: Option<&'a LabelRule>, horizon: Timestamp, cursor: i64, cursor_time: Timestamp) -> Self {
        Self {
            rule,
            horizon,
            candidates: Vec::new(),
            offset: cursor,
            time: cursor_time,
            skipped: 0,
            expired: 0,
            unselected: 0,
            bytes: 0,
        }
    }

    /// Passes over messages that have expired, whether or not they are still there.
    pub(super) fn skip_to(&mut self, offset: i64) {
        let expired = (offset - self.offset).max(0);
        self.skipped += expired;
        self.expired += expired;
        self.offset += expired;
    }

    /// Takes from a segment until `enough` messages are found; a walk that has them does not move on.
    pub(super) fn take(&mut self, segment: &Segment, enough: usize) {
        if self.candidates.len() >= enough {
            return;
        }
        self.skip_to(segment.base_offset);
        self.time = segment.appended_at;
        if segment.appended_at <= self.horizon {
            return self.skip_to(segment.end_offset());
        }
        while self.offset < segment.end_offset() && self.candidates.len() < enough {
            let at = MessageRef { offset: self.offset, attempts: 1, appended_at: segment.appended_at };
            let origin = Origin::New { skipped_before: self.skipped, unselected_before: self.unselected };
            let message = segment.message(self.offset);
            let wanted = message.filter(|message| selected(self.rule, message));
            match wanted.and_then(|_| Candidate::of(segment, at, origin)) {
                Some(found) => {
                    self.bytes += found.message.size_bytes();
                    self.candidates.push(found);
                }
                None => {
                    self.unselected += i64::from(message.is_some());
                    self.skipped += 1;
                }
            }
            self.offset += 1;
        }
    }
}

/// Whether a rule selects a message.
pub(super) fn selected(rule: Option<&LabelRule>, message: &Message) -> bool {
    rule.is_none_or(|rule| rule.matches(&message.tags))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::{MessageId, StreamId};

    fn segment(base_offset: i64, appended_at: i64, tags: &[&str]) -> Segment {
        let message = |tag: &&str| Message {
            id: MessageId(Uuid::nil()),
            body: Bytes::from_static(b"1"),
            attributes: Bytes::new(),
            tags: vec![(*tag).to_owned()],
            dead_letter: None,
            trace: None,
        };
        Segment {
            stream: StreamId(1),
            base_offset,
            appended_at: Timestamp(appended_at),
            message_count: i64::try_from(tags.len()).expect("small"),
            messages: tags.iter().map(message).map(Some).collect(),
            payload_bytes: 0,
        }
    }

    fn found(scan: &LogScan<'_>) -> Vec<(i64, i64)> {
        let found = |candidate: &Candidate| match candidate.origin {
            Origin::New { skipped_before, .. } => (candidate.at.offset, skipped_before),
            Origin::Failed { .. } => panic!("it has never been claimed"),
        };
        scan.candidates.iter().map(found).collect()
    }

    #[test]
    fn passes_over_what_no_rule_selects() {
        let rule = LabelRule::new(vec!["a".into()], false);
        let mut scan = LogScan::new(rule.as_ref(), Timestamp(0), 1, Timestamp(0));
        scan.take(&segment(0, 5, &["a", "b", "a", "b"]), 10);
        assert_eq!(found(&scan), [(2, 1)]);
        assert_eq!((scan.offset, scan.skipped, scan.expired, scan.time), (4, 2, 0, Timestamp(5)));
    }

    #[test]
    fn passes_over_what_has_expired_or_cannot_be_read() {
        let mut scan = LogScan::new(None, Timestamp(5), 0, Timestamp(0));
        scan.take(&segment(2, 5, &["a", "b"]), 10);
        assert_eq!(
            (scan.offset, scan.skipped, scan.expired),
            (4, 4, 4),
            "a gap of two, then an expired segment of two"
        );
        let corrupt = Segment { messages: Vec::new(), ..segment(4, 6, &["a"]) };
        assert_eq!((corrupt.unreadable(), segment(4, 6, &["a"]).unreadable()), (1, 0));
        scan.take(&corrupt, 10);
        scan.take(&segment(5, 7, &["a"]), 10);
        assert_eq!(found(&scan), [(5, 5)]);
    }

    #[test]
    fn stops_when_it_has_enough() {
        let mut scan = LogScan::new(None, Timestamp(0), 0, Timestamp(0));
        scan.take(&segment(0, 5, &["a", "b", "c"]), 2);
        // Read ahead with the one before: nothing between them may be passed over.
        scan.take(&segment(3, 6, &["d"]), 2);
        assert_eq!((found(&scan), scan.offset, scan.skipped), (vec![(0, 0), (1, 0)], 2, 0));
        assert_eq!(scan.time, Timestamp(5));
    }
}
