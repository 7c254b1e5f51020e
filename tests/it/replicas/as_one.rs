//! Two replicas on one database behave as one service.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dms::broker::{Broker, BrokerOptions, Settings};
use dms::domain::ids::{GroupId, ProjectId, QueueId};
use dms::domain::message::{ConsumeOptions, GroupAddress, Source};
use dms_client::v1 as pb;
use pb::QueueMode::{Fifo, Normal};
use tonic::Status;

use crate::support::calls::eventually;
use crate::support::service::{Group, PROJECT, Replica, TestService, attempts, bodies, code, handlers, message};

/// What happens at one replica is known at the other within this; measured: a few milliseconds.
const PROMPTLY: Duration = Duration::from_millis(500);

async fn pair() -> (TestService, Replica) {
    let service = TestService::start().await;
    let other = service.another_replica().await;
    (service, other)
}

async fn send_at(replica: &Replica, queue: &str, bodies: &[String]) -> Result<(), Status> {
    let request = pb::SendMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: queue.into(),
        messages: bodies.iter().map(|body| message(body)).collect(),
        return_ids: false,
    };
    replica.messages.clone().send_messages(request).await.map(drop)
}

#[tokio::test]
async fn a_message_sent_through_one_replica_wakes_a_consumer_of_the_other() {
    let (service, other) = pair().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        let consumer = group.park_at(&other, group.consume_request(10)).await;
        let begun = Instant::now();
        service.send(&queue, &[&round.to_string()]).await;
        let batch = consumer.await.unwrap().unwrap();
        slowest = slowest.max(begun.elapsed());
        assert_eq!(bodies(&batch), [round.to_string()]);
        group.ack_at(&service.replica, &handlers(&batch, true)).await.unwrap();
    }
    println!("slowest wake-up across replicas: {slowest:?}");
    assert!(slowest < PROMPTLY, "{slowest:?}");
    assert_eq!(service.counts(&group).await, [5, 5, 0, 0, 0]);
    other.shutdown().await;
}

#[tokio::test]
async fn what_one_replica_delivers_the_other_settles_once() {
    let (service, other) = pair().await;
    for (name, mode) in [("normal", Normal), ("fifo", Fifo)] {
        let queue = service.redrive_queue(name, mode, 2).await;
        let group = service.group(&queue, "group").await;
        service.send(&queue, &["1", "2", "3"]).await;
        let batch = group.receive_from(&other, 10).await;
        assert!(service.consume(&group, 10).await.is_empty(), "{name}: leased there, hidden here");
        let entries = handlers(&batch, true);
        assert_eq!(service.ack(&group, &entries[..1]).await.unwrap().success_count, 1, "{name}");
        let twice = group.ack_at(&other, &entries[..1]).await.unwrap_err();
        assert_eq!(code(&twice), "DMS.10542209", "{name}");
        let rest = group.ack_at(&other, &[(entries[1].0, true), (entries[2].0, false)]).await.unwrap();
        assert_eq!((rest.success_count, rest.fail_count), (1, 1), "{name}");
        let again = service.receive(&group, 10).await;
        assert_eq!((bodies(&again), attempts(&again)), (vec!["3".to_owned()], vec![2]), "{name}");
        group.ack_at(&other, &handlers(&again, false)).await.unwrap();
        assert_eq!(bodies(&service.receive_dead_letters(&group, 10).await), ["3"], "{name}");
        assert_eq!(service.counts(&group).await, [3, 2, 0, 1, 1], "{name}");
    }
    other.shutdown().await;
}

#[tokio::test]
async fn a_failure_at_one_replica_wakes_a_consumer_of_the_other() {
    let (service, other) = pair().await;
    for (name, mode) in [("normal", Normal), ("fifo", Fifo)] {
        let queue = service.queue_of(name, mode).await;
        let group = service.group(&queue, "group").await;
        service.send(&queue, &["1"]).await;
        let batch = service.receive(&group, 10).await;
        let consumer = group.park_at(&other, group.consume_request(10)).await;
        let begun = Instant::now();
        service.ack(&group, &handlers(&batch, false)).await.unwrap();
        let again = consumer.await.unwrap().unwrap();
        assert!(begun.elapsed() < PROMPTLY, "{name}: {:?}", begun.elapsed());
        assert_eq!((bodies(&again), attempts(&again)), (vec!["1".to_owned()], vec![2]), "{name}");
    }
    other.shutdown().await;
}

#[tokio::test]
async fn a_fifo_batch_settled_at_one_replica_frees_the_next_at_the_other() {
    let (service, other) = pair().await;
    let queue = service.queue_of("queue", Fifo).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let first = service.receive(&group, 2).await;
    let consumer = group.park_at(&other, group.consume_request(10)).await;
    let begun = Instant::now();
    service.ack(&group, &handlers(&first, true)).await.unwrap();
    assert_eq!(bodies(&consumer.await.unwrap().unwrap()), ["3"]);
    assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
    other.shutdown().await;
}

#[tokio::test]
async fn leases_of_a_replica_that_was_shut_down_end_in_time() {
    let (service, other) = pair().await;
    let queue = service.redrive_queue("queue", Fifo, 2).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2"]).await;
    let batch = group.receive_from(&other, 10).await;
    other.shutdown().await;
    let consumer = group.park_at(&service.replica, group.consume_request(10)).await;
    service.advance(29);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!consumer.is_finished(), "a sweep has come by and the lease still holds");
    service.advance(1);
    let again = consumer.await.unwrap().unwrap();
    assert_eq!((bodies(&again), attempts(&again)), (vec!["1".into(), "2".to_owned()], vec![2, 2]));
    assert_eq!(code(&service.ack(&group, &handlers(&batch, true)).await.unwrap_err()), "DMS.10542209");
    // What was leased by a replica that is gone can still be settled.
    let third = service.another_replica().await;
    assert_eq!(group.ack_at(&third, &handlers(&again, true)).await.unwrap().success_count, 2);
    third.shutdown().await;
}

/// A replica whose process dies: its tasks end with its runtime, nothing is said to Postgres.
#[tokio::test]
async fn leases_of_a_replica_that_died_end_in_time() {
    let service = TestService::start().await;
    let queue = service.queue_of("queue", Fifo).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2"]).await;
    let options = BrokerOptions {
        database: service.database.url().into(),
        settings: Settings { pool_connections: 2, ..Settings::default() },
        clock: Some(Arc::new(service.clock.clone())),
    };
    let address = GroupAddress {
        project: ProjectId::parse(PROJECT).unwrap(),
        queue: QueueId::parse(&queue).unwrap(),
        group: GroupId::parse(&group.id).unwrap(),
        source: Source::Normal,
    };
    let died = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = Broker::start(options).await.unwrap();
            let (wait, lease) = (Duration::from_secs(20), Duration::from_secs(30));
            let options = ConsumeOptions { max_messages: 1, wait, lease, rule: None };
            broker.consume(&address, options, &broker.answer(&address.project)).await.unwrap().len()
        })
    });
    assert_eq!(tokio::task::spawn_blocking(move || died.join().unwrap()).await.unwrap(), 1);
    assert!(service.consume(&group, 10).await.is_empty());
    service.advance(30);
    let again = service.receive(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (vec!["1".to_owned()], vec![2]));
}

#[tokio::test]
async fn deletions_at_one_replica_end_consumers_of_the_other() {
    let (service, other) = pair().await;
    let queue = service.redrive_queue("queue", Normal, 1).await;
    let (first, second) = (service.group(&queue, "first").await, service.group(&queue, "second").await);
    let parked = first.park_at(&other, first.consume_request(10)).await;
    let bystander = second.park_at(&other, second.consume_request(10)).await;
    let begun = Instant::now();
    let request = pb::DeleteConsumerGroupRequest {
        project_id: PROJECT.into(),
        queue_id: queue.clone(),
        group_id: first.id.clone(),
    };
    service.replica.queues.clone().delete_consumer_group(request).await.unwrap();
    assert_eq!(code(&parked.await.unwrap().unwrap_err()), "DMS.10240405");
    assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
    assert!(!bystander.is_finished());
    assert_eq!(code(&first.consume_from(&other, 10).await.unwrap_err()), "DMS.10240405");

    let begun = Instant::now();
    let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: queue.clone() };
    service.replica.queues.clone().delete_queue(request).await.unwrap();
    assert_eq!(code(&bystander.await.unwrap().unwrap_err()), "DMS.10240401");
    assert!(begun.elapsed() < PROMPTLY, "{:?}", begun.elapsed());
    assert_eq!(code(&second.consume_from(&other, 10).await.unwrap_err()), "DMS.10240401");
    assert_eq!(code(&send_at(&other, &queue, &["1".into()]).await.unwrap_err()), "DMS.10240401");
    other.shutdown().await;
}

#[tokio::test]
async fn what_one_replica_creates_the_other_can_use_at_once() {
    let (service, other) = pair().await;
    for number in 0..10 {
        let queue = service.queue(&format!("queue-{number}")).await;
        send_at(&other, &queue, &["1".into()]).await.unwrap();
        // The other replica has looked at the queue before the group was made.
        let group = service.group(&queue, "group").await;
        assert_eq!(group.work_off_at(&other, 1).await, ["1"]);
    }
    other.shutdown().await;
}

/// What concurrent consumers see, and when they stop.
#[derive(Default)]
struct Watch {
    seen: Mutex<Vec<String>>,
    /// Whether a batch of a FIFO group is in somebody's hands.
    held: AtomicBool,
    stop: AtomicBool,
}

impl Watch {
    /// Consumes and acknowledges until told to stop. In a FIFO queue no two batches are held at a time.
    async fn consume(&self, replica: &Replica, group: &Group, fifo: bool) {
        while !self.stop.load(Ordering::SeqCst) {
            let batch = group.poll_at(replica, group.consume_request(7)).await.unwrap();
            if batch.is_empty() {
                continue;
            }
            assert!(!self.held.swap(fifo, Ordering::SeqCst), "two batches in flight");
            self.seen.lock().unwrap().extend(bodies(&batch));
            tokio::task::yield_now().await;
            self.held.store(false, Ordering::SeqCst);
            let acked = group.ack_at(replica, &handlers(&batch, true)).await.unwrap();
            assert_eq!(acked.success_count, i32::try_from(batch.len()).unwrap());
        }
    }

    /// Waits until everything was consumed, and stops the consumers.
    async fn until_consumed(&self, service: &TestService, group: &Group, count: u32) {
        let all = [i64::from(count), i64::from(count), 0, 0, 0];
        eventually("all are consumed", async || service.counts(group).await == all).await;
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Sends numbered messages, ten at a time, in order.
async fn send_numbered(replica: &Replica, queue: &str, prefix: u32, count: u32) {
    for chunk in numbered(prefix, count).collect::<Vec<_>>().chunks(10) {
        send_at(replica, queue, chunk).await.unwrap();
    }
}

fn numbered(prefix: u32, count: u32) -> impl Iterator<Item = String> {
    (0..count).map(move |number| (prefix * 100_000 + number).to_string())
}

#[tokio::test]
async fn concurrent_senders_and_consumers_of_two_replicas_lose_and_repeat_nothing() {
    const COUNT: u32 = 1000;
    let (service, other) = pair().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let watch = Watch::default();
    let sending = async {
        tokio::join!(
            send_numbered(&service.replica, &queue, 1, COUNT),
            send_numbered(&service.replica, &queue, 2, COUNT),
            send_numbered(&other, &queue, 3, COUNT),
            send_numbered(&other, &queue, 4, COUNT),
        );
        watch.until_consumed(&service, &group, 4 * COUNT).await;
    };
    let consumer = |replica| watch.consume(replica, &group, false);
    tokio::join!(sending, consumer(&service.replica), consumer(&service.replica), consumer(&other), consumer(&other));
    let mut seen = watch.seen.into_inner().unwrap();
    seen.sort();
    let mut expected: Vec<String> = (1..=4).flat_map(|prefix| numbered(prefix, COUNT)).collect();
    expected.sort();
    assert!(seen == expected, "{} of {} came", seen.len(), expected.len());
    other.shutdown().await;
}

#[tokio::test]
async fn a_fifo_queue_keeps_order_and_one_batch_in_flight_across_replicas() {
    const COUNT: u32 = 300;
    let (service, other) = pair().await;
    let queue = service.queue_of("queue", Fifo).await;
    let group = service.group(&queue, "group").await;
    let watch = Watch::default();
    let sending = async {
        tokio::join!(send_numbered(&service.replica, &queue, 1, COUNT), send_numbered(&other, &queue, 2, COUNT));
        watch.until_consumed(&service, &group, 2 * COUNT).await;
    };
    let consumer = |replica| watch.consume(replica, &group, true);
    tokio::join!(sending, consumer(&service.replica), consumer(&other), consumer(&other));
    let seen = watch.seen.into_inner().unwrap();
    assert_eq!(seen.len(), 2 * COUNT as usize);
    for prefix in [1, 2] {
        let own = seen.iter().filter(|body| body.starts_with(&prefix.to_string()));
        assert!(own.cloned().eq(numbered(prefix, COUNT)), "sender {prefix} in its order: {seen:?}");
    }
    other.shutdown().await;
}

#[tokio::test]
async fn of_two_first_rules_one_binds() {
    let (service, other) = pair().await;
    for round in 0..5 {
        let queue = service.queue(&format!("queue-{round}")).await;
        let group = service.group(&queue, "group").await;
        let request = |label| group.labelled_request(&[label], pb::TagMatch::Any);
        let (here, there) =
            tokio::join!(group.glance_at(&service.replica, request("a")), group.glance_at(&other, request("b")));
        let (bound, refused) = if here.is_ok() { ("a", there) } else { ("b", here) };
        assert_eq!(code(&refused.unwrap_err()), "DMS.10542204");
        let loser = if bound == "a" { "b" } else { "a" };
        for replica in [&service.replica, &other] {
            assert!(group.glance_at(replica, request(bound)).await.unwrap().is_empty());
            assert_eq!(code(&group.glance_at(replica, request(loser)).await.unwrap_err()), "DMS.10542204");
        }
    }
    other.shutdown().await;
}
