//! When a message becomes a dead letter: after max_consume_count counted failures, exactly once, of that group only.

use std::time::{Duration, Instant};

use dms_client::v1 as pb;
use pb::DeadLetterReason::{AckFail, LeaseExpired};
use pb::QueueMode::{Fifo, KafkaHa, KafkaHt, Normal};

use crate::support::consumers::options;
use crate::support::service::{Group, TestService, attempts, bodies, code, handlers};

async fn with_redrive(mode: pb::QueueMode, max_consume_count: i32) -> (TestService, Group) {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", mode, max_consume_count).await;
    let group = service.group(&queue, "billing").await;
    (service, group)
}

/// How one delivery ends without success.
#[derive(Clone, Copy)]
enum Failure {
    Ack,
    Expiry,
}

/// Lets the only message fail in these ways, one delivery after the other.
async fn fail(service: &TestService, group: &Group, ways: &[Failure]) {
    for (attempt, way) in (1..).zip(ways) {
        let batch = service.take(group, 10).await;
        assert_eq!(attempts(&batch), [attempt]);
        match way {
            Failure::Ack => drop(service.ack(group, &handlers(&batch, false)).await.unwrap()),
            Failure::Expiry => service.advance(31),
        }
    }
}

/// Produced and available dead letters, available normal messages.
async fn counters(service: &TestService, group: &Group) -> (i64, i64, i64) {
    let counters = service.counters(group).await;
    (counters.produced_dead_letters, counters.available_dead_letters, counters.available_messages)
}

fn origin(message: &pb::LeasedMessage) -> pb::DeadLetterOrigin {
    message.message.clone().unwrap().dead_letter.unwrap()
}

#[tokio::test]
async fn max_consume_count_failures_of_any_kind_make_exactly_one_dead_letter() {
    use Failure::{Ack, Expiry};
    let cases: [(&[Failure], pb::DeadLetterReason); 6] = [
        (&[Ack], AckFail),
        (&[Expiry], LeaseExpired),
        (&[Ack, Ack, Ack], AckFail),
        (&[Expiry, Expiry, Expiry], LeaseExpired),
        (&[Ack, Expiry, Ack], AckFail),
        (&[Ack, Ack, Expiry], LeaseExpired),
    ];
    let service = TestService::start().await;
    for (index, (ways, reason)) in cases.into_iter().enumerate() {
        let count = i32::try_from(ways.len()).unwrap();
        for mode in [Normal, Fifo] {
            let queue = service.redrive_queue(&format!("{index}{}", mode.as_str_name()), mode, count).await;
            let group = service.group(&queue, "billing").await;
            service.send(&group.queue, &["1"]).await;
            fail(&service, &group, ways).await;
            let dead = service.take_dead_letters(&group, 10).await;
            assert_eq!((bodies(&dead), attempts(&dead)), (vec!["1".to_owned()], vec![1]));
            assert_eq!((origin(&dead[0]).reason(), origin(&dead[0]).delivery_attempts), (reason, count));
            assert_eq!(counters(&service, &group).await, (1, 1, 0));
            service.advance(3600);
            assert!(service.consume(&group, 10).await.is_empty(), "never delivered again");
        }
    }
}

#[tokio::test]
async fn a_message_that_succeeds_at_the_last_attempt_is_no_dead_letter() {
    let (service, group) = with_redrive(Normal, 3).await;
    service.send(&group.queue, &["1"]).await;
    fail(&service, &group, &[Failure::Ack, Failure::Expiry]).await;
    let last = service.take(&group, 10).await;
    assert_eq!(attempts(&last), [3]);
    service.ack(&group, &handlers(&last, true)).await.unwrap();
    service.advance(3600);
    assert!(service.consume_dead_letters(&group, 10).await.is_empty());
    assert_eq!(counters(&service, &group).await, (0, 0, 0));
    assert_eq!(service.counters(&group).await.consumed_messages, 1);
}

#[tokio::test]
async fn the_tail_behind_a_failed_message_uses_up_its_attempts_too() {
    for mode in [Normal, Fifo] {
        let (service, group) = with_redrive(mode, 2).await;
        service.send(&group.queue, &["1", "2", "3"]).await;
        let first = service.take(&group, 3).await;
        let list = [(first[0].handler.as_str(), true), (&first[1].handler, false), (&first[2].handler, true)];
        service.ack(&group, &list).await.unwrap();
        let second = service.take(&group, 2).await;
        assert_eq!((bodies(&second), attempts(&second)), (["2", "3"].map(String::from).to_vec(), vec![2, 2]));
        assert_eq!(counters(&service, &group).await, (0, 0, 2));
        let list = [(second[0].handler.as_str(), false), (&second[1].handler, true)];
        service.ack(&group, &list).await.unwrap();
        assert_eq!(bodies(&service.take_dead_letters(&group, 10).await), ["2", "3"]);
        assert_eq!(counters(&service, &group).await, (2, 2, 0));
        service.send(&group.queue, &["4"]).await;
        assert_eq!(bodies(&service.take(&group, 10).await), ["4"]);
    }
}

#[tokio::test]
async fn what_stands_behind_a_bad_handler_becomes_a_dead_letter_too() {
    let (service, group) = with_redrive(Normal, 1).await;
    service.send(&group.queue, &["1", "2", "3"]).await;
    let batch = service.take(&group, 10).await;
    let list = [(batch[0].handler.as_str(), true), ("garbage", true), (&batch[1].handler, true)];
    service.ack(&group, &list).await.unwrap();
    assert_eq!(bodies(&service.take_dead_letters(&group, 10).await), ["2"]);
    assert_eq!(counters(&service, &group).await, (1, 1, 1), "the third is in flight");
    service.advance(31);
    assert_eq!(bodies(&service.take_dead_letters(&group, 1).await).len(), 1);
}

#[tokio::test]
async fn dead_letters_belong_to_the_group_that_failed() {
    let (service, failing) = with_redrive(Normal, 1).await;
    let other = service.group(&failing.queue, "audit").await;
    service.send(&failing.queue, &["1"]).await;
    fail(&service, &failing, &[Failure::Ack]).await;
    assert!(service.consume_dead_letters(&other, 10).await.is_empty());
    let batch = service.take(&other, 10).await;
    assert_eq!((bodies(&batch), attempts(&batch)), (vec!["1".to_owned()], vec![1]));
    service.ack(&other, &handlers(&batch, true)).await.unwrap();
    assert_eq!(counters(&service, &other).await, (0, 0, 0));
    let dead = service.take_dead_letters(&failing, 10).await;
    assert_eq!(bodies(&dead), ["1"]);
    let foreign = service.ack_dead_letters(&other, &handlers(&dead, true)).await.unwrap_err();
    assert_eq!(code(&foreign), "DMS.10540004");
}

#[tokio::test]
async fn without_redrive_a_message_fails_without_limit_and_dead_letters_stay_empty() {
    let service = TestService::start().await;
    let group = service.group(&service.queue("orders").await, "billing").await;
    service.send(&group.queue, &["1"]).await;
    let ways = [Failure::Ack, Failure::Expiry].repeat(5);
    fail(&service, &group, &ways).await;
    let batch = service.take(&group, 10).await;
    assert_eq!(attempts(&batch), [11]);
    let begun = Instant::now();
    assert!(service.wait_for_dead_letters(&group, options(10, 1, None)).await.unwrap().is_empty());
    assert!(begun.elapsed() >= Duration::from_secs(1), "empty only after the wait");
    let refused = service.ack_dead_letters(&group, &[("garbage", true)]).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10542209");
    let refused = service.ack_dead_letters(&group, &handlers(&batch, true)).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10540004");
    assert_eq!(counters(&service, &group).await, (0, 0, 1));
}

#[tokio::test]
async fn kafka_queues_have_no_dead_letters_whatever_their_policy() {
    let service = TestService::start().await;
    for (name, mode) in [("ha", KafkaHa), ("ht", KafkaHt)] {
        let queue = service.redrive_queue(name, mode, 1).await;
        let group = service.group(&queue, "billing").await;
        service.send(&queue, &["1"]).await;
        fail(&service, &group, &[Failure::Ack, Failure::Expiry, Failure::Ack]).await;
        let batch = service.take(&group, 10).await;
        assert_eq!(attempts(&batch), [4]);
        let refused = service.wait_for_dead_letters(&group, options(10, 1, None)).await.unwrap_err();
        assert_eq!(code(&refused), "DMS.10540010");
        let refused = service.ack_dead_letters(&group, &handlers(&batch, true)).await.unwrap_err();
        assert_eq!(code(&refused), "DMS.10540010");
    }
}
