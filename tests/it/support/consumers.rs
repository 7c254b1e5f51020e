//! Consumers that wait: for what must come, or parked until something happens. And how to read what they are told.

use std::future::Future;
use std::time::Duration;

use dms_client::v1 as pb;
use prost_types::Duration as PbDuration;
use tokio::task::JoinHandle;
use tonic::Status;

use super::service::{Group, PROJECT, TestService};

/// What must come may take this long on a busy machine.
const PATIENCE_SECONDS: i64 = 20;
/// The wait of a parked consumer, as long as the API allows.
const PARKED_SECONDS: i64 = 60;
/// A call is in the service and parked after this; nothing outside shows it.
const PARKING: Duration = Duration::from_millis(200);
/// Below the interval at which parked consumers are looked after in any case.
const AT_ONCE: Duration = Duration::from_millis(1500);

fn seconds(seconds: i64) -> PbDuration {
    PbDuration { seconds, nanos: 0 }
}

/// Options with a wait, and a lease other than the default when one is given.
pub(crate) fn options(max: i32, wait: i64, lease: Option<i64>) -> pb::ConsumeOptions {
    pb::ConsumeOptions { max_messages: Some(max), wait: Some(seconds(wait)), lease: lease.map(seconds) }
}

fn dead_letters_request(group: &Group, options: pb::ConsumeOptions) -> pb::ConsumeDeadLettersRequest {
    pb::ConsumeDeadLettersRequest {
        project_id: PROJECT.into(),
        queue_id: group.queue.clone(),
        group_id: group.id.clone(),
        options: Some(options),
    }
}

impl TestService {
    /// What the group gives next, at most `max`; waits for it and never returns nothing.
    pub(crate) async fn take(&self, group: &Group, max: i32) -> Vec<pb::LeasedMessage> {
        self.take_for(group, max, None).await
    }

    /// As [`TestService::take`], under a lease of so many seconds.
    pub(crate) async fn take_for(&self, group: &Group, max: i32, lease: Option<i64>) -> Vec<pb::LeasedMessage> {
        let messages = self.wait_for(group, options(max, PATIENCE_SECONDS, lease)).await;
        assert!(!messages.is_empty(), "nothing came");
        messages
    }

    /// Consumes with any options.
    pub(crate) async fn wait_for(&self, group: &Group, options: pb::ConsumeOptions) -> Vec<pb::LeasedMessage> {
        let request = pb::ConsumeMessagesRequest { options: Some(options), ..group.consume_request(1) };
        self.replica.messages.clone().consume_messages(request).await.unwrap().into_inner().messages
    }

    /// As [`TestService::take`], of the dead letters.
    pub(crate) async fn take_dead_letters(&self, group: &Group, max: i32) -> Vec<pb::LeasedMessage> {
        let messages = self.wait_for_dead_letters(group, options(max, PATIENCE_SECONDS, None)).await.unwrap();
        assert!(!messages.is_empty(), "nothing came");
        messages
    }

    /// Consumes dead letters with any options.
    pub(crate) async fn wait_for_dead_letters(
        &self,
        group: &Group,
        options: pb::ConsumeOptions,
    ) -> Result<Vec<pb::LeasedMessage>, Status> {
        let request = dead_letters_request(group, options);
        Ok(self.replica.dead_letters.clone().consume_dead_letters(request).await?.into_inner().messages)
    }

    /// Takes the next batch and fails it whole.
    pub(crate) async fn fail_next(&self, group: &Group, max: i32) -> Vec<pb::LeasedMessage> {
        let batch = self.take(group, max).await;
        let entries: Vec<_> = batch.iter().map(|message| (message.handler.as_str(), false)).collect();
        self.ack(group, &entries).await.unwrap();
        batch
    }

    /// A consumer of normal messages that waits.
    pub(crate) async fn parked(&self, group: &Group, max: i32) -> Parked {
        let request = pb::ConsumeMessagesRequest {
            options: Some(options(max, PARKED_SECONDS, None)),
            ..group.consume_request(max)
        };
        let mut client = self.replica.messages.clone();
        park(async move { Ok(client.consume_messages(request).await?.into_inner().messages) }).await
    }

    /// A consumer of dead letters that waits.
    pub(crate) async fn parked_for_dead_letters(&self, group: &Group, max: i32) -> Parked {
        let request = dead_letters_request(group, options(max, PARKED_SECONDS, None));
        let mut client = self.replica.dead_letters.clone();
        park(async move { Ok(client.consume_dead_letters(request).await?.into_inner().messages) }).await
    }

    /// Deletes a group.
    pub(crate) async fn delete_group(&self, group: &Group) -> Result<(), Status> {
        let request = pb::DeleteConsumerGroupRequest {
            project_id: PROJECT.into(),
            queue_id: group.queue.clone(),
            group_id: group.id.clone(),
        };
        self.replica.queues.clone().delete_consumer_group(request).await.map(drop)
    }

    /// Deletes a queue.
    pub(crate) async fn delete_queue(&self, queue: &str) -> Result<(), Status> {
        let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: queue.into() };
        self.replica.queues.clone().delete_queue(request).await.map(drop)
    }
}

async fn park(call: impl Future<Output = Result<Vec<pb::LeasedMessage>, Status>> + Send + 'static) -> Parked {
    let parked = Parked(tokio::spawn(call));
    tokio::time::sleep(PARKING).await;
    assert!(!parked.0.is_finished(), "there was something to consume");
    parked
}

/// A consumer that waits in the service.
pub(crate) struct Parked(JoinHandle<Result<Vec<pb::LeasedMessage>, Status>>);

impl Parked {
    async fn outcome(self) -> Result<Vec<pb::LeasedMessage>, Status> {
        tokio::time::timeout(AT_ONCE, self.0).await.expect("not answered at once").unwrap()
    }

    /// What it gets, well before its wait ends.
    pub(crate) async fn answered_at_once(self) -> Vec<pb::LeasedMessage> {
        self.outcome().await.unwrap()
    }

    /// The error it gets, well before its wait ends.
    pub(crate) async fn refused_at_once(self) -> Status {
        self.outcome().await.unwrap_err()
    }

    /// Whether it has not been answered yet.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.0.is_finished()
    }

    /// The call is cancelled.
    pub(crate) async fn go_away(self) {
        self.0.abort();
        assert!(self.0.await.unwrap_err().is_cancelled());
    }
}

/// Success count, fail count, and the outcome of each entry.
pub(crate) fn summary(result: &pb::AckResult) -> (i32, i32, Vec<pb::AckOutcome>) {
    (result.success_count, result.fail_count, result.outcomes().collect())
}
