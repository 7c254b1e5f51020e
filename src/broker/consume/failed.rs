//! Finds failed messages of all subscriptions of a round: one statement says which they are, one reads what of them is not in
//! memory. Both are bounded; what did not fit is for the next round.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::ClaimLane;
use super::budget::RoundBudget;
use super::scan::{Candidate, Origin, selected};
use super::subscription::{NextSource, Subscription};
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{StreamId, SubscriptionKey};
use crate::domain::labels::LabelRule;
use crate::domain::lease::MessageRef;
use crate::store::log::held_segments::{self, HeldSegments};
use crate::store::log::segments::Segment;
use crate::store::session::connection::flush;
use crate::store::subscriptions::retries::{self, FailedMessage, ReadFailed};

/// Bytes of segments read by one statement on behalf of failed messages.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The failed messages of one subscription.
#[derive(Debug, Default)]
pub(super) struct FoundFailed {
    /// Those that may be delivered, in the order of their redelivery.
    pub(crate) candidates: VecDeque<Candidate>,
    /// Those that have expired, are not selected any more, or cannot be read.
    pub dropped: Vec<i64>,
    /// How many of them have expired.
    pub expired: i64,
    /// How many of them the label rule does not select any more.
    pub(crate) unselected: i64,
    /// The last failure that was looked at.
    pub last: i64,
    /// The first failure that nothing was decided about, for its message did not fit into this round.
    pub(crate) undecided_from: Option<i64>,
}

/// Segments in reach: those in memory, and those just read.
struct Reach {
    in_memory: BTreeMap<(StreamId, i64), Arc<Segment>>,
    deferred: HeldSegments,
}

impl Reach {
    fn holding(&self, stream: StreamId, message: MessageRef) -> Option<&Arc<Segment>> {
        let (_, segment) = self.in_memory.range(..=(stream, message.offset)).next_back()?;
        let holds = segment.stream == stream && segment.appended_at == message.appended_at;
        (holds && message.offset < segment.end_offset()).then_some(segment)
    }
}

impl ClaimLane {
    /// The failed messages of those subscriptions that may deliver some.
    pub(super) async fn find_failed(
        &mut self,
        keys: &[SubscriptionKey],
        budget: &mut RoundBudget,
    ) -> Result<BTreeMap<SubscriptionKey, FoundFailed>> {
        let (asked, mut all) = self.failed_asked(keys);
        if asked.is_empty() {
            return Ok(all);
        }
        let mut rows = flush!(self.connection, conn => retries::read(conn, &asked))?;
        for (key, rows) in &mut rows {
            if self.subscriptions.get(key).is_some_and(|subscription| subscription.exclusive) {
                rows.sort_by_key(|row| row.message.offset);
            }
        }
        let horizons: BTreeMap<SubscriptionKey, Timestamp> = asked
            .iter()
            .filter_map(|asked| Some((asked.key, self.core.horizon(self.subscriptions.get(&asked.key)?.retention))))
            .collect();
        // In the turns of the subscriptions: the bound goes to those behind.
        let in_turn = || asked.iter().filter_map(|asked| Some((asked.key, rows.get(&asked.key)?)));
        let live = |key: &SubscriptionKey, row: &FailedMessage| row.message.appended_at > horizons[key];
        let messages = in_turn().flat_map(|(key, rows)| {
            rows.iter().filter(move |row| live(&key, row)).map(move |row| (key.stream, row.message))
        });
        let reach = self.reach(messages.collect(), budget).await?;
        let found = in_turn().map(|(key, rows)| {
            let rule = self.subscriptions.get(&key).and_then(|subscription| subscription.row()?.rule.as_ref());
            (key, found(key.stream, rows, horizons[&key], rule, &reach))
        });
        all.extend(found);
        Ok(all)
    }

    /// Whose failed messages to look for, and how many of them: as many together as one statement looks up. And of whom nothing
    /// is decided, for there is no room.
    fn failed_asked(&mut self, keys: &[SubscriptionKey]) -> (Vec<ReadFailed>, BTreeMap<SubscriptionKey, FoundFailed>) {
        let (mut asked, mut room) = (Vec::new(), held_segments::MESSAGES_MAX);
        let mut undecided = BTreeMap::new();
        for key in keys {
            let Some(subscription) = self.subscriptions.get_mut(key) else { continue };
            let wanted = subscription.failed_wanted();
            let Some(state) = subscription.row().filter(|_| wanted > 0) else { continue };
            if room == 0 {
                let undecided_from = Some(state.retry_cursor + 1);
                undecided.insert(*key, FoundFailed { undecided_from, ..FoundFailed::default() });
                continue;
            }
            let wanted = wanted.min(room);
            // A FIFO queue delivers them by offset; there are never more than the batch in flight had.
            let limit = if subscription.exclusive { i64::MAX } else { i64::try_from(wanted).unwrap_or(i64::MAX) };
            asked.push(ReadFailed { key: *key, after: state.retry_cursor, limit });
            room -= wanted;
        }
        (asked, undecided)
    }

    /// Brings the segments of messages into reach, within the bounds.
    async fn reach(&mut self, messages: Vec<(StreamId, MessageRef)>, budget: &mut RoundBudget) -> Result<Reach> {
        let mut in_memory = BTreeMap::new();
        let mut missing = Vec::new();
        for (stream, message) in messages {
            match self.core.cache.holding(stream, message) {
                Some(segment) => _ = in_memory.insert((stream, segment.base_offset), segment),
                None => missing.push((stream, message)),
            }
        }
        let mut deferred = HeldSegments::default();
        if !missing.is_empty() {
            let read = flush!(self.connection, conn => held_segments::read_holding(conn, &missing, BYTES_MAX));
            deferred = read?;
        }
        for segment in std::mem::take(&mut deferred.segments) {
            budget.looked_at(segment.payload_bytes);
            in_memory.insert((segment.stream, segment.base_offset), self.keep(segment));
        }
        Ok(Reach { in_memory, deferred })
    }
}

impl Subscription {
    /// How many failed messages could be delivered now, at most.
    fn failed_wanted(&mut self) -> usize {
        let wanted = self.wanted(super::round::MESSAGES_MAX);
        match self.next_source() {
            NextSource::Failed => wanted,
            NextSource::Both => wanted.div_ceil(2),
            NextSource::Log | NextSource::Blocked | NextSource::Nothing => 0,
        }
    }
}

/// What may be delivered, and what is to be dropped: in order, up to the first that did not fit into the round.
fn found(
    stream: StreamId,
    rows: &[FailedMessage],
    horizon: Timestamp,
    rule: Option<&LabelRule>,
    reach: &Reach,
) -> FoundFailed {
    let last = rows.iter().map(|row| row.failure).max().unwrap_or(0);
    let mut found = FoundFailed { last, ..FoundFailed::default() };
    for (index, FailedMessage { message, failure }) in rows.iter().enumerate() {
        if message.appended_at <= horizon {
            found.dropped.push(message.offset);
            found.expired += 1;
            continue;
        }
        let segment = reach.holding(stream, *message);
        if segment.is_none() && reach.deferred.has_deferred(stream, *message) {
            found.undecided_from = rows[index..].iter().map(|row| row.failure).min();
            break;
        }
        let at = MessageRef { attempts: message.attempts.saturating_add(1), ..*message };
        let candidate = segment.and_then(|segment| Candidate::of(segment, at, Origin::Failed { failure: *failure }));
        match candidate {
            Some(candidate) if selected(rule, &candidate.message) => found.candidates.push_back(candidate),
            unselected => {
                found.unselected += i64::from(unselected.is_some());
                found.dropped.push(message.offset);
            }
        }
    }
    found
}
