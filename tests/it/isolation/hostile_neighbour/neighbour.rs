//! What a hostile project does to itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_lab::sql::interference::Interference;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use super::PATIENCE;
use crate::support::calls::tagged;
use crate::support::service::{Group, PROJECT, TestService, handlers, message};

/// Enough queues for every lane to have one of them.
const QUEUES: usize = 8;
/// Failed messages that wait.
const FAILED: u64 = 100_000;
/// Sends of nearly half a megabyte, which are few segments.
const LARGE_SENDS: usize = 16;
const LARGE_BYTES: usize = 480_000;
/// Calls of each kind that each queue of a busy neighbour has in flight.
const CALLS_OF_A_QUEUE: usize = 2;
/// The same for a flood, and the bytes of each of its messages.
const FLOOD_OF_A_QUEUE: usize = 8;
const FLOOD_BYTES: usize = 50_000;

/// Creates and deletes queues with a group, one after the other.
pub(super) async fn come_and_go(service: &TestService, count: usize) {
    for _ in 0..count {
        let queue = service.queue(&unique()).await;
        let group = service.group(&queue, "group").await;
        service.delete_group(&group).await.unwrap();
        let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: queue };
        service.replica.queues.clone().delete_queue(request).await.unwrap();
    }
}

fn unique() -> String {
    format!("queue-{}", Uuid::new_v4().simple())
}

/// A session that interferes with the queues of these groups.
pub(super) async fn interfere(service: &TestService, groups: &[Group]) -> Interference {
    let queues = groups.iter().map(|group| group.queue.clone()).collect();
    Interference::connect(service.database.url(), queues).await.unwrap()
}

/// A group with a hundred thousand failed messages, each in a segment of its own.
pub(super) async fn failed_backlog(service: &TestService) -> Group {
    let queue = service.queue(&unique()).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    let copy = format!(
        "INSERT INTO segments (stream_id, base_offset, appended_at, message_count, codec, payload)
             SELECT stream_id, n, appended_at + n * interval '1 us', message_count, codec, payload
             FROM segments JOIN queues USING (stream_id), generate_series(1, {FAILED} - 1) AS n WHERE queue_id = '{queue}';
         UPDATE streams SET next_offset = {FAILED}, last_appended_at = last_appended_at + {FAILED} * interval '1 us'
             WHERE queue_id = '{queue}'"
    );
    service.sql().await.execute(AssertSqlSafe(copy)).await.unwrap();
    let mut session = interfere(service, std::slice::from_ref(&group)).await;
    assert_eq!(session.fail_all().await.unwrap(), FAILED);
    group
}

/// Fails batch after batch.
pub(super) async fn fail(service: &TestService, group: &Group, batches: usize) {
    for _ in 0..batches {
        let batch = service.receive(group, 10).await;
        assert!(!batch.is_empty());
        service.ack(group, &handlers(&batch, false)).await.unwrap();
    }
}

/// Groups of a queue whose segments are as large as they get, with a few small messages that have a label; how many segments.
pub(super) async fn labelled_backlog(service: &TestService, groups: usize) -> (Vec<Group>, u64) {
    let queue = service.queue(&unique()).await;
    let mut labelled = Vec::new();
    for number in 0..groups {
        labelled.push(service.group(&queue, &format!("group-{number}")).await);
    }
    let large = format!("\"{}\"", "x".repeat(LARGE_BYTES));
    let mut sends = JoinSet::new();
    for _ in 0..LARGE_SENDS {
        let request = pb::SendMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: queue.clone(),
            messages: vec![tagged(&large, &["common"]), tagged("5", &["rare"])],
            return_ids: false,
        };
        let mut client = service.replica.messages.clone();
        // One that is refused for want of room is sent again.
        sends.spawn(async move {
            while let Err(status) = client.send_messages(request.clone()).await {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                sleep(Duration::from_millis(50)).await;
            }
        });
    }
    sends.join_all().await;
    let count = format!("SELECT count(*) FROM segments JOIN queues USING (stream_id) WHERE queue_id = '{queue}'");
    let segments: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut service.sql().await).await.unwrap();
    (labelled, segments.unsigned_abs())
}

/// Each group looks for the messages with the label, all at once.
pub(super) async fn scan(service: &TestService, groups: &[Group]) {
    let mut scans = JoinSet::new();
    for group in groups {
        let mut client = service.replica.messages.clone();
        let request = group.labelled_request(&["rare"], pb::TagMatch::Any);
        scans.spawn(async move {
            let mut found = 0;
            while found < LARGE_SENDS {
                let consumed = client.consume_messages(request.clone()).await.unwrap().into_inner().messages;
                found += consumed.len();
            }
        });
    }
    scans.join_all().await;
}

/// Groups on queues of their own that the lanes know, each with a message waiting.
pub(super) async fn used_groups(service: &TestService) -> Vec<Group> {
    let mut groups = Vec::new();
    for _ in 0..QUEUES {
        let queue = service.queue(&unique()).await;
        let group = service.group(&queue, "group").await;
        service.send(&queue, &["1"]).await;
        let batch = service.receive(&group, 1).await;
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
        service.send(&queue, &["2"]).await;
        groups.push(group);
    }
    groups
}

/// A send of one message.
pub(super) async fn send(service: &TestService, queue: &str) -> Result<(), Status> {
    service.send_messages(queue, vec![message("3")]).await.map(drop)
}

/// Why appends to a stream fail.
#[derive(Debug, Clone, Copy)]
pub(super) enum Broken {
    /// The next offset is beyond what a number can be.
    Offsets,
    /// A constraint of the segments is violated.
    Segments,
}

impl Broken {
    /// From now on appends fail.
    pub(super) async fn refuse(self, service: &TestService, groups: &[Group]) {
        match self {
            Broken::Offsets => {
                interfere(service, groups).await.refuse_appends().await.unwrap();
            }
            Broken::Segments => {
                let constraint = format!(
                    "DO $$ DECLARE broken text := (SELECT string_agg(stream_id::text, ', ') FROM queues WHERE queue_id IN ({})); BEGIN
                         EXECUTE 'ALTER TABLE segments ADD CONSTRAINT refused CHECK (stream_id NOT IN (' || broken || ')) NOT VALID';
                     END $$",
                    ids(groups)
                );
                service.sql().await.execute(AssertSqlSafe(constraint)).await.unwrap();
            }
        }
    }

    /// From now on they don't.
    pub(super) async fn mend(self, service: &TestService, groups: &[Group]) {
        let sql = match self {
            Broken::Offsets => format!("UPDATE streams SET next_offset = 2 WHERE queue_id IN ({})", ids(groups)),
            Broken::Segments => "ALTER TABLE segments DROP CONSTRAINT refused".to_owned(),
        };
        service.sql().await.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

fn ids(groups: &[Group]) -> String {
    groups.iter().map(|group| format!("'{}'", group.queue)).collect::<Vec<_>>().join(", ")
}

/// What the calls of a neighbour came to.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub sent: u64,
    pub refused: u64,
    pub consumed: u64,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    refused: AtomicU64,
    consumed: AtomicU64,
}

/// Calls of a neighbour in the background, one after the other until they are told to end.
pub(super) struct Acting {
    stop: CancellationToken,
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

impl Acting {
    /// Sends to the queues and consumes from the groups.
    pub(super) fn begin(service: &TestService, groups: &[Group]) -> Self {
        let mut acting = Self::nothing();
        for group in groups {
            acting.send(service, group, CALLS_OF_A_QUEUE, 1);
            for _ in 0..CALLS_OF_A_QUEUE {
                acting.consume(service, group);
            }
        }
        acting
    }

    /// Sends much more than the lanes take.
    pub(super) fn flood(service: &TestService, groups: &[Group]) -> Self {
        let mut acting = Self::nothing();
        groups.iter().for_each(|group| acting.send(service, group, FLOOD_OF_A_QUEUE, FLOOD_BYTES));
        acting
    }

    fn nothing() -> Self {
        Self { stop: CancellationToken::new(), counts: Arc::default(), tasks: JoinSet::new() }
    }

    fn send(&mut self, service: &TestService, group: &Group, tasks: usize, bytes: usize) {
        let request = pb::SendMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: group.queue.clone(),
            messages: vec![message(&format!("\"{}\"", "x".repeat(bytes)))],
            return_ids: false,
        };
        for _ in 0..tasks {
            let (stop, counts) = (self.stop.clone(), self.counts.clone());
            self.tasks.spawn(send_on(service.replica.messages.clone(), request.clone(), stop, counts));
        }
    }

    fn consume(&mut self, service: &TestService, group: &Group) {
        let mut client = service.replica.messages.clone();
        let request = pb::ConsumeMessagesRequest {
            options: Some(pb::ConsumeOptions {
                max_messages: Some(1),
                wait: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
                ..Default::default()
            }),
            ..group.consume_request(1)
        };
        let (stop, counts) = (self.stop.clone(), self.counts.clone());
        self.tasks.spawn(async move {
            while !stop.is_cancelled() {
                // What it gets is failed by the end of the lease, or never.
                let _ = client.consume_messages(request.clone()).await;
                counts.consumed.fetch_add(1, Relaxed);
            }
        });
    }

    /// Ends when the calls in flight have been answered.
    pub(super) async fn end(self) -> Calls {
        self.stop.cancel();
        timeout(PATIENCE, self.tasks.join_all()).await.expect("every call of the neighbour is answered some time");
        let read = |count: &AtomicU64| count.load(Relaxed);
        let Counts { sent, refused, consumed } = &*self.counts;
        Calls { sent: read(sent), refused: read(refused), consumed: read(consumed) }
    }
}

async fn send_on(
    mut client: MessageServiceClient<Channel>,
    request: pb::SendMessagesRequest,
    stop: CancellationToken,
    counts: Arc<Counts>,
) {
    while !stop.is_cancelled() {
        match client.send_messages(request.clone()).await {
            Ok(_) => _ = counts.sent.fetch_add(1, Relaxed),
            Err(_) => {
                counts.refused.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
