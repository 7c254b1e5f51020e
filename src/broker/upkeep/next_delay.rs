//! When the next delay ends: the replica that ends delays looks then, and when it hears of an earlier one.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

use crate::domain::clock::Timestamp;

/// The earliest end that is known.
#[derive(Debug)]
pub(crate) struct NextDelay {
    earliest: AtomicI64,
    earlier: Notify,
}

impl Default for NextDelay {
    fn default() -> Self {
        Self { earliest: AtomicI64::new(i64::MAX), earlier: Notify::new() }
    }
}

impl NextDelay {
    /// A message was stored whose delay ends then.
    pub(crate) fn stored(&self, due: Timestamp) {
        if due.0 < self.earliest.fetch_min(due.0, Ordering::AcqRel) {
            self.earlier.notify_one();
        }
    }

    /// Has the next look come at once: what was stored elsewhere may not have been heard of.
    pub(crate) fn look(&self) {
        self.earlier.notify_one();
    }

    /// A look begins: what is stored from now on counts beside what it finds.
    pub(crate) fn looking(&self) {
        self.earliest.store(i64::MAX, Ordering::Release);
    }

    /// What a look has found; returns the earliest end that is known now.
    pub(crate) fn found(&self, next: Option<Timestamp>) -> Option<Timestamp> {
        let next = next.map_or(i64::MAX, |due| due.0);
        let earliest = self.earliest.fetch_min(next, Ordering::AcqRel).min(next);
        (earliest < i64::MAX).then_some(Timestamp(earliest))
    }

    /// Waits until a look should come before the one that is planned.
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_earlier_end_has_the_next_look_come_early() {
        let delays = NextDelay::default();
        delays.looking();
        assert_eq!(delays.found(Some(Timestamp(50))), Some(Timestamp(50)));
        delays.stored(Timestamp(60));
        let rung = async || tokio::time::timeout(std::time::Duration::ZERO, delays.earlier()).await.is_ok();
        assert!(!rung().await, "later than what is known");
        delays.stored(Timestamp(40));
        assert!(rung().await);
        delays.looking();
        delays.stored(Timestamp(30));
        assert_eq!(delays.found(None), Some(Timestamp(30)), "stored during the look");
        assert!(rung().await);
    }
}
