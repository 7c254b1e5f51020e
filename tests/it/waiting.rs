//! A waiting consumer is answered at once when something becomes available for it.

use std::time::{Duration, Instant};

use dms::proto::v1 as pb;

use crate::support::consumers::options;
use crate::support::service::{Group, TestService, attempts, bodies, code, handlers};

/// Parked consumers are looked after every few seconds in any case; luck does not pass this often.
const ROUNDS: usize = 3;

async fn with_mode(mode: pb::QueueMode) -> (TestService, Group) {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", mode, 100).await;
    let group = service.group(&queue, "billing").await;
    (service, group)
}

#[tokio::test]
async fn by_a_send() {
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo] {
        let (service, group) = with_mode(mode).await;
        for _ in 0..ROUNDS {
            let parked = service.parked(&group, 10).await;
            service.send(&group.queue, &["1"]).await;
            let batch = parked.answered_at_once().await;
            assert_eq!(bodies(&batch), ["1"]);
            service.ack(&group, &handlers(&batch, true)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn by_a_failed_message() {
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo] {
        let (service, group) = with_mode(mode).await;
        service.send(&group.queue, &["1"]).await;
        let mut held = service.take(&group, 10).await;
        for attempt in 2..5 {
            let parked = service.parked(&group, 10).await;
            service.ack(&group, &handlers(&held, false)).await.unwrap();
            held = parked.answered_at_once().await;
            assert_eq!((bodies(&held), attempts(&held)), (vec!["1".to_owned()], vec![attempt]));
        }
    }
}

#[tokio::test]
async fn by_the_end_of_a_lease() {
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo] {
        let (service, group) = with_mode(mode).await;
        service.send(&group.queue, &["1"]).await;
        service.take(&group, 10).await;
        for attempt in 2..5 {
            let parked = service.parked(&group, 10).await;
            service.advance(30);
            let batch = parked.answered_at_once().await;
            assert_eq!((bodies(&batch), attempts(&batch)), (vec!["1".to_owned()], vec![attempt]));
        }
    }
}

#[tokio::test]
async fn by_the_settling_of_a_fifo_batch_in_flight() {
    let (service, group) = with_mode(pb::QueueMode::Fifo).await;
    for _ in 0..ROUNDS {
        service.send(&group.queue, &["1", "2", "3"]).await;
        let held = service.take(&group, 2).await;
        let parked = service.parked(&group, 10).await;
        service.ack(&group, &handlers(&held[..1], true)).await.unwrap();
        service.ack(&group, &handlers(&held[1..], true)).await.unwrap();
        let batch = parked.answered_at_once().await;
        assert_eq!(bodies(&batch), ["3"]);
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
    }
}

#[tokio::test]
async fn by_a_dead_letter() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "billing").await;
    for _ in 0..ROUNDS {
        service.send(&queue, &["1"]).await;
        let parked = service.parked_for_dead_letters(&group, 10).await;
        service.fail_next(&group, 10).await;
        let batch = parked.answered_at_once().await;
        assert_eq!(bodies(&batch), ["1"]);
        service.ack_dead_letters(&group, &handlers(&batch, true)).await.unwrap();
    }
}

#[tokio::test]
async fn one_message_is_for_one_of_the_consumers_that_wait() {
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let (first, second) = (service.parked(&group, 10).await, service.parked(&group, 10).await);
    service.send(&group.queue, &["1"]).await;
    assert_eq!(bodies(&first.answered_at_once().await), ["1"], "the one that waits longest");
    service.send(&group.queue, &["2"]).await;
    assert_eq!(bodies(&second.answered_at_once().await), ["2"]);
}

#[tokio::test]
async fn waiting_consumers_of_all_groups_hear_of_a_message() {
    let (service, billing) = with_mode(pb::QueueMode::Normal).await;
    let audit = service.group(&billing.queue, "audit").await;
    let (first, second) = (service.parked(&billing, 10).await, service.parked(&audit, 10).await);
    service.send(&billing.queue, &["1"]).await;
    assert_eq!(bodies(&first.answered_at_once().await), ["1"]);
    assert_eq!(bodies(&second.answered_at_once().await), ["1"]);
}

#[tokio::test]
async fn a_waiting_consumer_is_told_that_its_group_is_gone() {
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let parked = service.parked(&group, 10).await;
    service.delete_group(&group).await.unwrap();
    assert_eq!(code(&parked.refused_at_once().await), "DMS.10240405");
}

#[tokio::test]
async fn an_empty_answer_comes_when_the_wait_ends() {
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let begun = Instant::now();
    assert!(service.wait_for(&group, options(10, 2, None)).await.is_empty());
    let waited = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
}
