//! Counters: exact whenever nothing is under way. Each step names produced, consumed, available, produced and available
//! dead letters.

use std::time::Duration;

use dms_client::v1 as pb;
use pb::QueueMode::{Fifo, Normal};

use crate::support::calls::{eventually, tagged};
use crate::support::service::{PROJECT, TestService, bodies, handlers};

#[tokio::test]
async fn counters_follow_sends_leases_and_acks() {
    let service = TestService::start().await;
    for (name, mode) in [("normal", Normal), ("fifo", Fifo)] {
        let queue = service.queue_of(name, mode).await;
        let group = service.group(&queue, "group").await;
        assert_eq!(service.counts(&group).await, [0; 5], "{name}");
        service.send(&queue, &["1", "2", "3", "4", "5"]).await;
        service.send(&queue, &["6", "7", "8", "9", "10"]).await;
        assert_eq!(service.counts(&group).await, [10, 0, 10, 0, 0], "{name}");
        let batch = service.receive(&group, 4).await;
        assert_eq!(service.counts(&group).await, [10, 0, 10, 0, 0], "{name}: leased is available");
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
        assert_eq!(service.counts(&group).await, [10, 4, 6, 0, 0], "{name}");
        service.work_off(&group, 6).await;
        assert_eq!(service.counts(&group).await, [10, 10, 0, 0, 0], "{name}");
    }
}

#[tokio::test]
async fn counters_are_exact_in_every_state_of_a_batch() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Normal, 2).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2", "3", "4", "5", "6"]).await;
    let batch = service.receive(&group, 6).await;
    let all = handlers(&batch, true);
    service.ack(&group, &all[..2]).await.unwrap();
    assert_eq!(service.counts(&group).await, [6, 2, 4, 0, 0], "a prefix");
    service.ack(&group, &[(all[2].0, true), (all[3].0, false)]).await.unwrap();
    assert_eq!(service.counts(&group).await, [6, 3, 3, 0, 0], "one more, one failed, two still leased");
    service.ack(&group, &[(all[3].0, true)]).await.unwrap_err();
    assert_eq!(service.counts(&group).await, [6, 3, 3, 0, 0], "a refused request changes nothing");
    service.advance(30);
    eventually("the lease has ended", async || service.number("SELECT count(*) FROM leases").await == 0).await;
    assert_eq!(service.counts(&group).await, [6, 3, 3, 0, 0], "expired leases");
    let second = service.receive(&group, 10).await;
    assert_eq!(bodies(&second), ["4", "5", "6"]);
    let mixed = handlers(&second, false);
    service.ack(&group, &[(mixed[0].0, true), mixed[1]]).await.unwrap();
    assert_eq!(service.counts(&group).await, [6, 4, 1, 1, 1], "5 is dead, 6 is leased");
    service.advance(30);
    eventually("6 is dead too", async || service.counts(&group).await[3] == 2).await;
    assert_eq!(service.counts(&group).await, [6, 4, 0, 2, 2]);
}

#[tokio::test]
async fn counters_of_dead_letters_follow_their_consumption() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Fifo, 1).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2", "3", "4"]).await;
    let batch = service.receive(&group, 4).await;
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    assert_eq!(service.counts(&group).await, [4, 0, 0, 4, 4]);
    let dead = service.receive_dead_letters(&group, 2).await;
    assert_eq!(service.counts(&group).await, [4, 0, 0, 4, 4], "leased dead letters are available");
    let entries = handlers(&dead, true);
    service.ack_dead_letters(&group, &[entries[0], (entries[1].0, false)]).await.unwrap();
    assert_eq!(service.counts(&group).await, [4, 0, 0, 4, 3]);
    let dead = service.receive_dead_letters(&group, 10).await;
    assert_eq!(dead[0].delivery_attempt, 2);
    service.advance(30);
    eventually("their leases have ended", async || service.number("SELECT count(*) FROM leases").await == 0).await;
    assert_eq!(service.counts(&group).await, [4, 0, 0, 4, 3], "no second level");
    service.advance(72 * 3600);
    assert_eq!(service.counts(&group).await, [0, 0, 0, 4, 0], "both have expired");
}

#[tokio::test]
async fn groups_count_for_themselves() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Normal, 1).await;
    let (done, failed) = (service.group(&queue, "done").await, service.group(&queue, "failed").await);
    let messages = vec![tagged("1", &["a"]), tagged("2", &[]), tagged("3", &["a"])];
    service.send_messages(&queue, messages).await.unwrap();
    service.work_off(&done, 3).await;
    let batch = service.receive(&failed, 2).await;
    service.ack(&failed, &handlers(&batch, false)).await.unwrap();
    let late = service.group(&queue, "late").await;
    let request = late.labelled_request(&["a"], pb::TagMatch::Any);
    let selected = late.poll_at(&service.replica, request).await.unwrap();
    service.ack(&late, &handlers(&selected, true)).await.unwrap();
    assert_eq!(service.counts(&done).await, [3, 3, 0, 0, 0]);
    assert_eq!(service.counts(&failed).await, [3, 0, 1, 2, 2]);
    assert_eq!(service.counts(&late).await, [3, 2, 0, 0, 0]);
}

#[tokio::test]
async fn counters_are_exact_after_retention() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Normal, 3).await;
    let (some, none) = (service.group(&queue, "some").await, service.group(&queue, "none").await);
    service.send(&queue, &["1", "2", "3", "4", "5"]).await;
    service.work_off(&some, 5).await;
    service.send(&queue, &["6", "7", "8"]).await;
    let batch = service.receive(&some, 2).await;
    service.ack(&some, &[handlers(&batch, true)[0], handlers(&batch, false)[1]]).await.unwrap();
    service.advance(24 * 3600);
    service.send(&queue, &["9", "10"]).await;
    assert_eq!(service.counts(&some).await, [10, 6, 4, 0, 0]);
    assert_eq!(service.counts(&none).await, [10, 0, 10, 0, 0]);
    service.advance(48 * 3600);
    // Of two appends in the same instant the second is a microsecond later.
    service.clock.advance(Duration::from_micros(1));
    for round in ["expired", "dropped"] {
        assert_eq!(service.counts(&some).await, [2, 6, 2, 0, 0], "{round}");
        assert_eq!(service.counts(&none).await, [2, 0, 2, 0, 0], "{round}");
        service.enforce_retention().await;
    }
    assert_eq!(service.work_off(&none, 2).await, ["9", "10"]);
    assert_eq!(service.work_off(&some, 2).await, ["9", "10"]);
    assert_eq!(service.counts(&none).await, [2, 2, 0, 0, 0]);
    assert_eq!(service.counts(&some).await, [2, 8, 0, 0, 0]);
    service.advance(72 * 3600);
    assert_eq!(service.counts(&some).await, [0, 8, 0, 0, 0]);
    service.send(&queue, &["11"]).await;
    assert_eq!(service.counts(&some).await, [1, 8, 1, 0, 0]);
    assert_eq!(service.counts(&none).await, [1, 2, 1, 0, 0]);
}

#[tokio::test]
async fn a_queue_shows_the_messages_it_keeps() {
    let service = TestService::start().await;
    let (first, second) = (service.queue("first").await, service.queue("second").await);
    service.group(&second, "group").await;
    service.send(&first, &["1", "2", "3"]).await;
    service.advance(3600);
    service.send(&first, &["4"]).await;
    let listed = async || {
        let request = pb::ListQueuesRequest { project_id: PROJECT.into(), ..Default::default() };
        let queues = service.replica.queues.clone().list_queues(request).await.unwrap().into_inner().queues;
        let shown = |queue: pb::Queue| (queue.name, queue.produced_messages, queue.group_count);
        queues.into_iter().map(shown).collect::<Vec<_>>()
    };
    let expected = |produced| vec![("first".to_owned(), produced, 0), ("second".to_owned(), 0, 1)];
    assert_eq!(listed().await, expected(4));
    service.advance(71 * 3600);
    assert_eq!(listed().await, expected(1), "three have expired");
    service.advance(3600);
    assert_eq!(listed().await, expected(0));
    service.enforce_retention().await;
    assert_eq!(listed().await, expected(0));
    service.send(&first, &["5"]).await;
    assert_eq!(listed().await, expected(1));
}

#[tokio::test]
async fn counters_are_left_out_unless_asked_for() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.group(&queue, "group").await;
    let request = pb::ListConsumerGroupsRequest { project_id: PROJECT.into(), queue_id: queue, ..Default::default() };
    let groups = service.replica.queues.clone().list_consumer_groups(request).await.unwrap().into_inner().groups;
    assert_eq!((groups.len(), groups[0].counters), (1, None));
}

#[tokio::test]
async fn counters_are_exact_after_concurrent_consumers() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", Normal, 3).await;
    let group = service.group(&queue, "group").await;
    let sent: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    for chunk in sent.chunks(10) {
        service.send(&queue, &chunk.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    // Every fourth message fails for good; what follows it in its batch comes again and uses up attempts too.
    let consumer = async || {
        let mut acked = 0;
        loop {
            let batch = group.poll_at(&service.replica, group.consume_request(10)).await.unwrap();
            if batch.is_empty() {
                return acked;
            }
            let good = |body: &String| body.parse::<i32>().unwrap() % 4 != 0;
            let entries: Vec<_> =
                batch.iter().zip(bodies(&batch)).map(|(leased, body)| (leased.handler.as_str(), good(&body))).collect();
            acked += i64::from(service.ack(&group, &entries).await.unwrap().success_count);
        }
    };
    let (first, second, third, fourth) = tokio::join!(consumer(), consumer(), consumer(), consumer());
    let acked = first + second + third + fourth;
    eventually("at rest", async || service.counts(&group).await[2] == 0).await;
    assert_eq!(service.counts(&group).await, [400, acked, 0, 400 - acked, 400 - acked]);
    assert!(acked > 0 && acked <= 300, "{acked}");
}
