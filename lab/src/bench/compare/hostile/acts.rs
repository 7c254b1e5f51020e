//! What the tasks of hostile neighbours do until they are stopped.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_client::v1::queue_service_client::QueueServiceClient;
use dms_client::v1::{
    AckEntry, AckMessagesRequest, AckStatus, ConsumeMessagesRequest, ConsumeOptions, CreateConsumerGroupsRequest,
    DeleteConsumerGroupRequest, DeleteQueueRequest, LeasedMessage, NewMessage, SendMessagesRequest,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;
use tonic::transport::Channel;

use super::neighbour::Acting;
use crate::bench::client::Topic;
use crate::bench::testbed::Testbed;
use crate::bench::topics;
use crate::sql::interference::Interference;

/// Messages of one send, the most that are allowed.
const BATCH: u32 = 10;
/// Sends in flight while queues are filled: enough for flushes of 2 MiB.
const FILLING: u32 = 32;
/// The label that nearly all messages have, and the one that is looked for.
const COMMON: &str = "common";
const RARE: &str = "rare";
const LOCKED: Duration = Duration::from_secs(10);
/// Between two locks: whoever waited for them gets on.
const RELEASED: Duration = Duration::from_millis(500);

/// The project of a neighbour, as one task calls the service for it.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    /// Its queues.
    pub topics: Vec<Topic>,
    project_id: String,
    channels: Vec<Channel>,
}

impl Actor {
    /// A project with these queues.
    pub(super) fn new(testbed: &Testbed, topics: Vec<Topic>, channels: &[Channel]) -> Self {
        Self { topics, project_id: testbed.project_id.clone(), channels: channels.to_vec() }
    }

    fn queues(&self, number: u32) -> QueueServiceClient<Channel> {
        QueueServiceClient::new(self.channels[number as usize % self.channels.len()].clone())
    }

    fn messages(&self, number: u32) -> MessageServiceClient<Channel> {
        MessageServiceClient::new(self.channels[number as usize % self.channels.len()].clone())
    }

    fn topic(&self, number: u32) -> &Topic {
        &self.topics[number as usize % self.topics.len()]
    }

    async fn send(&self, number: u32, messages: Vec<NewMessage>) -> Result<(), Status> {
        let queue_id = self.topic(number).queue_id.clone();
        let request =
            SendMessagesRequest { project_id: self.project_id.clone(), queue_id, messages, return_ids: false };
        self.messages(number).send_messages(request).await.map(drop)
    }

    async fn consume(&self, number: u32, group_id: &str, tags: &[&str]) -> Result<Vec<LeasedMessage>, Status> {
        let request = ConsumeMessagesRequest {
            project_id: self.project_id.clone(),
            queue_id: self.topic(number).queue_id.clone(),
            group_id: group_id.to_owned(),
            options: Some(ConsumeOptions {
                max_messages: Some(BATCH.cast_signed()),
                wait: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
                ..ConsumeOptions::default()
            }),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..ConsumeMessagesRequest::default()
        };
        Ok(self.messages(number).consume_messages(request).await?.into_inner().messages)
    }

    async fn ack(&self, number: u32, consumed: Vec<LeasedMessage>, status: AckStatus) -> Result<(), Status> {
        if consumed.is_empty() {
            return Ok(());
        }
        let topic = self.topic(number);
        let request = AckMessagesRequest {
            project_id: self.project_id.clone(),
            queue_id: topic.queue_id.clone(),
            group_id: topic.group_ids[0].clone(),
            entries: consumed
                .into_iter()
                .map(|leased| AckEntry { handler: leased.handler, status: status.into() })
                .collect(),
        };
        self.messages(number).ack_messages(request).await.map(drop)
    }

    async fn create_group(&self, name: String) -> Result<String, Status> {
        let request = CreateConsumerGroupsRequest {
            project_id: self.project_id.clone(),
            queue_id: self.topics[0].queue_id.clone(),
            names: vec![name],
        };
        let created = self.queues(0).create_consumer_groups(request).await?.into_inner().groups.pop();
        created.map(|group| group.id).ok_or_else(|| Status::internal("the answer has no group"))
    }

    async fn delete_group(&self, queue_id: String, group_id: String) -> Result<(), Status> {
        let request = DeleteConsumerGroupRequest { project_id: self.project_id.clone(), queue_id, group_id };
        self.queues(0).delete_consumer_group(request).await.map(drop)
    }
}

fn small() -> Vec<NewMessage> {
    vec![NewMessage { body: Bytes::from_static(b"1"), ..NewMessage::default() }; BATCH as usize]
}

/// Ten messages of 50 KB with a label that nobody looks for, the last one with that which everybody does.
fn labelled() -> Vec<NewMessage> {
    let body = |size: usize| Bytes::from(format!("\"{}\"", "x".repeat(size)));
    let message =
        |size, tag: &str| NewMessage { body: body(size), tags: vec![tag.to_owned()], ..NewMessage::default() };
    let mut messages = vec![message(50_000, COMMON); BATCH as usize - 1];
    messages.push(message(5, RARE));
    messages
}

/// Sends small messages, the same number to each queue.
pub(super) async fn fill(actor: &Actor, count: u32) -> Result<()> {
    fill_with(actor, small(), count / BATCH).await
}

/// Fills segments that are hardly smaller than a flush may be.
pub(super) async fn fill_for_scans(actor: &Actor, bytes: u32) -> Result<()> {
    fill_with(actor, labelled(), bytes / 450_000).await
}

async fn fill_with(actor: &Actor, messages: Vec<NewMessage>, sends: u32) -> Result<()> {
    let mut tasks = JoinSet::new();
    for number in 0..FILLING.min(sends) {
        let (actor, messages) = (actor.clone(), messages.clone());
        tasks.spawn(async move {
            for number in (number..sends).step_by(FILLING as usize) {
                actor.send(number, messages.clone()).await?;
            }
            Ok::<(), Status>(())
        });
    }
    Ok(tasks.join_all().await.into_iter().collect::<Result<(), Status>>()?)
}

/// Makes a queue with a group, and deletes both.
pub(super) async fn churn(actor: Actor, acting: Acting, number: u32) {
    while acting.goes_on() {
        acting.count(come_and_go(&actor, number).await).await;
    }
}

async fn come_and_go(actor: &Actor, number: u32) -> Result<(), Status> {
    let (client, project_id) = (actor.queues(number), actor.project_id.clone());
    let created = topics::create_queue(client, project_id.clone(), 1_000 + number, 1).await;
    let topic = created.map_err(|error| Status::unavailable(error.to_string()))?;
    actor.delete_group(topic.queue_id.clone(), topic.group_ids[0].clone()).await?;
    actor.queues(number).delete_queue(DeleteQueueRequest { project_id, queue_id: topic.queue_id }).await.map(drop)
}

/// Fails whatever comes.
pub(super) async fn fail(actor: Actor, acting: Acting) {
    while acting.goes_on() {
        let failed = async {
            let consumed = actor.consume(0, &actor.topics[0].group_ids[0], &[]).await?;
            actor.ack(0, consumed, AckStatus::Fail).await
        };
        acting.count(failed.await).await;
    }
}

/// Has the whole queue read for a few small messages, by one group after the other.
pub(super) async fn scan(actor: Actor, acting: Acting) {
    while acting.goes_on() {
        let scanned = async {
            let group = actor.create_group(format!("scan-{:016x}", rand::random::<u64>())).await?;
            while acting.goes_on() && !actor.consume(0, &group, &[RARE]).await?.is_empty() {}
            actor.delete_group(actor.topics[0].queue_id.clone(), group).await
        };
        acting.count(scanned.await).await;
    }
}

/// Sends, consumes and acknowledges, as if nothing held it up.
pub(super) async fn use_queue(actor: Actor, acting: Acting, number: u32) {
    while acting.goes_on() {
        let used = async {
            actor.send(number, small()).await?;
            let consumed = actor.consume(number, &actor.topic(number).group_ids[0], &[]).await?;
            actor.ack(number, consumed, AckStatus::Success).await
        };
        acting.count(used.await).await;
    }
}

/// Locks the project's rows for ten seconds, again and again.
pub(super) async fn hold_locks(mut session: Interference, acting: Acting) {
    while acting.goes_on() {
        if let Err(error) = session.lock().await {
            tracing::warn!(%error, "the neighbour's rows were not locked");
        }
        tokio::select! {
            () = sleep(LOCKED) => {}
            () = acting.stop.cancelled() => {}
        }
        if let Err(error) = session.unlock().await {
            tracing::warn!(%error, "the neighbour's rows were not unlocked");
        }
        sleep(RELEASED).await;
    }
    session.close().await;
}

/// Sends to queues that refuse it.
pub(super) async fn send(actor: Actor, acting: Acting, number: u32) {
    while acting.goes_on() {
        acting.count(actor.send(number, small()).await).await;
    }
}

/// Sends ten messages of 1 KB each time it is due.
pub(super) async fn flood(actor: Actor, acting: Acting, number: u32, pace: Duration) {
    let body = Bytes::from(format!("\"{}\"", "x".repeat(1_022)));
    let messages = vec![NewMessage { body, ..NewMessage::default() }; BATCH as usize];
    let mut due = Instant::now() + pace.mul_f64(rand::random());
    while acting.goes_on() {
        sleep_until(due).await;
        acting.count(actor.send(number, messages.clone()).await).await;
        // One that is behind does not send more for it.
        due = (due + pace).max(Instant::now().checked_sub(pace).unwrap_or(due));
    }
}
