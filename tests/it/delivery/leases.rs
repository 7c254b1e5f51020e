//! Leases: exclusive while they last, settled once, and what becomes of what was not acknowledged.

use std::time::Duration;

use dms::domain::clock::Clock as _;
use dms_client::v1 as pb;

use crate::support::service::{Group, TestService, attempts, bodies, code, handlers};

#[tokio::test]
async fn an_acknowledged_message_never_comes_again() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let batch = service.take(&group, 10).await;
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
    let first = service.take(&group, 10).await;
    service.advance(31);
    let second = service.take(&group, 10).await;
    assert_eq!(bodies(&second), ["1", "2"]);
    assert_eq!(attempts(&second), [2, 2]);
    let stale = service.ack(&group, &handlers(&first, true)).await.unwrap_err();
    assert_eq!(code(&stale), "DMS.10542209");
    let result = service.ack(&group, &handlers(&second, true)).await.unwrap();
    assert_eq!(result.success_count, 2);
}

/// Leases one message for `lease` seconds and turns the clock to `offset` seconds around the end of the lease.
async fn near_the_end(service: &TestService, lease: Option<i64>, offset: i64) -> (Group, Vec<pb::LeasedMessage>) {
    let queue = service.queue(&format!("orders{}_{offset}", lease.unwrap_or(0))).await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1"]).await;
    let begun = service.clock.now();
    let batch = service.take_for(&group, 10, lease).await;
    let seconds = lease.unwrap_or(30);
    let end = batch[0].lease_expire_time.unwrap();
    let expected = begun.plus(Duration::from_secs(seconds.unsigned_abs()));
    assert_eq!(end.seconds * 1_000_000 + i64::from(end.nanos) / 1000, expected.0);
    service.advance((seconds + offset).unsigned_abs());
    (group, batch)
}

#[tokio::test]
async fn a_message_is_hidden_and_can_be_acknowledged_until_its_lease_ends() {
    let service = TestService::start().await;
    for lease in [Some(15), None, Some(300)] {
        let (group, batch) = near_the_end(&service, lease, -1).await;
        assert!(service.consume(&group, 10).await.is_empty(), "still hidden: {lease:?}");
        let result = service.ack(&group, &handlers(&batch, true)).await.unwrap();
        assert_eq!(result.success_count, 1);
        service.advance(600);
        assert!(service.consume(&group, 10).await.is_empty());
    }
}

#[tokio::test]
async fn a_late_ack_is_rejected_and_the_message_comes_again() {
    let service = TestService::start().await;
    for (lease, offset) in [(Some(15), 1), (None, 0), (None, 1), (Some(300), 1)] {
        let (group, batch) = near_the_end(&service, lease, offset).await;
        let late = service.ack(&group, &handlers(&batch, true)).await.unwrap_err();
        assert_eq!(code(&late), "DMS.10542209", "{lease:?}");
        let again = service.take(&group, 10).await;
        assert_eq!((bodies(&again), attempts(&again)), (vec!["1".to_owned()], vec![2]));
    }
}

#[tokio::test]
async fn leases_of_one_group_end_each_at_its_own_time() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let long = service.take_for(&group, 1, Some(300)).await;
    service.take_for(&group, 1, Some(15)).await;
    service.take(&group, 1).await;
    service.advance(16);
    let second = service.take_for(&group, 10, Some(300)).await;
    assert_eq!((bodies(&second), attempts(&second)), (vec!["2".to_owned()], vec![2]));
    service.advance(15);
    assert_eq!(bodies(&service.take_for(&group, 10, Some(300)).await), ["3"]);
    assert!(service.consume(&group, 10).await.is_empty());
    assert_eq!(service.ack(&group, &handlers(&long, true)).await.unwrap().success_count, 1);
}

#[tokio::test]
async fn every_delivery_that_does_not_end_in_success_is_counted() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1"]).await;
    for attempt in 1..=6 {
        let batch = service.take(&group, 10).await;
        assert_eq!(attempts(&batch), [attempt]);
        if attempt % 2 == 0 {
            service.ack(&group, &handlers(&batch, false)).await.unwrap();
        } else {
            service.advance(31);
        }
    }
}
