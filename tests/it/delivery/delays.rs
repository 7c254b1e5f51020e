//! Delays: hidden to the moment, in nobody's way, in order of availability, and kept like any other message.

use std::time::{Duration, Instant};

use dms_client::v1 as pb;
use pb::QueueMode::{Fifo, KafkaHa, KafkaHt, Normal};

use crate::support::calls::{delayed, eventually, tagged};
use crate::support::service::{PROJECT, TestService, attempts, bodies, code, handlers, message};

const DAY_SECONDS: u64 = 86_400;
const SEVEN_DAYS_MILLIS: i64 = 604_800_000;

#[tokio::test]
async fn a_delay_hides_a_message_for_exactly_that_long() {
    let service = TestService::start().await;
    for (name, mode) in [("normal", Normal), ("fifo", Fifo)] {
        let queue = service.queue_of(name, mode).await;
        let group = service.group(&queue, "group").await;
        service.send_messages(&queue, vec![delayed("1", 60_001)]).await.unwrap();
        assert!(service.consume(&group, 10).await.is_empty(), "{name}");
        service.advance(60);
        assert!(service.consume(&group, 10).await.is_empty(), "{name}: 1 ms is left");
        service.clock.advance(Duration::from_millis(1));
        let batch = service.receive(&group, 10).await;
        assert_eq!((bodies(&batch), attempts(&batch)), (vec!["1".to_owned()], vec![1]), "{name}");
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
        service.advance(61);
        assert!(service.consume(&group, 10).await.is_empty(), "{name}: it comes once");
    }
}

#[tokio::test]
async fn the_append_time_of_a_delayed_message_is_the_end_of_its_delay() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send_messages(&queue, vec![message("1"), delayed("2", 90_000)]).await.unwrap();
    service.advance(90);
    eventually("both are available", async || service.counts(&group).await[2] == 2).await;
    let batch = service.receive(&group, 10).await;
    let seconds: Vec<i64> =
        batch.iter().map(|leased| leased.message.as_ref().unwrap().append_time.unwrap().seconds).collect();
    assert_eq!(seconds[1] - seconds[0], 90);
}

#[tokio::test]
async fn a_delay_of_zero_is_none() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send_messages(&queue, vec![delayed("1", 0), message("2")]).await.unwrap();
    assert_eq!(bodies(&service.receive(&group, 10).await), ["1", "2"]);
}

#[tokio::test]
async fn a_delay_of_seven_days_is_the_longest() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let refused = service.send_messages(&queue, vec![delayed("0", SEVEN_DAYS_MILLIS + 1)]).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10540010");
    service.send_messages(&queue, vec![delayed("1", SEVEN_DAYS_MILLIS)]).await.unwrap();
    service.advance(7 * DAY_SECONDS - 1);
    assert!(service.consume(&group, 10).await.is_empty());
    service.advance(1);
    eventually("it is available", async || service.counts(&group).await[2] == 1).await;
    // It has its full 72 hours from now on.
    service.advance(72 * 3600 - 1);
    let batch = service.receive(&group, 10).await;
    assert_eq!(bodies(&batch), ["1"]);
    service.advance(31);
    assert!(service.consume(&group, 10).await.is_empty(), "expired");
    assert_eq!(service.counts(&group).await, [0; 5]);
}

#[tokio::test]
async fn a_delayed_message_is_not_in_the_way_of_later_ones() {
    let service = TestService::start().await;
    for (name, mode) in [("normal", Normal), ("fifo", Fifo)] {
        let queue = service.queue_of(name, mode).await;
        let group = service.group(&queue, "group").await;
        service.send_messages(&queue, vec![delayed("1", 60_000)]).await.unwrap();
        service.send(&queue, &["2", "3"]).await;
        assert_eq!(service.work_off(&group, 2).await, ["2", "3"], "{name}");
        service.advance(60);
        service.send(&queue, &["4"]).await;
        let mut rest = service.work_off(&group, 2).await;
        rest.sort();
        assert_eq!(rest, ["1", "4"], "{name}");
    }
}

#[tokio::test]
async fn messages_come_in_order_of_availability_then_of_sending() {
    let service = TestService::start().await;
    for (name, mode) in [("normal", Normal), ("fifo", Fifo)] {
        let queue = service.queue_of(name, mode).await;
        let group = service.group(&queue, "group").await;
        let first =
            vec![delayed("\"d\"", 30_000), delayed("\"b\"", 20_000), message("\"a\""), delayed("\"c\"", 20_000)];
        service.send_messages(&queue, first).await.unwrap();
        service.advance(10);
        // Due at 20 s and at 30 s, sent later than those above.
        service.send_messages(&queue, vec![delayed("\"e\"", 20_000), delayed("\"c2\"", 10_000)]).await.unwrap();
        service.advance(30);
        eventually("all are available", async || service.counts(&group).await[2] == 6).await;
        service.send(&queue, &["\"f\""]).await;
        let came = service.work_off(&group, 7).await.join(" ").replace('"', "");
        assert_eq!(came, "a b c c2 d e f", "{name}");
    }
}

#[tokio::test]
async fn a_batch_of_delayed_and_immediate_messages_is_sent_whole_or_not_at_all() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let ids = service.send_messages(&queue, vec![message("1"), delayed("2", 5000), message("3")]).await.unwrap();
    let batch = service.receive(&group, 10).await;
    assert_eq!(bodies(&batch), ["1", "3"]);
    service.ack(&group, &handlers(&batch, true)).await.unwrap();
    service.advance(5);
    let later = service.receive(&group, 10).await;
    assert_eq!((bodies(&later)[0].as_str(), &later[0].message.as_ref().unwrap().id), ("2", &ids[1]));
    service.ack(&group, &handlers(&later, true)).await.unwrap();

    let too_long = vec![message("4"), delayed("5", 1000), delayed("6", SEVEN_DAYS_MILLIS + 1)];
    assert_eq!(code(&service.send_messages(&queue, too_long).await.unwrap_err()), "DMS.10540010");
    service.advance(1);
    assert!(service.consume(&group, 10).await.is_empty());
    assert_eq!(service.number("SELECT count(*) FROM delayed_messages").await, 0);
    assert_eq!(service.counts(&group).await, [3, 3, 0, 0, 0]);
}

#[tokio::test]
async fn every_group_gets_a_delayed_message_also_one_made_meanwhile() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let before = service.group(&queue, "before").await;
    let sent = pb::NewMessage { tags: vec!["a".into()], attributes: "{\"k\": 1}".into(), ..delayed("1", 60_000) };
    service.send_messages(&queue, vec![sent]).await.unwrap();
    let during = service.group(&queue, "during").await;
    service.advance(60);
    for group in [&before, &during] {
        let batch = service.receive(group, 10).await;
        let message = batch[0].message.as_ref().unwrap();
        assert_eq!((&message.body[..], &message.attributes[..]), (&b"1"[..], &b"{\"k\": 1}"[..]));
        assert_eq!(message.tags, ["a"]);
    }
}

#[tokio::test]
async fn a_delayed_message_survives_the_replica_that_took_it() {
    let mut service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send_messages(&queue, vec![delayed("1", 60_000), delayed("2", 120_000)]).await.unwrap();
    let next = service.another_replica().await;
    std::mem::replace(&mut service.replica, next).shutdown().await;
    service.advance(59);
    assert!(service.consume(&group, 10).await.is_empty());
    service.advance(1);
    assert_eq!(service.work_off(&group, 1).await, ["1"]);
    let next = service.another_replica().await;
    std::mem::replace(&mut service.replica, next).shutdown().await;
    // The second delay ends while nobody runs but the new replica.
    service.advance(60);
    assert_eq!(service.work_off(&group, 1).await, ["2"]);
}

#[tokio::test]
async fn a_parked_consumer_is_woken_when_a_delay_ends() {
    let service = TestService::start().await;
    let other = service.another_replica().await;
    let queue = service.queue("queue").await;
    let (here, there) = (service.group(&queue, "here").await, service.group(&queue, "there").await);
    let parked_here = here.park_at(&service.replica, here.consume_request(10)).await;
    let parked_there = there.park_at(&other, there.consume_request(10)).await;
    service.send_messages(&queue, vec![delayed("1", 45_000)]).await.unwrap();
    service.advance(44);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!parked_here.is_finished() && !parked_there.is_finished());
    service.advance(1);
    let begun = Instant::now();
    assert_eq!(bodies(&parked_here.await.unwrap().unwrap()), ["1"]);
    assert_eq!(bodies(&parked_there.await.unwrap().unwrap()), ["1"]);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    other.shutdown().await;
}

#[tokio::test]
async fn a_delayed_message_counts_when_it_is_available() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send_messages(&queue, vec![message("1"), delayed("2", 10_000), delayed("3", 20_000)]).await.unwrap();
    for (available, advance) in [(1, 10), (2, 10), (3, 3600)] {
        eventually("counted", async || service.counts(&group).await == [available, 0, available, 0, 0]).await;
        assert_eq!(service.show_queue(&queue).await.produced_messages, available);
        service.advance(advance);
    }
}

#[tokio::test]
async fn the_rule_of_a_group_holds_for_delayed_messages() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let consumer = group.park_at(&service.replica, group.labelled_request(&["a"], pb::TagMatch::Any)).await;
    let delay = delayed("", 1000).delay;
    let other = pb::NewMessage { delay, ..tagged("1", &["b"]) };
    let wanted = pb::NewMessage { delay, ..tagged("2", &["a"]) };
    service.send_messages(&queue, vec![other, wanted]).await.unwrap();
    service.advance(1);
    assert_eq!(bodies(&consumer.await.unwrap().unwrap()), ["2"]);
}

#[tokio::test]
async fn a_delayed_message_can_fail_and_die() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Fifo, 2).await;
    let group = service.group(&queue, "group").await;
    service.send_messages(&queue, vec![delayed("1", 30_000)]).await.unwrap();
    service.advance(30);
    for attempt in 1..=2 {
        let batch = service.receive(&group, 10).await;
        assert_eq!((bodies(&batch), attempts(&batch)), (vec!["1".to_owned()], vec![attempt]));
        service.ack(&group, &handlers(&batch, false)).await.unwrap();
    }
    assert_eq!(bodies(&service.receive_dead_letters(&group, 10).await), ["1"]);
    assert_eq!(service.counts(&group).await, [1, 0, 0, 1, 1]);
}

#[tokio::test]
async fn deleting_a_queue_drops_its_delayed_messages() {
    let service = TestService::start().await;
    let (gone, kept) = (service.queue("gone").await, service.queue("kept").await);
    let group = service.group(&kept, "group").await;
    for queue in [&gone, &kept] {
        service.send_messages(queue, vec![delayed("1", 60_000), delayed("2", 70_000)]).await.unwrap();
    }
    let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: gone.clone() };
    service.replica.queues.clone().delete_queue(request).await.unwrap();
    assert_eq!(service.number("SELECT count(*) FROM delayed_messages").await, 2);
    let refused = service.send_messages(&gone, vec![delayed("3", 60_000)]).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10240401");
    assert_eq!(service.number("SELECT count(*) FROM delayed_messages").await, 2);
    service.advance(70);
    assert_eq!(service.work_off(&group, 2).await, ["1", "2"]);
    assert_eq!(service.number("SELECT count(*) FROM delayed_messages").await, 0);
}

#[tokio::test]
async fn kafka_queues_refuse_a_delay_and_the_whole_batch_with_it() {
    let service = TestService::start().await;
    for (name, mode) in [("ha", KafkaHa), ("ht", KafkaHt)] {
        let queue = service.queue_of(name, mode).await;
        let group = service.group(&queue, "group").await;
        let refused = service.send_messages(&queue, vec![message("1"), delayed("2", 1)]).await.unwrap_err();
        assert_eq!(code(&refused), "DMS.10540010", "{name}");
        service.send_messages(&queue, vec![delayed("3", 0)]).await.unwrap();
        assert_eq!(service.work_off(&group, 1).await, ["3"], "{name}");
        assert_eq!(service.counts(&group).await, [1, 1, 0, 0, 0], "{name}");
    }
}
