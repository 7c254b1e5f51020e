//! More ways to call a service: consumers that wait, labels, delays, Kafka queues, and what only the database tells.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dms::broker::{Broker, BrokerOptions, Settings};
use dms_client::v1 as pb;
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tonic::Status;

use super::service::{Group, PROJECT, Replica, TestService, bodies, handlers, message};

/// How long something that must come may take; hardly ever used up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A consumer is parked after this (its call has arrived and has found nothing).
const PARKING: Duration = Duration::from_millis(200);

/// What a consumer gets.
pub(crate) type Consumed = Result<Vec<pb::LeasedMessage>, Status>;

/// Waits until something that happens by itself has happened.
pub(crate) async fn eventually(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !happened().await {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A message with labels.
pub(crate) fn tagged(body: &str, tags: &[&str]) -> pb::NewMessage {
    pb::NewMessage { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..message(body) }
}

/// A message hidden for some milliseconds.
pub(crate) fn delayed(body: &str, millis: i64) -> pb::NewMessage {
    let nanos = i32::try_from(millis % 1000).unwrap() * 1_000_000;
    pb::NewMessage { delay: Some(prost_types::Duration { seconds: millis / 1000, nanos }), ..message(body) }
}

fn with_wait(request: pb::ConsumeMessagesRequest, seconds: i64) -> pb::ConsumeMessagesRequest {
    let wait = Some(prost_types::Duration { seconds, nanos: 0 });
    let options = Some(pb::ConsumeOptions { wait, ..request.options.unwrap_or_default() });
    pb::ConsumeMessagesRequest { options, ..request }
}

impl Group {
    /// A request that selects by label.
    pub(crate) fn labelled_request(&self, tags: &[&str], tag_match: pb::TagMatch) -> pb::ConsumeMessagesRequest {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        pb::ConsumeMessagesRequest { tags, tag_match: tag_match.into(), ..self.consume_request(10) }
    }

    /// Messages that must come, through one replica; waits for them.
    pub(crate) async fn receive_from(&self, replica: &Replica, max: i32) -> Vec<pb::LeasedMessage> {
        self.waiting_at(replica, self.consume_request(max)).await.unwrap().unwrap()
    }

    /// Consumes with the shortest wait and without a deadline, so that no answer is lost: for consumers in a loop.
    pub(crate) async fn poll_at(&self, replica: &Replica, request: pb::ConsumeMessagesRequest) -> Consumed {
        Ok(replica.messages.clone().consume_messages(with_wait(request, 1)).await?.into_inner().messages)
    }

    /// A consumer in the background.
    pub(crate) fn waiting_at(&self, replica: &Replica, request: pb::ConsumeMessagesRequest) -> JoinHandle<Consumed> {
        let mut client = replica.messages.clone();
        let request = with_wait(request, 20);
        tokio::spawn(async move { Ok(client.consume_messages(request).await?.into_inner().messages) })
    }

    /// A consumer in the background that has found nothing and waits.
    pub(crate) async fn park_at(&self, replica: &Replica, request: pb::ConsumeMessagesRequest) -> JoinHandle<Consumed> {
        let consumer = self.waiting_at(replica, request);
        tokio::time::sleep(PARKING).await;
        assert!(!consumer.is_finished(), "found something: {:?}", consumer.await.unwrap());
        consumer
    }

    /// Consumes and acknowledges until `count` messages have come; their bodies in order of arrival.
    pub(crate) async fn work_off_at(&self, replica: &Replica, count: usize) -> Vec<String> {
        let mut done = Vec::new();
        while done.len() < count {
            let batch = self.receive_from(replica, 10).await;
            assert!(!batch.is_empty(), "only {} of {count} messages came", done.len());
            let acked = self.ack_at(replica, &handlers(&batch, true)).await.unwrap();
            assert_eq!(acked.success_count, i32::try_from(batch.len()).unwrap());
            done.extend(bodies(&batch));
        }
        assert_eq!(done.len(), count);
        done
    }
}

impl TestService {
    /// Messages that must come.
    pub(crate) async fn receive(&self, group: &Group, max: i32) -> Vec<pb::LeasedMessage> {
        group.receive_from(&self.replica, max).await
    }

    /// Dead letters that must come.
    pub(crate) async fn receive_dead_letters(&self, group: &Group, max: i32) -> Vec<pb::LeasedMessage> {
        let wait = Some(prost_types::Duration { seconds: 20, nanos: 0 });
        let request = pb::ConsumeDeadLettersRequest {
            project_id: PROJECT.into(),
            queue_id: group.queue.clone(),
            group_id: group.id.clone(),
            options: Some(pb::ConsumeOptions { max_messages: Some(max), wait, ..Default::default() }),
        };
        self.replica.dead_letters.clone().consume_dead_letters(request).await.unwrap().into_inner().messages
    }

    /// Consumes and acknowledges until `count` messages have come; their bodies in order of arrival.
    pub(crate) async fn work_off(&self, group: &Group, count: usize) -> Vec<String> {
        group.work_off_at(&self.replica, count).await
    }

    /// A queue of a mode, without redrive.
    pub(crate) async fn queue_of(&self, name: &str, mode: pb::QueueMode) -> String {
        let request = pb::CreateQueueRequest { name: name.into(), queue_mode: mode.into(), ..Default::default() };
        self.create_queue(request).await
    }

    /// A queue as it is shown.
    pub(crate) async fn show_queue(&self, queue: &str) -> pb::Queue {
        let request = pb::GetQueueRequest { project_id: PROJECT.into(), queue_id: queue.into() };
        self.replica.queues.clone().get_queue(request).await.unwrap().into_inner().queue.unwrap()
    }

    /// All counters of a group at once: produced, consumed, available, produced and available dead letters.
    pub(crate) async fn counts(&self, group: &Group) -> [i64; 5] {
        let counters = self.counters(group).await;
        [
            counters.produced_messages,
            counters.consumed_messages,
            counters.available_messages,
            counters.produced_dead_letters,
            counters.available_dead_letters,
        ]
    }

    /// A connection to the database of the service.
    pub(crate) async fn sql(&self) -> PgConnection {
        self.database.sql().await
    }

    /// One number from the database.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&mut self.sql().await).await.unwrap()
    }

    /// One round of retention, by a broker of its own; the partitions dropped. A round that meets somebody on a partition
    /// gives up, and the next one comes a minute later: here at once.
    pub(crate) async fn enforce_retention(&self) -> usize {
        let options = BrokerOptions {
            database: self.database.url().into(),
            settings: Settings { pool_connections: 2, ..Settings::default() },
            clock: Some(Arc::new(self.clock.clone())),
        };
        let broker = Broker::start(options).await.unwrap();
        let mut dropped = None;
        eventually("a round of retention", async || {
            dropped = broker.enforce_retention().await.ok();
            dropped.is_some()
        })
        .await;
        broker.shutdown().await;
        dropped.unwrap()
    }
}
