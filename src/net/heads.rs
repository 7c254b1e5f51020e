//! Unfinished requests: HTTP/1 has the time and the memory of a head bounded here, HTTP/2 in its library.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long the headers of a request may take from their first byte on.
pub(super) const HEAD_MAX: Duration = Duration::from_secs(20);
/// Headers of a request that is not complete: what is above it is taken from the budget of the listener.
const FREE_BYTES: usize = 16 * 1024;
/// All unfinished headers of a listener may have so many bytes above that.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The budget of a listener for headers that are not complete. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(Arc<AtomicUsize>);

impl Heads {
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::AcqRel);
        let fits = taken + bytes <= BYTES_MAX;
        if !fits {
            self.0.fetch_sub(bytes, Ordering::AcqRel);
        }
        fits
    }
}

/// The headers that a connection is sending.
#[derive(Debug)]
pub(super) struct Head {
    heads: Heads,
    /// How many were complete before.
    number: u64,
    bytes: usize,
    taken: usize,
    begun: Option<Instant>,
}

impl Head {
    /// Of a new connection.
    pub(super) fn new(heads: Heads) -> Self {
        Self { heads, number: 0, bytes: 0, taken: 0, begun: None }
    }

    /// More is about to be read, so what came is not complete. False when there is no room for more of it.
    pub(super) fn may_grow(&mut self, (number, busy): (u64, bool)) -> bool {
        if busy || number != self.number {
            self.end(number);
        }
        let needed = self.bytes.saturating_sub(FREE_BYTES).saturating_sub(self.taken);
        if needed > 0 && !self.heads.take(needed) {
            return false;
        }
        self.taken += needed;
        true
    }

    /// So many bytes came; a body or what follows an answer is no head.
    pub(super) fn came(&mut self, bytes: usize, busy: bool) {
        if bytes > 0 && !busy {
            self.bytes += bytes;
            self.begun.get_or_insert_with(Instant::now);
        }
    }

    /// When it must be complete.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.begun.map(|begun| begun + HEAD_MAX)
    }

    fn end(&mut self, number: u64) {
        self.heads.0.fetch_sub(self.taken, Ordering::AcqRel);
        (self.number, self.bytes, self.taken, self.begun) = (number, 0, 0, None);
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.end(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_heads_that_are_not_complete_count() {
        let heads = Heads::default();
        let mut head = Head::new(heads.clone());
        for (came, counted) in [(FREE_BYTES, 0), (100, 100), (1000, 1100)] {
            head.came(came, false);
            assert!(head.may_grow((0, false)));
            assert_eq!(heads.0.load(Ordering::Relaxed), counted);
        }
        assert!(head.deadline().is_some());
        assert!(head.may_grow((1, true)));
        head.came(1 << 20, true);
        assert!(head.may_grow((1, false)) && head.deadline().is_none());
        assert_eq!(heads.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_of_a_listener_are_bounded() {
        let heads = Heads::default();
        let mut grown = Vec::new();
        let refused = loop {
            let mut head = Head::new(heads.clone());
            head.came(64 * 1024, false);
            if !head.may_grow((0, false)) {
                break grown.len();
            }
            grown.push(head);
        };
        assert_eq!(refused, BYTES_MAX / (48 * 1024));
        drop(grown);
        assert_eq!(heads.0.load(Ordering::Relaxed), 0);
    }
}
