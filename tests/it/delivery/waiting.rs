//! A waiting consumer is answered at once when something becomes available for it.

use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms_client::v1 as pb;

use crate::support::consumers::options;
use crate::support::service::{Group, PROJECT, TestService, attempts, bodies, code, handlers};

/// Parked consumers are looked after every few seconds in any case; luck does not pass this often.
const ROUNDS: usize = 3;

/// Without the sweep that ends leases of lost replicas: what is looked for here is quicker.
async fn unswept() -> TestService {
    TestService::with(Settings { pool_connections: 4, sweep_interval: Duration::from_secs(600), ..Settings::default() })
        .await
}

async fn with_mode(mode: pb::QueueMode) -> (TestService, Group) {
    let service = unswept().await;
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
    for part_len in [2, 1, 2, 1, 2] {
        service.send(&group.queue, &["1", "2", "3"]).await;
        let held = service.take(&group, 2).await;
        let parked = service.parked(&group, 10).await;
        for part in held.chunks(part_len) {
            service.ack(&group, &handlers(part, true)).await.unwrap();
        }
        let batch = parked.answered_at_once().await;
        assert_eq!(bodies(&batch), ["3"]);
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
    }
}

#[tokio::test]
async fn by_a_dead_letter() {
    let service = unswept().await;
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
async fn messages_are_shared_by_the_consumers_that_wait() {
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let mut parked = Vec::new();
    for _ in 0..3 {
        parked.push(service.parked(&group, 2).await);
    }
    service.send(&group.queue, &["1", "2", "3", "4", "5"]).await;
    let mut shares = Vec::new();
    for consumer in parked {
        shares.push(bodies(&consumer.answered_at_once().await));
    }
    assert_eq!(shares, [vec!["1", "2"], vec!["3", "4"], vec!["5"]]);
}

#[tokio::test]
async fn consumers_that_wait_for_a_fifo_queue_take_turns() {
    let (service, group) = with_mode(pb::QueueMode::Fifo).await;
    let (first, second) = (service.parked(&group, 2).await, service.parked(&group, 2).await);
    service.send(&group.queue, &["1", "2", "3"]).await;
    let batch = first.answered_at_once().await;
    assert_eq!(bodies(&batch), ["1", "2"]);
    assert!(service.consume(&group, 10).await.is_empty());
    assert!(second.is_waiting());
    service.ack(&group, &[(&batch[0].handler, true), (&batch[1].handler, false)]).await.unwrap();
    let batch = second.answered_at_once().await;
    assert_eq!((bodies(&batch), attempts(&batch)), (vec!["2".to_owned()], vec![2]));
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
async fn a_waiting_consumer_is_told_that_its_queue_is_gone() {
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let parked = service.parked(&group, 10).await;
    let parked_for_dead_letters = service.parked_for_dead_letters(&group, 10).await;
    let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: group.queue.clone() };
    service.replica.queues.clone().delete_queue(request).await.unwrap();
    for told in [parked, parked_for_dead_letters] {
        assert_eq!(code(&told.refused_at_once().await), "DMS.10240401");
    }
}

#[tokio::test]
async fn an_empty_answer_comes_when_the_wait_ends() {
    let (service, group) = with_mode(pb::QueueMode::Normal).await;
    let begun = Instant::now();
    assert!(service.wait_for(&group, options(10, 2, None)).await.is_empty());
    let waited = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
}
