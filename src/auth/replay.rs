//! Signatures that were used: a signed request that somebody recorded cannot be sent again later.
//!
//! A date has no fractions of a second, so two equal requests of one second (two polls of one consumer) have the same
//! signature. Hence a signature may come again for a moment after its first use, and not after that. The moment counts from
//! the first use and not from the date, so a client whose clock is wrong has it too.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

/// Half of an HMAC tells signatures apart.
const MARK_LEN: usize = 16;
/// Marks in one of the two generations: some 20 MB each.
const MARKS_MAX: usize = 400_000;

type Mark = [u8; MARK_LEN];

/// Marks of signatures and the time of their first use, in two generations so that old ones go without a search.
#[derive(Debug)]
pub(super) struct Used {
    again_within: Duration,
    remembered: Duration,
    marks_max: usize,
    young: HashMap<Mark, Instant>,
    young_since: Instant,
    old: HashMap<Mark, Instant>,
}

impl Used {
    /// A signature may come again within this time of its first use, and is known for at least the other.
    pub(super) fn new(again_within: Duration, remembered: Duration, now: Instant) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { again_within, remembered, marks_max: MARKS_MAX, young, young_since: now, old }
    }

    /// Notes the use of a signature; whether it may be used now.
    pub(super) fn admit(&mut self, signature: &[u8; 32], now: Instant) -> bool {
        let mut mark = Mark::default();
        mark.copy_from_slice(&signature[..MARK_LEN]);
        self.forget(now);
        match self.young.get(&mark).or_else(|| self.old.get(&mark)) {
            Some(first) => now.saturating_duration_since(*first) <= self.again_within,
            None => {
                self.young.insert(mark, now);
                true
            }
        }
    }

    /// Only callers with a secret key can fill the memory; those are not refused for it, but known for a shorter time.
    fn forget(&mut self, now: Instant) {
        let full = self.young.len() >= self.marks_max;
        if full {
            tracing::warn!(signatures = self.young.len(), "so many signatures that older ones are forgotten early");
        }
        if full || now.saturating_duration_since(self.young_since) > self.remembered {
            self.old = mem::take(&mut self.young);
            self.young_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Duration = Duration::from_secs(5);
    const REMEMBERED: Duration = Duration::from_secs(1800);

    fn signature(number: u64) -> [u8; 32] {
        let mut signature = [0; 32];
        signature[..8].copy_from_slice(&number.to_be_bytes());
        signature
    }

    #[test]
    fn a_signature_may_come_again_for_a_moment_and_never_after() {
        let start = Instant::now();
        let mut used = Used::new(AGAIN, REMEMBERED, start);
        for (seconds, expected) in [(0, true), (1, true), (5, true), (6, false), (1000, false), (1800, false)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(used.admit(&signature(1), now), expected, "{seconds}");
        }
        // Another one is not affected, and the first use is not moved by later ones.
        assert!(used.admit(&signature(2), start + Duration::from_secs(7)));
    }

    #[test]
    fn a_signature_is_known_as_long_as_its_date_could_be_good() {
        let start = Instant::now();
        let mut used = Used::new(AGAIN, REMEMBERED, start);
        // Just before the generations change, and still known a whole life later.
        assert!(used.admit(&signature(1), start + REMEMBERED));
        assert!(used.admit(&signature(2), start + REMEMBERED + Duration::from_secs(1)));
        assert!(!used.admit(&signature(1), start + REMEMBERED * 2));
        assert!(!used.admit(&signature(2), start + REMEMBERED * 2));
    }

    #[test]
    fn memory_is_bounded() {
        let start = Instant::now();
        let mut used = Used { marks_max: 10, ..Used::new(AGAIN, REMEMBERED, start) };
        for number in 0..1000 {
            assert!(used.admit(&signature(number), start));
            assert!(used.young.len() + used.old.len() <= 20);
        }
        assert!(!used.admit(&signature(999), start + AGAIN * 2));
    }
}
