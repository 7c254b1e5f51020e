//! A crash of Postgres takes back what was seen before it was on disk: claims, and sends to KAFKA_HT queues. Nothing that
//! was known of it is used afterwards.

use dms::proto::v1 as pb;
use sqlx::Executor as _;

use crate::support::calls::eventually;
use crate::support::service::{PROJECT, Replica, TestService, bodies, message};

/// What a crash does to the last sends, seen from the lanes: their connections end, and the log is shorter.
const CRASH: &str = "
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name IN ('dms-append', 'dms-claim', 'dms-settle');
DELETE FROM segments;
UPDATE streams SET next_offset = 0";

/// When a claim lane last asked for something, in microseconds.
const LAST_CLAIM_LANE_QUERY: &str = "
SELECT (extract(epoch FROM max(query_start)) * 1000000)::bigint FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'dms-claim'";

async fn send(replica: &Replica, queue: &str, body: &str) -> Result<(), tonic::Status> {
    let messages = vec![message(body)];
    let project_id = PROJECT.into();
    let request = pb::SendMessagesRequest { project_id, queue_id: queue.into(), messages, return_ids: false };
    replica.messages.clone().send_messages(request).await.map(drop)
}

#[tokio::test]
async fn messages_in_memory_are_not_delivered_in_place_of_those_on_disk() {
    let service = TestService::start().await;
    let queue = service.queue_of("queue", pb::QueueMode::KafkaHt).await;
    let group = service.group(&queue, "group").await;
    assert!(service.consume(&group, 10).await.is_empty());
    service.send(&queue, &["\"taken back\""]).await;
    service.sql().await.execute(CRASH).await.unwrap();
    let other = service.another_replica().await;
    send(&other, &queue, "\"on disk\"").await.unwrap();
    let mut batch = Vec::new();
    // A call that meets the end of a connection is told to come again.
    eventually("answered", async || match group.consume_from(&service.replica, 10).await {
        Ok(messages) => {
            batch = messages;
            true
        }
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::Unavailable);
            false
        }
    })
    .await;
    assert_eq!(bodies(&batch), ["\"on disk\""]);
    other.shutdown().await;
}

#[tokio::test]
async fn an_end_of_the_log_that_was_told_but_is_not_there_moves_no_cursor() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let consumer = group.park_at(&service.replica, group.consume_request(10)).await;
    // A wake-up of another replica, on its way while Postgres crashed.
    let wake = "SELECT pg_notify('dms', gen_random_uuid() || ' a' || stream_id || ':5') FROM subscriptions";
    let before = service.number(LAST_CLAIM_LANE_QUERY).await;
    service.sql().await.execute(wake).await.unwrap();
    eventually("looked for", async || service.number(LAST_CLAIM_LANE_QUERY).await > before).await;
    service.send(&queue, &["1"]).await;
    assert_eq!(bodies(&consumer.await.unwrap().unwrap()), ["1"]);
}
