//! Finds messages never claimed: those behind the cursor.

use std::sync::Arc;

use super::ClaimLane;
use super::budget::RoundBudget;
use super::scan::{Candidate, LogScan};
use super::subscription::Subscription;
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::store::log::segments::{self, ReadFrom, Segment};
use crate::store::session::connection::flush;
use crate::store::subscriptions::SubscriptionState;

/// Bytes of the log looked at on behalf of one subscription in a round, rounded up to a whole segment: a label rule may select
/// little of a long backlog, and the others in the lane wait meanwhile.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Segments looked at on behalf of one subscription in a round.
const SEGMENTS_MAX: usize = 64;
/// Segments read by one statement, as far as the bytes allow.
const SEGMENTS_READ: i64 = 16;
/// A walk that delivers less than this share of the bytes that it may look at is a search.
const SEARCH_SHARE: usize = 4;

/// What a walk over the log found.
pub(super) struct FoundNew {
    /// Messages that may be delivered.
    pub(crate) candidates: Vec<Candidate>,
    /// Where the walk ended.
    pub end: i64,
    /// Append time there.
    pub time: Timestamp,
    /// Offsets passed over.
    pub skipped: i64,
    /// Those of them that had expired.
    pub expired: i64,
    /// Those of them that the label rule does not select.
    pub(crate) unselected: i64,
    /// Whether it ended at its bounds, having found little.
    pub(crate) is_search: bool,
}

impl ClaimLane {
    /// A segment was read from the log: keeps it in memory, and counts what of it cannot be read.
    pub(super) fn keep(&self, segment: Segment) -> Arc<Segment> {
        self.core.metrics.messages().corrupt(segment.unreadable());
        let segment = Arc::new(segment);
        self.core.cache.insert(self.epoch, Arc::clone(&segment));
        segment
    }

    /// Messages from the cursor to the end of the stream: from memory while they are there, else from the log.
    pub(super) async fn find_new(
        &mut self,
        state: &SubscriptionState,
        end: i64,
        horizon: Timestamp,
        wanted: usize,
        budget: &mut RoundBudget,
    ) -> Result<FoundNew> {
        let mut scan = LogScan::new(state.rule.as_ref(), horizon, state.cursor, state.cursor_time);
        let (mut looked_at, mut segments_looked_at) = (0, 0);
        while scan.candidates.len() < wanted
            && scan.offset < end
            && looked_at < BYTES_MAX
            && segments_looked_at < SEGMENTS_MAX
        {
            let in_memory = self.core.cache.get(state.key.stream, scan.offset);
            self.core.metrics.replica().looked_up(in_memory.is_some());
            if let Some(segment) = in_memory {
                let from = scan.offset;
                scan.take(&segment, wanted);
                looked_at += walked_bytes(&segment, scan.offset - from);
                segments_looked_at += 1;
                continue;
            }
            // No further than what is in memory again: replicas append in turns.
            let next = self.core.cache.next_behind(state.key.stream, scan.offset);
            let not_after = next.as_ref().map(|segment| segment.appended_at);
            let from =
                ReadFrom { stream: state.key.stream, offset: scan.offset, not_before: scan.time, horizon, not_after };
            let bytes_max = BYTES_MAX - looked_at;
            let segments = flush!(self.connection, conn => segments::read(conn, from, SEGMENTS_READ, bytes_max))?;
            match next {
                Some(next) if segments.is_empty() => scan.skip_to(next.base_offset),
                None if segments.is_empty() => {
                    // All has expired up to where the stream ended when the row was read. Beyond that there may be nothing: a
                    // crash takes back what a wake-up has told of.
                    scan.skip_to(state.tail);
                    if scan.offset < end {
                        self.subscriptions.get_mut(&state.key).into_iter().for_each(Subscription::forget_row);
                        break;
                    }
                }
                _ => {}
            }
            for segment in segments {
                looked_at += segment.payload_bytes;
                segments_looked_at += 1;
                scan.take(&self.keep(segment), wanted);
            }
        }
        budget.looked_at(looked_at);
        let is_at_bounds = looked_at >= BYTES_MAX || segments_looked_at >= SEGMENTS_MAX;
        let is_search = is_at_bounds && scan.candidates.len() < wanted && scan.bytes < looked_at / SEARCH_SHARE;
        let LogScan { candidates, offset: end, time, skipped, expired, unselected, .. } = scan;
        Ok(FoundNew { candidates, end, time, skipped, expired, unselected, is_search })
    }
}

/// The part of a segment in memory that so many messages are.
fn walked_bytes(segment: &Segment, messages: i64) -> usize {
    let share = messages.max(0).min(segment.message_count) as f64 / segment.message_count.max(1) as f64;
    (segment.payload_bytes as f64 * share) as usize
}
