//! FIFO queues: each group gets the messages in the order of the sends, whatever fails.

use std::sync::{Arc, Mutex};

use dms_client::v1 as pb;

use crate::support::consumers::options;
use crate::support::service::{Group, TestService, attempts, bodies, handlers};

async fn fifo_queue(service: &TestService) -> String {
    let mode = pb::QueueMode::Fifo.into();
    service.create_queue(pb::CreateQueueRequest { name: "steps".into(), queue_mode: mode, ..Default::default() }).await
}

/// A FIFO queue with messages `1` to `count`, at most 10 a send, and a group.
async fn with_messages(count: usize) -> (TestService, Group) {
    let service = TestService::start().await;
    let queue = fifo_queue(&service).await;
    let group = service.group(&queue, "billing").await;
    send_numbers(&service, &queue, count).await;
    (service, group)
}

async fn send_numbers(service: &TestService, queue: &str, count: usize) {
    for batch in numbers(count).chunks(10) {
        service.send(queue, &batch.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

fn numbers(count: usize) -> Vec<String> {
    (1..=count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn nothing_is_delivered_while_a_batch_is_in_flight() {
    let (service, group) = with_messages(5).await;
    let batch = service.take(&group, 3).await;
    assert_eq!(bodies(&batch), ["1", "2", "3"]);
    assert!(service.consume(&group, 10).await.is_empty(), "nothing and no error");
    service.ack(&group, &handlers(&batch[..2], true)).await.unwrap();
    assert!(service.consume(&group, 10).await.is_empty(), "one of the batch is still in flight");
    service.ack(&group, &handlers(&batch[2..], true)).await.unwrap();
    assert_eq!(bodies(&service.take(&group, 10).await), ["4", "5"]);
}

#[tokio::test]
async fn a_failed_message_comes_again_first_and_then_the_rest_in_order() {
    let (service, group) = with_messages(5).await;
    let batch = service.take(&group, 3).await;
    let list = [(batch[0].handler.as_str(), true), (&batch[1].handler, false), (&batch[2].handler, true)];
    service.ack(&group, &list).await.unwrap();
    let mut seen = Vec::new();
    for expected_attempt in [2, 2, 1, 1] {
        let next = service.take(&group, 1).await;
        assert_eq!(attempts(&next), [expected_attempt]);
        assert_eq!(service.ack(&group, &handlers(&next, true)).await.unwrap().success_count, 1);
        seen.extend(bodies(&next));
    }
    assert_eq!(seen, ["2", "3", "4", "5"]);
    assert!(service.consume(&group, 10).await.is_empty());
}

#[tokio::test]
async fn a_failed_message_waits_for_the_rest_of_its_batch_that_is_in_flight() {
    let (service, group) = with_messages(4).await;
    let batch = service.take(&group, 3).await;
    service.ack(&group, &[(&batch[0].handler, true), (&batch[1].handler, false)]).await.unwrap();
    assert!(service.consume(&group, 10).await.is_empty(), "the third is in flight");
    service.advance(31);
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (["2", "3"].map(String::from).to_vec(), vec![2, 2]));
    service.ack(&group, &handlers(&again, true)).await.unwrap();
    assert_eq!(bodies(&service.take(&group, 10).await), ["4"]);
}

#[tokio::test]
async fn a_message_that_fails_again_and_again_holds_up_the_rest() {
    let (service, group) = with_messages(2).await;
    for attempt in 1..=5 {
        let head = service.take(&group, 1).await;
        assert_eq!((bodies(&head), attempts(&head)), (vec!["1".to_owned()], vec![attempt]));
        service.ack(&group, &handlers(&head, false)).await.unwrap();
    }
}

#[tokio::test]
async fn order_holds_over_an_expired_lease() {
    let (service, group) = with_messages(4).await;
    assert_eq!(bodies(&service.take(&group, 2).await), ["1", "2"]);
    service.advance(29);
    assert!(service.consume(&group, 10).await.is_empty(), "the batch is in flight to the end of its lease");
    service.advance(2);
    let mut seen = Vec::new();
    for expected_attempt in [2, 2, 1, 1] {
        let next = service.take(&group, 1).await;
        assert_eq!(attempts(&next), [expected_attempt]);
        service.ack(&group, &handlers(&next, true)).await.unwrap();
        seen.extend(bodies(&next));
    }
    assert_eq!(seen, numbers(4));
}

#[tokio::test]
async fn a_dead_lettered_head_unblocks_the_rest() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("steps", pb::QueueMode::Fifo, 2).await;
    let group = service.group(&queue, "billing").await;
    send_numbers(&service, &queue, 3).await;
    for attempt in 1..=2 {
        let head = service.take(&group, 1).await;
        assert_eq!((bodies(&head), attempts(&head)), (vec!["1".to_owned()], vec![attempt]));
        service.ack(&group, &handlers(&head, false)).await.unwrap();
    }
    let rest = service.take(&group, 10).await;
    assert_eq!((bodies(&rest), attempts(&rest)), (["2", "3"].map(String::from).to_vec(), vec![1, 1]));
    assert_eq!(bodies(&service.take_dead_letters(&group, 10).await), ["1"]);
}

#[tokio::test]
async fn a_head_that_becomes_a_dead_letter_by_expiry_unblocks_the_rest() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("steps", pb::QueueMode::Fifo, 1).await;
    let group = service.group(&queue, "billing").await;
    send_numbers(&service, &queue, 2).await;
    service.take(&group, 1).await;
    service.advance(31);
    assert_eq!(bodies(&service.take(&group, 10).await), ["2"]);
    assert_eq!(bodies(&service.take_dead_letters(&group, 10).await), ["1"]);
}

#[tokio::test]
async fn groups_of_a_fifo_queue_do_not_hold_up_each_other() {
    let (service, slow) = with_messages(3).await;
    let quick = service.group(&slow.queue, "audit").await;
    let held = service.take(&slow, 1).await;
    for number in numbers(3) {
        let next = service.take(&quick, 1).await;
        assert_eq!(bodies(&next), [number]);
        service.ack(&quick, &handlers(&next, true)).await.unwrap();
    }
    assert!(service.consume(&slow, 10).await.is_empty());
    service.ack(&slow, &handlers(&held, true)).await.unwrap();
    assert_eq!(bodies(&service.take(&slow, 10).await), ["2", "3"]);
}

/// Consumes in batches of different sizes until `count` are done; now and then a batch fails behind its first message.
/// What is acknowledged is written down before, because another consumer goes on right after.
async fn consume_until_done(
    service: Arc<TestService>,
    group: Group,
    done: Arc<Mutex<Vec<String>>>,
    count: usize,
    id: usize,
) {
    for round in id.. {
        if done.lock().unwrap().len() >= count {
            return;
        }
        let batch = service.wait_for(&group, options(i32::try_from(round % 4 + 1).unwrap(), 1, None)).await;
        if batch.is_empty() {
            continue;
        }
        let good = if round % 5 == 0 { 1 } else { batch.len() };
        let list: Vec<_> =
            batch.iter().enumerate().map(|(index, message)| (message.handler.as_str(), index < good)).collect();
        done.lock().unwrap().extend_from_slice(&bodies(&batch)[..good]);
        let result = service.ack(&group, &list).await.unwrap();
        assert_eq!(usize::try_from(result.success_count).unwrap(), good);
    }
}

#[tokio::test]
async fn concurrent_consumers_of_two_groups_each_keep_the_order() {
    const COUNT: usize = 60;
    let (service, billing) = with_messages(COUNT).await;
    let service = Arc::new(service);
    let audit = service.group(&billing.queue, "audit").await;
    let mut consumers = tokio::task::JoinSet::new();
    let mut orders = Vec::new();
    for group in [billing, audit] {
        let done = Arc::new(Mutex::new(Vec::new()));
        for id in 0..4 {
            consumers.spawn(consume_until_done(service.clone(), group.clone(), done.clone(), COUNT, id));
        }
        orders.push(done);
    }
    while let Some(ended) = consumers.join_next().await {
        ended.unwrap();
    }
    for order in orders {
        assert_eq!(*order.lock().unwrap(), numbers(COUNT));
    }
}
