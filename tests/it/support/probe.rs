//! Somebody else, who is served whatever an attacker does: sends again and again, each time over a new connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::rest::Rest;

/// An answer that takes longer than this counts as none, however busy the machine.
const SLOWEST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A probe that runs until it is dropped.
pub(crate) struct Probe {
    answered: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Probe {
    /// Begins to send to a queue that it makes, as whoever `rest` is.
    pub(crate) async fn start(rest: &Rest) -> Self {
        let (queue, _) = rest.queue_and_group(&json!({ "name": "probe" })).await;
        let (rest, answered) = (rest.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&answered);
        let running = tokio::spawn(async move {
            loop {
                let fresh = rest.anew();
                let sent = tokio::time::timeout(SLOWEST, fresh.send_bodies(&queue, &[json!(1)])).await;
                sent.expect("an answer in time");
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { answered, running }
    }

    /// Returns when so many more sends were answered; none may fail.
    pub(crate) async fn is_served(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        while self.answered.load(Ordering::Relaxed) < wanted {
            assert!(!self.running.is_finished(), "a send of somebody else has failed");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
