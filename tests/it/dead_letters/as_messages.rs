//! Dead letters as messages: what they carry, how they are consumed, how long they are kept.

use dms_client::v1 as pb;
use pb::AckOutcome::{Acked, AfterFailure, Failed, InvalidHandler};
use pb::QueueMode::{Fifo, Normal};

use crate::support::consumers::summary;
use crate::support::service::{Group, TestService, attempts, bodies, code, handlers, message};

const HOUR: u64 = 3600;

/// A queue whose messages become dead letters at their first failure, and a group.
async fn unforgiving(mode: pb::QueueMode) -> (TestService, Group) {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", mode, 1).await;
    let group = service.group(&queue, "billing").await;
    (service, group)
}

/// Sends these and fails them at once.
async fn kill(service: &TestService, group: &Group, bodies: &[&str]) {
    service.send(&group.queue, bodies).await;
    assert_eq!(service.fail_next(group, 10).await.len(), bodies.len());
}

/// Produced and available dead letters.
async fn counters(service: &TestService, group: &Group) -> (i64, i64) {
    let counters = service.counters(group).await;
    (counters.produced_dead_letters, counters.available_dead_letters)
}

#[tokio::test]
async fn a_dead_letter_is_the_message_byte_for_byte_with_its_origin() {
    let (service, group) = unforgiving(Normal).await;
    let body = r#"{ "b":1e400,"a" : "\ud800 \u0000 é", "a":[1.0,  -0] }"#;
    let attributes = r#"{"z": 1,  "a" :"\ud800", "z":true}"#;
    let tags = vec!["red".to_owned(), "big".to_owned()];
    let rich = pb::NewMessage { attributes: attributes.into(), tags, ..message(body) };
    service.send(&group.queue, &["0"]).await;
    let ids = service.send_messages(&group.queue, vec![rich, message("null")]).await.unwrap();
    let first = service.take(&group, 1).await;
    service.ack(&group, &handlers(&first, true)).await.unwrap();
    service.advance(10);
    let live = service.fail_next(&group, 10).await;
    assert_eq!(live.len(), 2);
    service.advance(10);
    let dead = service.take_dead_letters(&group, 10).await;
    assert_eq!(dead.len(), 2);
    for (index, (dead, live)) in (0..).zip(dead.iter().zip(&live)) {
        let (dead, live) = (dead.message.as_ref().unwrap(), live.message.as_ref().unwrap());
        assert_eq!((&dead.id, &dead.id), (&live.id, &ids[usize::try_from(index).unwrap()]));
        assert_eq!((&dead.body, &dead.attributes, &dead.tags), (&live.body, &live.attributes, &live.tags));
        assert_eq!(dead.offset, index);
        let moved = dead.append_time.unwrap().seconds - live.append_time.unwrap().seconds;
        assert_eq!(moved, 10, "appended when it was moved");
        let origin = dead.dead_letter.as_ref().unwrap();
        assert_eq!(origin.reason(), pb::DeadLetterReason::AckFail);
        assert_eq!((origin.delivery_attempts, &origin.queue_id, origin.offset), (1, &group.queue, index + 1));
        assert_eq!(origin.append_time, live.append_time);
    }
    let rich = dead[0].message.as_ref().unwrap();
    assert_eq!((rich.body.as_ref(), rich.attributes.as_ref()), (body.as_bytes(), attributes.as_bytes()));
    assert_eq!(rich.tags, ["red", "big"]);
}

#[tokio::test]
async fn dead_letters_of_a_fifo_queue_come_in_order_one_batch_at_a_time() {
    let (service, group) = unforgiving(Fifo).await;
    kill(&service, &group, &["1", "2", "3"]).await;
    kill(&service, &group, &["4", "5"]).await;
    let first = service.take_dead_letters(&group, 2).await;
    assert_eq!(bodies(&first), ["1", "2"]);
    assert!(service.consume_dead_letters(&group, 10).await.is_empty(), "a batch is in flight");
    let list = [(first[0].handler.as_str(), true), (first[1].handler.as_str(), false)];
    service.ack_dead_letters(&group, &list).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let next = service.take_dead_letters(&group, 1).await;
        service.ack_dead_letters(&group, &handlers(&next, true)).await.unwrap();
        seen.extend(bodies(&next));
    }
    assert_eq!(seen, ["2", "3", "4", "5"]);
}

#[tokio::test]
async fn dead_letters_in_flight_do_not_hold_up_normal_messages_of_a_fifo_queue() {
    let (service, group) = unforgiving(Fifo).await;
    kill(&service, &group, &["1"]).await;
    let dead = service.take_dead_letters(&group, 10).await;
    service.send(&group.queue, &["2"]).await;
    let live = service.take(&group, 10).await;
    assert_eq!((bodies(&dead), bodies(&live)), (vec!["1".to_owned()], vec!["2".to_owned()]));
}

#[tokio::test]
async fn dead_letters_are_acknowledged_by_the_same_rules() {
    let (service, group) = unforgiving(Normal).await;
    kill(&service, &group, &["1", "2", "3", "4"]).await;
    let batch = service.take_dead_letters(&group, 10).await;
    let [one, two, three, four] = batch.iter().map(|message| message.handler.as_str()).collect::<Vec<_>>()[..] else {
        panic!("four")
    };
    let refused = service.ack_dead_letters(&group, &[("garbage", true), (one, true)]).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10542209");
    let result = service.ack_dead_letters(&group, &[(one, true), (one, true), (four, true)]).await.unwrap();
    assert_eq!(summary(&result), (1, 2, vec![Acked, InvalidHandler, AfterFailure]));
    let result = service.ack_dead_letters(&group, &[(two, false), (three, true)]).await.unwrap();
    assert_eq!(summary(&result), (0, 2, vec![Failed, AfterFailure]));
    let again = service.take_dead_letters(&group, 10).await;
    let in_order_of_failure = ["4", "2", "3"].map(String::from).to_vec();
    assert_eq!((bodies(&again), attempts(&again)), (in_order_of_failure, vec![2; 3]));
    let result = service.ack_dead_letters(&group, &handlers(&again, true)).await.unwrap();
    assert_eq!(result.success_count, 3);
    assert_eq!(counters(&service, &group).await, (4, 0));
    service.advance(HOUR);
    assert!(service.consume_dead_letters(&group, 10).await.is_empty());
}

#[tokio::test]
async fn an_unacknowledged_dead_letter_comes_again_without_limit() {
    let (service, group) = unforgiving(Normal).await;
    kill(&service, &group, &["1"]).await;
    for attempt in 1..=6 {
        let dead = service.take_dead_letters(&group, 10).await;
        assert_eq!((bodies(&dead), attempts(&dead)), (vec!["1".to_owned()], vec![attempt]));
        if attempt % 2 == 0 {
            service.ack_dead_letters(&group, &handlers(&dead, false)).await.unwrap();
        } else {
            service.advance(29);
            assert!(service.consume_dead_letters(&group, 10).await.is_empty(), "leased");
            service.advance(2);
        }
    }
    assert_eq!(counters(&service, &group).await, (1, 1), "there is no second level");
    assert!(service.consume(&group, 10).await.is_empty());
}

#[tokio::test]
async fn a_dead_letter_outlives_its_original() {
    let (service, group) = unforgiving(Normal).await;
    service.send(&group.queue, &["1", "2"]).await;
    service.advance(71 * HOUR);
    service.fail_next(&group, 10).await;
    service.advance(2 * HOUR);
    let expired = service.counters(&group).await;
    assert_eq!((expired.produced_messages, expired.available_dead_letters), (0, 2));
    let batch = service.take_dead_letters(&group, 1).await;
    assert_eq!(bodies(&batch), ["1"]);
    service.ack_dead_letters(&group, &handlers(&batch, true)).await.unwrap();
    service.advance(70 * HOUR - 60);
    assert_eq!(bodies(&service.take_dead_letters(&group, 10).await), ["2"], "kept 72 h after the move");
    assert_eq!(counters(&service, &group).await, (2, 1));
    service.advance(120);
    assert!(service.consume_dead_letters(&group, 10).await.is_empty(), "gone after 72 h");
    assert_eq!(counters(&service, &group).await, (2, 0));
}

#[tokio::test]
async fn dead_letters_go_with_their_group() {
    let (service, group) = unforgiving(Normal).await;
    kill(&service, &group, &["1"]).await;
    let dead = service.take_dead_letters(&group, 10).await;
    kill(&service, &group, &["2"]).await;
    service.delete_group(&group).await.unwrap();
    let refused = service.ack_dead_letters(&group, &handlers(&dead, true)).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10240405");
    let same_name = service.group(&group.queue, "billing").await;
    assert_ne!(same_name.id, group.id);
    assert!(service.consume_dead_letters(&same_name, 10).await.is_empty());
    let refused = service.ack_dead_letters(&same_name, &handlers(&dead, true)).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10540004");
    assert_eq!(counters(&service, &same_name).await, (0, 0));
    let batch = service.take(&same_name, 10).await;
    assert_eq!((bodies(&batch), attempts(&batch)), (["1", "2"].map(String::from).to_vec(), vec![1; 2]));
}
