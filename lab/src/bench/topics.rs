//! The queues and groups of a load: made before it, counted and deleted after it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dms_client::v1::queue_service_client::QueueServiceClient;
use dms_client::v1::{CreateConsumerGroupsRequest, CreateQueueRequest, DeleteQueueRequest, GetQueueRequest, QueueMode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::client::Topic;
use super::testbed::{Testbed, connect};
use super::workload::Workload;
use crate::bench::args::System;
use crate::sql::baselines::Peer;

/// Calls in flight while many queues are made or deleted.
const CALLS_MAX: usize = 16;

/// Makes what the load needs.
pub(super) async fn create(testbed: &Testbed, workload: &Workload) -> Result<Vec<Topic>> {
    match workload.system {
        System::Grpc | System::Rest => create_queues(testbed, workload.queues, workload.groups).await,
        System::Pgmq => {
            let mut peer = peer(testbed).await?;
            let mut topics = Vec::new();
            for index in 0..workload.queues {
                let queue_id = format!("bench_{index}");
                peer.create_pgmq(&queue_id).await.context("pgmq is not installed; give --pgmq-sql")?;
                topics.push(Topic { queue_id, group_ids: vec![String::new()] });
            }
            peer.close().await;
            Ok(topics)
        }
        System::Raw => {
            let mut peer = peer(testbed).await?;
            peer.create_raw().await?;
            peer.close().await;
            Ok(vec![Topic { queue_id: String::new(), group_ids: vec![String::new()] }])
        }
    }
}

/// Deletes what [`create`] made.
pub(super) async fn delete(testbed: &Testbed, workload: &Workload, topics: &[Topic]) -> Result<()> {
    match workload.system {
        System::Grpc | System::Rest => delete_queues(testbed, topics).await,
        System::Pgmq => {
            let mut peer = peer(testbed).await?;
            for topic in topics {
                peer.drop_pgmq(&topic.queue_id).await?;
            }
            peer.close().await;
            Ok(())
        }
        System::Raw => {
            let mut peer = peer(testbed).await?;
            peer.drop_raw().await?;
            peer.close().await;
            Ok(())
        }
    }
}

async fn peer(testbed: &Testbed) -> Result<Peer> {
    let url = testbed.database_url.as_deref().context("database-url: not known")?;
    Ok(Peer::connect(url).await?)
}

/// Makes queues of the service with groups.
pub(super) async fn create_queues(testbed: &Testbed, queues: u32, groups: u32) -> Result<Vec<Topic>> {
    let calls = (0..queues).map(|index| {
        let project_id = testbed.project_id.clone();
        async move |client| {
            create_queue(client, project_id, index, groups)
                .await
                .with_context(|| format!("cannot create queue {index}"))
        }
    });
    in_parallel(testbed, calls).await
}

/// Makes one queue of the service with groups.
pub(super) async fn create_queue(
    mut client: QueueServiceClient<Channel>,
    project_id: String,
    index: u32,
    groups: u32,
) -> Result<Topic> {
    let request = CreateQueueRequest {
        project_id: project_id.clone(),
        name: format!("bench-{index}"),
        queue_mode: QueueMode::Normal.into(),
        ..CreateQueueRequest::default()
    };
    let created = client.create_queue(request).await?.into_inner().queue;
    let queue_id = created.context("the answer has no queue")?.id;
    let names: Vec<String> = (0..groups).map(|group| format!("group-{group}")).collect();
    let mut group_ids = Vec::new();
    // As many as one call may name.
    for names in names.chunks(10) {
        let (project_id, queue_id, names) = (project_id.clone(), queue_id.clone(), names.to_vec());
        let request = CreateConsumerGroupsRequest { project_id, queue_id, names };
        let created = client.create_consumer_groups(request).await?.into_inner().groups;
        group_ids.extend(created.into_iter().map(|group| group.id));
    }
    Ok(Topic { queue_id, group_ids })
}

async fn delete_queues(testbed: &Testbed, topics: &[Topic]) -> Result<()> {
    let calls = topics.iter().map(|topic| {
        let request = DeleteQueueRequest { project_id: testbed.project_id.clone(), queue_id: topic.queue_id.clone() };
        async move |mut client: QueueServiceClient<Channel>| {
            client.delete_queue(request).await?;
            Ok(())
        }
    });
    in_parallel(testbed, calls).await.map(drop)
}

/// Messages that the service says were sent to these queues.
pub(super) async fn count_messages(testbed: &Testbed, topics: &[Topic]) -> Result<u64> {
    let calls = topics.iter().map(|topic| {
        let request = GetQueueRequest { project_id: testbed.project_id.clone(), queue_id: topic.queue_id.clone() };
        async move |mut client: QueueServiceClient<Channel>| {
            let queue = client.get_queue(request).await?.into_inner().queue.context("the answer has no queue")?;
            u64::try_from(queue.produced_messages).context("a negative counter")
        }
    });
    Ok(in_parallel(testbed, calls).await?.into_iter().sum())
}

/// Runs calls a few at a time; their results in order, or the first error.
async fn in_parallel<T, C, F>(testbed: &Testbed, calls: impl Iterator<Item = C>) -> Result<Vec<T>>
where
    T: Send + 'static,
    C: FnOnce(QueueServiceClient<Channel>) -> F + Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    ensure!(!testbed.addresses.is_empty(), "no service runs");
    let client = QueueServiceClient::new(connect(&testbed.addresses[0].grpc).await?);
    let turns = Arc::new(Semaphore::new(CALLS_MAX));
    let mut tasks = JoinSet::new();
    for (index, call) in calls.enumerate() {
        let turn = turns.clone().acquire_owned().await?;
        let call = call(client.clone());
        tasks.spawn(async move {
            let _turn = turn;
            call.await.map(|result| (index, result))
        });
    }
    let mut results: Vec<(usize, T)> = tasks.join_all().await.into_iter().collect::<Result<_>>()?;
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
