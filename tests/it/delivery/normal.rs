//! NORMAL queues: the consumers of a group work side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use dms_client::v1 as pb;
use tokio::task::JoinSet;

use crate::support::consumers::options;
use crate::support::service::{Group, TestService, bodies, handlers};

const CONSUMERS: usize = 8;

async fn send_numbers(service: &TestService, queue: &str, count: usize) -> Vec<String> {
    let mut numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    for batch in numbers.chunks(10) {
        service.send(queue, &batch.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    numbers.sort();
    numbers
}

/// Consumes until nothing comes; settles each batch with `success`. Returns body and attempt of each delivery.
async fn drain(service: Arc<TestService>, group: Group, max: i32, success: bool) -> Vec<(String, i32)> {
    let mut seen = Vec::new();
    loop {
        let batch = service.wait_for(&group, options(max, 1, None)).await;
        if batch.is_empty() {
            return seen;
        }
        let result = service.ack(&group, &handlers(&batch, success)).await.unwrap();
        assert_eq!(result.success_count, if success { i32::try_from(batch.len()).unwrap() } else { 0 });
        seen.extend(bodies(&batch).into_iter().zip(batch.iter().map(|message| message.delivery_attempt)));
    }
}

/// As [`drain`], by many consumers at the same time, until nothing is left.
async fn drain_together(service: &Arc<TestService>, group: &Group, success: bool) -> Vec<(String, i32)> {
    let mut seen = Vec::new();
    while service.counters(group).await.available_messages > 0 {
        let mut consumers = JoinSet::new();
        for index in 0..CONSUMERS {
            let max = i32::try_from(index + 1).unwrap();
            consumers.spawn(drain(service.clone(), group.clone(), max, success));
        }
        while let Some(deliveries) = consumers.join_next().await {
            seen.extend(deliveries.unwrap());
        }
    }
    seen.sort();
    seen
}

#[tokio::test]
async fn consumers_of_a_group_hold_different_messages_at_the_same_time() {
    let service = Arc::new(TestService::start().await);
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    let sent = send_numbers(&service, &queue, 3 * CONSUMERS).await;
    let mut consumers = JoinSet::new();
    for _ in 0..CONSUMERS {
        let (service, group) = (service.clone(), group.clone());
        consumers.spawn(async move { service.take(&group, 3).await });
    }
    let batches = consumers.join_all().await;
    let mut held: Vec<String> = batches.iter().flat_map(|batch| bodies(batch)).collect();
    held.sort();
    assert_eq!(held, sent);
    assert!(service.consume(&group, 10).await.is_empty());
    for batch in batches.iter().rev() {
        assert_eq!(service.ack(&group, &handlers(batch, true)).await.unwrap().fail_count, 0);
    }
}

#[tokio::test]
async fn concurrent_consumers_get_every_message_exactly_once() {
    let service = Arc::new(TestService::start().await);
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    let sent = send_numbers(&service, &queue, 300).await;
    let seen = drain_together(&service, &group, true).await;
    let expected: Vec<(String, i32)> = sent.into_iter().map(|body| (body, 1)).collect();
    assert_eq!(seen, expected);
    service.advance(3600);
    assert!(service.consume(&group, 10).await.is_empty());
    assert_eq!(service.counters(&group).await.consumed_messages, 300);
}

#[tokio::test]
async fn concurrent_consumers_that_fail_see_each_message_max_consume_count_times() {
    let service = Arc::new(TestService::start().await);
    let queue = service.redrive_queue("orders", pb::QueueMode::Normal, 3).await;
    let group = service.group(&queue, "billing").await;
    let sent = send_numbers(&service, &queue, 60).await;
    let seen = drain_together(&service, &group, false).await;
    let expected: Vec<(String, i32)> =
        sent.iter().flat_map(|body| (1..=3).map(|attempt| (body.clone(), attempt))).collect();
    assert_eq!(seen, expected);
    let mut dead = BTreeMap::new();
    for _ in 0..6 {
        for body in bodies(&service.take_dead_letters(&group, 10).await) {
            *dead.entry(body).or_insert(0) += 1;
        }
    }
    assert!(service.consume_dead_letters(&group, 10).await.is_empty());
    assert_eq!(dead, sent.into_iter().map(|body| (body, 1)).collect());
    let counters = service.counters(&group).await;
    assert_eq!((counters.produced_dead_letters, counters.available_dead_letters), (60, 60));
}

#[tokio::test]
async fn a_batch_in_flight_does_not_hold_up_the_rest() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let held = service.take(&group, 1).await;
    assert_eq!(bodies(&service.take(&group, 10).await), ["2", "3"]);
    service.ack(&group, &handlers(&held, false)).await.unwrap();
    assert_eq!(bodies(&service.take(&group, 10).await), ["1"]);
}
