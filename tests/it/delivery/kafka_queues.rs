//! Kafka queues over this API: their own retention, no dead letters, no attributes.

use std::time::Duration;

use dms_client::v1 as pb;
use pb::QueueMode::{self, KafkaHa, KafkaHt};

use crate::support::service::{Group, PROJECT, TestService, attempts, bodies, code, handlers, message};

const MODES: [(&str, QueueMode); 2] = [("ha", KafkaHa), ("ht", KafkaHt)];

async fn kafka_queue(service: &TestService, name: &str, mode: QueueMode, retention_hours: Option<i32>) -> String {
    let request =
        pb::CreateQueueRequest { name: name.into(), queue_mode: mode.into(), retention_hours, ..Default::default() };
    service.create_queue(request).await
}

async fn dead_letters(service: &TestService, group: &Group) -> tonic::Status {
    let request = pb::ConsumeDeadLettersRequest {
        project_id: PROJECT.into(),
        queue_id: group.queue.clone(),
        group_id: group.id.clone(),
        options: None,
    };
    service.replica.dead_letters.clone().consume_dead_letters(request).await.unwrap_err()
}

#[tokio::test]
async fn every_group_gets_every_message() {
    let service = TestService::start().await;
    for (name, mode) in MODES {
        let queue = kafka_queue(&service, name, mode, Some(1)).await;
        let (first, second) = (service.group(&queue, "first").await, service.group(&queue, "second").await);
        service.send(&queue, &["1", "\"two\""]).await;
        service.send(&queue, &["{\"three\": 3}"]).await;
        for group in [&first, &second] {
            assert_eq!(service.work_off(group, 3).await, ["1", "\"two\"", "{\"three\": 3}"], "{name}");
            assert!(service.consume(group, 10).await.is_empty(), "{name}");
            assert_eq!(service.counts(group).await, [3, 3, 0, 0, 0], "{name}");
        }
    }
}

#[tokio::test]
async fn a_parked_consumer_is_woken_by_a_send() {
    let service = TestService::start().await;
    for (name, mode) in MODES {
        let queue = kafka_queue(&service, name, mode, None).await;
        let group = service.group(&queue, "group").await;
        let consumer = group.park_at(&service.replica, group.consume_request(10)).await;
        service.send(&queue, &["1"]).await;
        assert_eq!(bodies(&consumer.await.unwrap().unwrap()), ["1"], "{name}");
    }
}

#[tokio::test]
async fn retention_hours_are_kept_to_the_moment() {
    let service = TestService::start().await;
    for (name, mode, given, hours) in [
        ("one", KafkaHa, Some(1), 1),
        ("two", KafkaHt, Some(2), 2),
        ("most", KafkaHa, Some(72), 72),
        ("none", KafkaHt, None, 72),
    ] {
        let queue = kafka_queue(&service, name, mode, given).await;
        let group = service.group(&queue, "group").await;
        service.send(&queue, &["\"early\""]).await;
        service.clock.advance(Duration::from_millis(1));
        service.send(&queue, &["\"late\""]).await;
        service.clock.advance(Duration::from_secs(hours * 3600) - Duration::from_millis(2));
        assert_eq!(service.counts(&group).await, [2, 0, 2, 0, 0], "{name}");
        service.clock.advance(Duration::from_millis(1));
        assert_eq!(service.counts(&group).await, [1, 0, 1, 0, 0], "{name}");
        assert_eq!(service.show_queue(&queue).await.produced_messages, 1, "{name}");
        let batch = service.receive(&group, 10).await;
        assert_eq!(bodies(&batch), ["\"late\""], "{name}");
        service.clock.advance(Duration::from_millis(1));
        assert_eq!(service.counts(&group).await, [0; 5], "{name}: leased, and expired");
        service.advance(30);
        assert!(service.consume(&group, 10).await.is_empty(), "{name}: not even again");
        assert_eq!(service.counts(&group).await, [0; 5], "{name}");
    }
}

#[tokio::test]
async fn a_new_group_begins_at_the_earliest_message_that_is_kept() {
    let service = TestService::start().await;
    let queue = kafka_queue(&service, "queue", KafkaHa, Some(1)).await;
    for body in ["1", "2", "3"] {
        service.send(&queue, &[body]).await;
        service.advance(1500);
    }
    let group = service.group(&queue, "group").await;
    assert_eq!(service.counts(&group).await, [2, 0, 2, 0, 0]);
    assert_eq!(service.work_off(&group, 2).await, ["2", "3"]);
    assert_eq!(service.counts(&group).await, [2, 2, 0, 0, 0]);
}

#[tokio::test]
async fn attributes_are_ignored() {
    let service = TestService::start().await;
    for (name, mode) in MODES {
        let queue = kafka_queue(&service, name, mode, None).await;
        let group = service.group(&queue, "group").await;
        let sent = pb::NewMessage { attributes: "{\"a\": \"b\"}".into(), ..message("1") };
        service.send_messages(&queue, vec![sent]).await.unwrap();
        let batch = service.receive(&group, 10).await;
        assert_eq!(&batch[0].message.as_ref().unwrap().attributes[..], b"{}", "{name}");
    }
}

#[tokio::test]
async fn there_are_no_dead_letters_whatever_redrive_says() {
    let service = TestService::start().await;
    for (name, mode) in MODES {
        let request = pb::CreateQueueRequest {
            name: name.into(),
            queue_mode: mode.into(),
            redrive_policy: pb::RedrivePolicy::Enable.into(),
            max_consume_count: Some(2),
            ..Default::default()
        };
        let queue = service.create_queue(request).await;
        let group = service.group(&queue, "group").await;
        service.send(&queue, &["1"]).await;
        for attempt in 1..=5 {
            let batch = service.receive(&group, 10).await;
            assert_eq!((bodies(&batch), attempts(&batch)), (vec!["1".to_owned()], vec![attempt]), "{name}");
            service.ack(&group, &handlers(&batch, false)).await.unwrap();
        }
        assert_eq!(code(&dead_letters(&service, &group).await), "DMS.10540010", "{name}");
        assert_eq!(service.counts(&group).await, [1, 0, 1, 0, 0], "{name}");
        assert_eq!(service.work_off(&group, 1).await, ["1"], "{name}");
    }
}

#[tokio::test]
async fn a_kafka_queue_shows_its_topic_and_its_retention_and_no_redrive() {
    let service = TestService::start().await;
    for (name, mode, hours, minutes) in [("ha", KafkaHa, Some(36), 2160), ("ht", KafkaHt, None, 4320)] {
        let request = pb::CreateQueueRequest {
            name: name.into(),
            queue_mode: mode.into(),
            retention_hours: hours,
            redrive_policy: pb::RedrivePolicy::Enable.into(),
            max_consume_count: Some(2),
            ..Default::default()
        };
        let id = service.create_queue(request).await;
        let shown = service.show_queue(&id).await;
        assert_eq!(shown.kafka_topic, format!("k-{PROJECT}-{id}"));
        assert_eq!((shown.queue_mode(), shown.reservation_minutes), (mode, minutes));
        assert_eq!((shown.redrive_policy(), shown.max_consume_count), (pb::RedrivePolicy::Unspecified, 0));
    }
}

#[tokio::test]
async fn a_batch_in_flight_does_not_hold_back_the_rest() {
    let service = TestService::start().await;
    for (name, mode) in MODES {
        let queue = kafka_queue(&service, name, mode, None).await;
        let group = service.group(&queue, "group").await;
        service.send(&queue, &["1", "2", "3"]).await;
        let first = service.receive(&group, 2).await;
        let second = service.receive(&group, 2).await;
        assert_eq!((bodies(&first), bodies(&second)), (vec!["1".into(), "2".into()], vec!["3".to_owned()]), "{name}");
    }
}
