//! Leases: exclusive while they last, settled once, and what becomes of what was not acknowledged.

use crate::support::service::{TestService, attempts, bodies, code, handlers};

#[tokio::test]
async fn an_acknowledged_message_never_comes_again() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let batch = service.consume(&group, 10).await;
    assert_eq!(bodies(&batch), ["1", "2", "3"]);
    assert_eq!(attempts(&batch), [1, 1, 1]);
    assert!(service.consume(&group, 10).await.is_empty(), "leased to somebody else");
    let result = service.ack(&group, &handlers(&batch, true)).await.unwrap();
    assert_eq!((result.success_count, result.fail_count), (3, 0));
    service.advance(3600);
    assert!(service.consume(&group, 10).await.is_empty());
    let counters = service.counters(&group).await;
    assert_eq!((counters.produced_messages, counters.consumed_messages, counters.available_messages), (3, 3, 0));
}

#[tokio::test]
async fn a_lease_that_ends_counts_as_a_failed_delivery() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2"]).await;
    let first = service.consume(&group, 10).await;
    service.advance(31);
    let second = service.consume(&group, 10).await;
    assert_eq!(bodies(&second), ["1", "2"]);
    assert_eq!(attempts(&second), [2, 2]);
    let stale = service.ack(&group, &handlers(&first, true)).await.unwrap_err();
    assert_eq!(code(&stale), "DMS.10542209");
    let result = service.ack(&group, &handlers(&second, true)).await.unwrap();
    assert_eq!(result.success_count, 2);
}
