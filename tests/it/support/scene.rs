//! A service with one queue and one group, which has to be well after whatever a test did to it.

use std::time::{Duration, Instant};

use dms_client::v1::LeasedMessage;

use super::panics;
use super::service::{Group, TestService, bodies};

/// Longer than the usual lease of 30 s.
const LEASE_AND_MORE: Duration = Duration::from_secs(60);

/// The service and what is in it.
pub(crate) struct Scene {
    pub service: TestService,
    pub queue: String,
    pub group: Group,
}

impl Scene {
    /// A new service.
    pub(crate) async fn make() -> Self {
        panics::watch();
        let service = TestService::start().await;
        let queue = service.queue("orders").await;
        let group = service.group(&queue, "billing").await;
        Self { service, queue, group }
    }

    /// The group gets nothing but what is sent now, and nothing has panicked.
    pub(crate) async fn is_well(&self) {
        self.service.send(&self.queue, &["\"well\""]).await;
        assert_eq!(bodies(&self.next(10).await), ["\"well\""]);
        panics::none_seen();
    }

    /// What comes next, at most so many messages. On a busy machine an answer can be too late; it comes again with the end of its lease.
    pub(crate) async fn next(&self, max: i32) -> Vec<LeasedMessage> {
        let begun = Instant::now();
        loop {
            let batch = self.service.consume(&self.group, max).await;
            if !batch.is_empty() {
                return batch;
            }
            assert!(begun.elapsed() < LEASE_AND_MORE, "no message comes");
        }
    }
}
