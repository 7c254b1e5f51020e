//! Groups are independent readers of one queue.

use std::time::Duration;

use dms_client::v1 as pb;

use crate::support::service::{Group, TestService, attempts, bodies, code, handlers};

const HOUR: u64 = 3600;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Takes a batch and acknowledges it.
async fn consume_and_ack(service: &TestService, group: &Group, max: i32) -> Vec<String> {
    let batch = service.take(group, max).await;
    assert!(attempts(&batch).iter().all(|attempt| *attempt == 1));
    service.ack(group, &handlers(&batch, true)).await.unwrap();
    bodies(&batch)
}

/// Produced, consumed and available messages.
async fn counters(service: &TestService, group: &Group) -> (i64, i64, i64) {
    let counters = service.counters(group).await;
    (counters.produced_messages, counters.consumed_messages, counters.available_messages)
}

#[tokio::test]
async fn every_group_sees_every_message_once() {
    let service = TestService::start().await;
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo, pb::QueueMode::KafkaHa, pb::QueueMode::KafkaHt] {
        let name = mode.as_str_name().to_owned();
        let new = pb::CreateQueueRequest { name, queue_mode: mode.into(), ..Default::default() };
        let queue = service.create_queue(new).await;
        let mut groups = Vec::new();
        for name in ["billing", "audit", "mail"] {
            groups.push(service.group(&queue, name).await);
        }
        service.send(&queue, &["1", "2"]).await;
        service.send(&queue, &["3"]).await;
        for group in &groups {
            let mut seen = Vec::new();
            for _ in 0..3 {
                seen.extend(consume_and_ack(&service, group, 1).await);
            }
            assert_eq!(seen, ["1", "2", "3"]);
        }
        service.advance(HOUR);
        for group in &groups {
            assert!(service.consume(group, 10).await.is_empty());
            assert_eq!(counters(&service, group).await, (3, 3, 0));
        }
    }
}

#[tokio::test]
async fn a_failure_in_one_group_does_not_show_in_another() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let (failing, other) = (service.group(&queue, "billing").await, service.group(&queue, "audit").await);
    service.send(&queue, &["1"]).await;
    for _ in 0..3 {
        service.fail_next(&failing, 10).await;
    }
    assert_eq!(consume_and_ack(&service, &other, 10).await, ["1"]);
    assert_eq!(attempts(&service.take(&failing, 10).await), [4]);
    assert_eq!(counters(&service, &failing).await, (1, 0, 1));
}

#[tokio::test]
async fn a_new_group_begins_at_the_earliest_retained_message() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let old = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2", "3"]).await;
    assert_eq!(consume_and_ack(&service, &old, 10).await, ["1", "2", "3"]);
    let new = service.group(&queue, "audit").await;
    assert_eq!(counters(&service, &new).await, (3, 0, 3));
    assert_eq!(consume_and_ack(&service, &new, 2).await, ["1", "2"]);
    service.send(&queue, &["4"]).await;
    assert_eq!(consume_and_ack(&service, &new, 1).await, ["3"]);
    assert_eq!(consume_and_ack(&service, &new, 10).await, ["4"]);
    assert_eq!(consume_and_ack(&service, &old, 10).await, ["4"], "goes on where it was");
}

#[tokio::test]
async fn what_expired_before_a_group_was_created_is_not_for_it() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let old = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2"]).await;
    assert_eq!(consume_and_ack(&service, &old, 1).await, ["1"]);
    service.advance(71 * HOUR);
    service.send(&queue, &["3"]).await;
    let early = service.group(&queue, "early").await;
    service.advance(2 * HOUR);
    let late = service.group(&queue, "late").await;
    assert_eq!(counters(&service, &late).await, (1, 0, 1));
    assert_eq!(counters(&service, &early).await, (1, 0, 1));
    assert_eq!(counters(&service, &old).await, (1, 1, 1), "one consumed, one expired, one to come");
    for group in [&old, &early, &late] {
        assert_eq!(consume_and_ack(&service, group, 10).await, ["3"]);
        assert!(service.consume(group, 10).await.is_empty());
    }
    assert_eq!(counters(&service, &late).await, (1, 1, 0));
    assert_eq!(counters(&service, &early).await, (1, 1, 0));
    assert_eq!(counters(&service, &old).await, (1, 2, 0));
    service.advance(72 * HOUR);
    let after_all = service.group(&service.queue("empty").await, "audit").await;
    assert_eq!(counters(&service, &after_all).await, (0, 0, 0));
    assert_eq!(counters(&service, &late).await, (0, 1, 0));
}

#[tokio::test]
async fn a_group_created_when_everything_has_expired_begins_at_the_next_message() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    service.send(&queue, &["1", "2"]).await;
    service.advance(73 * HOUR);
    let group = service.group(&queue, "billing").await;
    assert!(service.consume(&group, 10).await.is_empty());
    assert_eq!(counters(&service, &group).await, (0, 0, 0));
    service.send(&queue, &["3"]).await;
    assert_eq!(consume_and_ack(&service, &group, 10).await, ["3"]);
    assert_eq!(counters(&service, &group).await, (1, 1, 0));
}

#[tokio::test]
async fn messages_are_kept_72_hours_to_the_second() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2"]).await;
    service.advance(72 * HOUR - 1);
    let batch = service.take(&group, 1).await;
    assert_eq!(bodies(&batch), ["1"]);
    service.advance(2);
    assert!(service.consume(&group, 10).await.is_empty());
    assert_eq!(
        service.ack(&group, &handlers(&batch, true)).await.unwrap().success_count,
        1,
        "in flight it stays valid"
    );
    assert_eq!(counters(&service, &group).await, (0, 1, 0));
}

#[tokio::test]
async fn a_failed_message_that_has_expired_does_not_come_again_nor_die() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", pb::QueueMode::Normal, 2).await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1"]).await;
    service.fail_next(&group, 10).await;
    service.send(&queue, &["2"]).await;
    service.advance(72 * HOUR);
    // Of two appends in the same instant the second is a microsecond later.
    service.clock.advance(Duration::from_micros(1));
    assert!(service.consume(&group, 10).await.is_empty());
    assert!(service.consume_dead_letters(&group, 10).await.is_empty());
    assert_eq!(counters(&service, &group).await, (0, 0, 0));
    service.send(&queue, &["3"]).await;
    assert_eq!(consume_and_ack(&service, &group, 10).await, ["3"]);
    assert_eq!(counters(&service, &group).await, (1, 1, 0));
}

#[tokio::test]
async fn a_deleted_group_is_gone_and_the_messages_stay_for_the_others() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let (deleted, kept) = (service.group(&queue, "billing").await, service.group(&queue, "audit").await);
    service.send(&queue, &["1", "2"]).await;
    let batch = service.take(&deleted, 1).await;
    service.delete_group(&deleted).await.unwrap();
    let gone = service.ack(&deleted, &handlers(&batch, true)).await.unwrap_err();
    assert_eq!(code(&gone), "DMS.10240405");
    let gone = deleted.consume_from(&service.replica, 10).await.unwrap_err();
    assert_eq!(code(&gone), "DMS.10240405");
    assert_eq!(code(&service.delete_group(&deleted).await.unwrap_err()), "DMS.10240405");
    assert_eq!(consume_and_ack(&service, &kept, 10).await, texts(&["1", "2"]));
    let again = service.group(&queue, "billing").await;
    assert_eq!(consume_and_ack(&service, &again, 10).await, texts(&["1", "2"]), "a new group begins anew");
}
