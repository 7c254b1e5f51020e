//! Whether there are other replicas to tell of anything: a replica that is alone sends no wake-ups.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When another replica was last heard of.
#[derive(Debug)]
pub struct Peers {
    heard_at: Mutex<Instant>,
    timeout: Duration,
}

impl Peers {
    /// There may be others, until none was heard of for this long.
    pub fn new(timeout: Duration) -> Self {
        Self { heard_at: Mutex::new(Instant::now()), timeout }
    }

    /// Another replica is there, or would not have been heard. Whether there was none before, as far as was known.
    pub fn heard(&self, now: Instant) -> bool {
        let mut heard_at = self.heard_at.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *heard_at, now);
        now.saturating_duration_since(before) > self.timeout
    }

    /// Whether there may be others.
    pub fn are_there(&self, now: Instant) -> bool {
        let heard_at = *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(heard_at) <= self.timeout
    }

    /// How often to say that this replica is there: lost once or twice, it is still known.
    pub fn interval(&self) -> Duration {
        self.timeout / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_there_until_not_heard_of_for_the_timeout() {
        let timeout = Duration::from_secs(30);
        let peers = Peers::new(timeout);
        let start = Instant::now();
        assert!(peers.are_there(start), "one that has just begun knows nothing");
        assert!(!peers.heard(start), "not news");
        assert!(peers.are_there(start + timeout));
        let later = start + timeout + Duration::from_millis(1);
        assert!(!peers.are_there(later));
        assert!(peers.heard(later), "news");
        assert!(peers.are_there(later + timeout));
    }
}
