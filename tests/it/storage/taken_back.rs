//! A crash of Postgres takes back what was seen before it was on disk: claims, and sends to KAFKA_HT queues. Nothing that
//! was known of it is used afterwards.

use std::time::Duration;

use dms::domain::ErrorKind;
use dms::store::session::connection::{Durability, LaneConnection};
use dms::store::{Store, StoreOptions};
use dms_client::v1 as pb;
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
    let wake = "SELECT pg_notify('dms_dms', gen_random_uuid() || ' a' || stream_id || ':5') FROM subscriptions";
    let before = service.number(LAST_CLAIM_LANE_QUERY).await;
    service.sql().await.execute(wake).await.unwrap();
    eventually("looked for", async || service.number(LAST_CLAIM_LANE_QUERY).await > before).await;
    service.send(&queue, &["1"]).await;
    assert_eq!(bodies(&consumer.await.unwrap().unwrap()), ["1"]);
}

/// A connection whose commits do not wait for the disk.
fn unflushed(service: &TestService) -> LaneConnection {
    let options = StoreOptions {
        database: service.database.url().into(),
        pool_connections: 1,
        statement_timeout: Duration::from_secs(15),
    };
    LaneConnection::new(&Store::new(&options).unwrap(), "test-unflushed", Durability::Asynchronous)
}

#[tokio::test]
async fn what_is_confirmed_is_on_disk() {
    let service = TestService::start().await;
    let mut lane = unflushed(&service);
    for _ in 0..20 {
        let write = "SELECT pg_logical_emit_message(true, 'test', repeat('x', 10000))";
        lane.open().await.unwrap().execute(write).await.unwrap();
        let end = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        let written: i64 = sqlx::query_scalar(end).fetch_one(lane.open().await.unwrap()).await.unwrap();
        let session = lane.session();
        lane.confirm(session).await.unwrap();
        assert!(service.number("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").await >= written);
    }
}

#[tokio::test]
async fn what_a_lost_session_has_committed_is_never_confirmed() {
    let service = TestService::start().await;
    let mut lane = unflushed(&service);
    lane.open().await.unwrap();
    let session = lane.session();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'test-unflushed'";
    service.sql().await.execute(end).await.unwrap();
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test-unflushed'
        AND datname = current_database()";
    eventually("gone", async || service.number(gone).await == 0).await;
    assert_eq!(lane.confirm(session).await.unwrap_err().kind(), ErrorKind::Unavailable);
    // Nor on the connection that has taken its place.
    lane.open().await.unwrap();
    assert_eq!(lane.confirm(session).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let session = lane.session();
    lane.confirm(session).await.unwrap();
}
