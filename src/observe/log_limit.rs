//! A bound on lines of the log that a caller can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one kind in each period; a flood must not fill a disk.
const LINES_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// Counts the lines of one kind.
#[derive(Debug)]
pub(crate) struct LogLimit(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl LogLimit {
    /// Nothing said yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Counted { since: None, lines: 0, left_out: 0 }))
    }

    /// Whether one more line may be written now, and how many were left out before it.
    pub(crate) fn admits(&self) -> Option<u64> {
        self.admits_at(Instant::now())
    }

    fn admits_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            (counted.since, counted.lines) = (Some(now), 0);
        }
        if counted.lines == LINES_MAX {
            counted.left_out += 1;
            return None;
        }
        counted.lines += 1;
        Some(std::mem::take(&mut counted.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_and_told_later() {
        let (limit, begun) = (LogLimit::new(), Instant::now());
        let told: Vec<_> = (0..LINES_MAX + 5).map(|_| limit.admits_at(begun)).collect();
        assert!(told[..LINES_MAX as usize].iter().all(|left_out| *left_out == Some(0)));
        assert!(told[LINES_MAX as usize..].iter().all(Option::is_none));
        assert_eq!(limit.admits_at(begun + PERIOD), Some(5));
        assert_eq!(limit.admits_at(begun + PERIOD), Some(0));
    }
}
