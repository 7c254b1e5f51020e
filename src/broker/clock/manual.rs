//! The clock of tests.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::clock::{Clock, Sleep, Timestamp};

/// A clock that stands still until it is advanced.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Timestamp>>);

impl ManualClock {
    /// Shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(watch::Sender::new(start)))
    }

    /// Turns the hands forward and wakes whoever waits for an instant that is now past.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = now.plus(by));
    }

    /// Turns the hands back, as a step of Postgres's clock does.
    pub fn put_back(&self, by: Duration) {
        self.0.send_modify(|now| *now = now.minus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn sleep_until(&self, instant: Timestamp) -> Sleep {
        let mut hands = self.0.subscribe();
        Box::pin(async move {
            // The sender lives as long as the clock; without it nobody waits for an answer any more.
            let _ = hands.wait_for(|now| *now >= instant).await;
        })
    }
}
