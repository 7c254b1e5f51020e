//! Cuts the messages found into one batch per consumer: at most `max_messages`, at most 512 KB.

use std::collections::VecDeque;

use super::ClaimRequest;
use super::scan::{Candidate, Origin};
use crate::broker::replicas::cache::MESSAGE_OVERHEAD_BYTES;
use crate::domain::limits::BATCH_BYTES_MAX;
use crate::domain::message;
use crate::memory::Reservation;

/// A consumer with the messages it gets.
pub(super) struct Batch {
    /// The consumer.
    pub request: ClaimRequest,
    /// Its messages, never none: new ones in the order of the stream, then failed ones.
    pub messages: Vec<Candidate>,
    /// What they keep in memory.
    pub(crate) kept_bytes: usize,
    /// Reserved for that once the claim is planned.
    pub kept: Option<Reservation>,
}

/// What may be delivered.
///
/// Where both wait, failed messages share the deliveries of a group with new ones: at least every second delivery is a new one,
/// over all consumers, batches and replicas, for the turn is kept in the subscription's row. FIFO queues have one kind at a time.
pub(super) struct Deliverable {
    /// Messages never claimed, in the order of the stream.
    pub new: VecDeque<Candidate>,
    /// Messages that have failed before, in the order of their redelivery.
    pub failed: VecDeque<Candidate>,
    /// Whether a failed one may come before the next new one.
    pub failed_next: bool,
}

impl Deliverable {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.failed.is_empty()
    }

    /// Serves consumers in order of arrival until messages or consumers run out; consumers that have given up are left out.
    pub(super) fn cut(&mut self, waiting: &mut VecDeque<ClaimRequest>, consumers_max: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        while batches.len() < consumers_max && !self.is_empty() {
            let Some(request) = waiting.pop_front() else { break };
            if request.reply.is_closed() {
                continue;
            }
            let mut messages = self.take_batch(request.max_messages.max(1));
            // Whoever acknowledges in order and meets the failure again loses nothing of what is new: all behind it fails too.
            messages.sort_by_key(|message| matches!(message.origin, Origin::Failed { .. }));
            let kept_bytes = keep_only(&mut messages);
            batches.push(Batch { request, messages, kept_bytes, kept: None });
        }
        batches
    }

    fn take_batch(&mut self, max_messages: usize) -> Vec<Candidate> {
        let mut taken: Vec<Candidate> = Vec::new();
        let (mut bytes, mut failed) = (0, 0);
        while taken.len() < max_messages {
            // Half of a batch at most, though one alone may have been its turn.
            let is_failed = self.next_is_failed(failed < (max_messages / 2).max(1));
            let source = if is_failed { &mut self.failed } else { &mut self.new };
            let Some(next) = source.front() else { break };
            bytes += next.message.size_bytes();
            if bytes > BATCH_BYTES_MAX && !taken.is_empty() {
                break;
            }
            taken.extend(source.pop_front());
            failed += usize::from(is_failed);
            // A failed one has its turn behind a new one that it has waited for.
            self.failed_next = !is_failed && !self.failed.is_empty();
        }
        taken
    }

    fn next_is_failed(&self, has_share: bool) -> bool {
        match (self.new.is_empty(), self.failed.is_empty()) {
            (_, true) => false,
            (true, false) => true,
            (false, false) => self.failed_next && has_share,
        }
    }
}

/// Copies small parts of segments out of them, so that a batch keeps at most twice its own bytes in memory; how much it keeps.
fn keep_only(messages: &mut [Candidate]) -> usize {
    let mut kept = messages.len() * MESSAGE_OVERHEAD_BYTES;
    let mut small = Vec::new();
    for of_segment in messages.chunk_by_mut(|one, next| one.segment_base == next.segment_base) {
        let bytes = of_segment.iter().map(|candidate| candidate.message.size_bytes()).sum();
        let segment_bytes = of_segment.iter().map(|candidate| candidate.segment_bytes).max().unwrap_or(0);
        if 2 * bytes < segment_bytes {
            small.extend(of_segment.iter_mut().map(|candidate| &mut candidate.message));
            kept += bytes;
        } else {
            kept += segment_bytes.max(bytes);
        }
    }
    if !small.is_empty() {
        message::detach(&mut small);
    }
    kept
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
