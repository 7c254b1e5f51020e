//! However much moves into the log at once, a segment stays small enough to be read and kept in memory.

use dms::store::log::segments::BYTES_MAX;
use dms_client::v1 as pb;

use crate::support::calls::{delayed, eventually};
use crate::support::service::{TestService, bodies, handlers, message};

const COUNT: usize = 9;
const LARGEST_SEGMENT: &str = "SELECT max(octet_length(payload))::bigint FROM segments";

/// JSON texts of nearly half a megabyte each, different from each other.
fn large_bodies() -> Vec<String> {
    (0..COUNT).map(|number| format!("\"{number}{}\"", "x".repeat(480_000))).collect()
}

#[tokio::test]
async fn many_large_messages_whose_delays_end_together_are_several_segments() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let sent = large_bodies();
    for body in &sent {
        service.send_messages(&queue, vec![delayed(body, 60_000)]).await.unwrap();
    }
    service.advance(60);
    eventually("all are available", async || service.counts(&group).await[2] == 9).await;
    assert!(service.number(LARGEST_SEGMENT).await <= BYTES_MAX);
    assert!(service.work_off(&group, COUNT).await == sent, "in order");
}

#[tokio::test]
async fn many_large_messages_that_die_together_are_several_segments() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    let sent = large_bodies();
    for body in &sent {
        service.send_messages(&queue, vec![message(body)]).await.unwrap();
    }
    let mut taken = 0;
    while taken < COUNT {
        taken += service.receive(&group, 10).await.len();
    }
    service.advance(31);
    eventually("all are dead", async || service.counts(&group).await[4] == 9).await;
    assert!(service.number(LARGEST_SEGMENT).await <= BYTES_MAX);
    let mut dead = Vec::new();
    while dead.len() < COUNT {
        let batch = service.receive_dead_letters(&group, 10).await;
        service.ack_dead_letters(&group, &handlers(&batch, true)).await.unwrap();
        dead.extend(bodies(&batch));
    }
    dead.sort();
    assert!(dead == sent, "each once");
}
