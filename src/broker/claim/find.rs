//! Finds the messages that a reader may give out: those that have failed before, or those behind the cursor.

use std::sync::Arc;

use super::ClaimLane;
use super::reader::Reader;
use super::scan::{Candidate, LogScan, selected};
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::domain::lease::{MessageRef, SubscriptionState};
use crate::store;
use crate::store::connection::flush;
use crate::store::segments::{ReadFrom, Segment};

/// Bytes looked for on behalf of one reader in a round.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Segments read at once.
const SEGMENTS_READ: i64 = 4;
/// Segments looked at on behalf of one reader in a round, when the rule selects little of them.
const SEGMENTS_MAX: usize = 64;

/// What a reader's part of a round found.
pub(super) struct Found {
    /// Messages that may be delivered.
    pub candidates: Vec<Candidate>,
    /// Where they come from.
    pub source: Taken,
}

/// Where messages come from, and what else the claim has to write.
pub(super) enum Taken {
    /// From the log: where the walk ended.
    Log { end: i64, time: Timestamp, skipped: i64, expired: i64 },
    /// Failed messages: those to drop, how many of them have expired, and whether there may be more.
    Retries { dropped: Vec<i64>, expired: i64, more: bool },
}

impl ClaimLane {
    /// Failed messages, the first ones first.
    pub(super) async fn find_retries(
        &mut self,
        state: &SubscriptionState,
        horizon: Timestamp,
        wanted: usize,
    ) -> Result<Found> {
        let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
        let rows = flush!(self.connection, conn => store::retries::read(conn, state.key, limit))?;
        let mut more = rows.len() >= wanted;
        let (mut candidates, mut dropped, mut expired, mut bytes, mut last) = (Vec::new(), Vec::new(), 0, 0, None);
        for row in rows {
            if bytes > BYTES_MAX {
                more = true;
                break;
            }
            if row.appended_at <= horizon {
                dropped.push(row.offset);
                expired += 1;
                continue;
            }
            let live = self.segment_at(state.key, row).await?;
            // A message keeps its whole segment in memory.
            if let Some(segment) = live.as_ref().filter(|segment| last != Some(segment.base_offset)) {
                (bytes, last) = (bytes + segment.payload_bytes, Some(segment.base_offset));
            }
            let message = live.as_ref().and_then(|segment| segment.message(row.offset));
            match message.filter(|message| selected(state.rule.as_ref(), message)) {
                Some(message) => {
                    let at = MessageRef { attempts: row.attempts.saturating_add(1), ..row };
                    candidates.push(Candidate { at, message: message.clone(), skipped_before: 0 });
                }
                None => dropped.push(row.offset),
            }
        }
        Ok(Found { candidates, source: Taken::Retries { dropped, expired, more } })
    }

    async fn segment_at(&mut self, key: SubscriptionKey, at: MessageRef) -> Result<Option<Arc<Segment>>> {
        if let Some(segment) = self.core.cache.holding(key.stream, at) {
            return Ok(Some(segment));
        }
        let segment =
            flush!(self.connection, conn => store::segments::read_at(conn, key.stream, at.appended_at, at.offset))?;
        Ok(segment.map(|segment| self.keep(segment)))
    }

    /// A segment was read from the log: keeps it in memory, and counts what of it cannot be read.
    fn keep(&self, segment: Segment) -> Arc<Segment> {
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
    ) -> Result<Found> {
        let mut scan = LogScan::new(state.rule.as_ref(), horizon, state.cursor, state.cursor_time);
        let mut looked_at = 0;
        while scan.candidates.len() < wanted && scan.bytes < BYTES_MAX && scan.offset < end && looked_at < SEGMENTS_MAX
        {
            let in_memory = self.core.cache.get(state.key.stream, scan.offset);
            self.core.metrics.replica().looked_up(in_memory.is_some());
            if let Some(segment) = in_memory {
                scan.take(&segment, wanted);
                looked_at += 1;
                continue;
            }
            // No further than what is in memory again: replicas append in turns.
            let next = self.core.cache.next_behind(state.key.stream, scan.offset);
            let not_after = next.as_ref().map(|segment| segment.appended_at);
            let from =
                ReadFrom { stream: state.key.stream, offset: scan.offset, not_before: scan.time, horizon, not_after };
            let segments = flush!(self.connection, conn => store::segments::read(conn, from, SEGMENTS_READ))?;
            match next {
                Some(next) if segments.is_empty() => scan.skip_to(next.base_offset),
                None if segments.is_empty() => {
                    // All has expired up to where the stream ended when the row was read. Beyond that there may be nothing: a
                    // crash takes back what a wake-up has told of.
                    scan.skip_to(state.tail);
                    if scan.offset < end {
                        self.readers.get_mut(&state.key).into_iter().for_each(Reader::forget_state);
                        break;
                    }
                }
                _ => {}
            }
            for segment in segments {
                scan.take(&self.keep(segment), wanted);
                looked_at += 1;
            }
        }
        let LogScan { candidates, offset: end, time, skipped, expired, .. } = scan;
        Ok(Found { candidates, source: Taken::Log { end, time, skipped, expired } })
    }
}
