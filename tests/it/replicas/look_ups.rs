//! Look-ups of queues on a slow Postgres: thousands of consumers that come back at once cost a few, and keep nobody's sends waiting.

use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use sqlx::Executor as _;
use tokio::task::JoinSet;

use crate::support::service::{Group, PROJECT, Replica, TestService, bodies, message};

const CONSUMERS: usize = 3_000;
/// A connection carries a thousand calls.
const CONNECTIONS: usize = 4;
/// Whoever reads the groups of a queue waits for half a second, and is counted.
const SLOW: &str = "
CREATE SEQUENCE looked;
ALTER TABLE consumer_groups RENAME TO consumer_groups_held;
CREATE VIEW consumer_groups AS
    SELECT g.* FROM consumer_groups_held AS g WHERE nextval('looked') > 0 AND pg_sleep(0.5) IS NOT NULL";
const FAST: &str = "DROP VIEW consumer_groups; ALTER TABLE consumer_groups_held RENAME TO consumer_groups";

/// Two queues with a group each, and a replica that knows neither, on a Postgres that is slow.
async fn slow() -> (TestService, Replica, [Group; 2]) {
    let settings = Settings { pool_connections: 8, ..Settings::default() };
    let service = TestService::with(settings).await;
    let mut groups = Vec::new();
    for name in ["crowded", "quiet"] {
        let queue = service.queue(name).await;
        groups.push(service.group(&queue, "group").await);
    }
    service.sql().await.execute(SLOW).await.unwrap();
    let replica = service.another_replica().await;
    (service, replica, groups.try_into().unwrap())
}

async fn looks(service: &TestService) -> i64 {
    let looked = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM looked";
    sqlx::query_scalar(looked).fetch_one(&mut service.sql().await).await.unwrap()
}

async fn send(replica: &Replica, group: &Group) -> Duration {
    let (project_id, queue_id) = (PROJECT.to_owned(), group.queue.clone());
    let begun = Instant::now();
    let request = pb::SendMessagesRequest { project_id, queue_id, messages: vec![message("1")], return_ids: false };
    replica.messages.clone().send_messages(request).await.unwrap();
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_consumers_costs_a_look_up_and_no_send_waits_for_it() {
    let (service, replica, [crowded, quiet]) = slow().await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(MessageServiceClient::connect(replica.grpc()).await.unwrap());
    }
    let mut consumers = JoinSet::new();
    for number in 0..CONSUMERS {
        let mut messages = connections[number % CONNECTIONS].clone();
        let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let options = Some(pb::ConsumeOptions { wait, max_messages: Some(1), ..Default::default() });
        let request = pb::ConsumeMessagesRequest { options, ..crowded.consume_request(1) };
        consumers
            .spawn(async move { bodies(&messages.consume_messages(request).await.unwrap().into_inner().messages) });
    }
    // While they come, somebody sends to another queue of the project, and then to theirs.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let took = [send(&replica, &quiet).await, send(&replica, &crowded).await];
    assert!(took.iter().all(|took| *took < Duration::from_secs(8)), "{took:?}");
    let delivered = consumers.join_next().await.unwrap().unwrap();
    assert_eq!(delivered, ["1"]);
    let looks = looks(&service).await;
    assert!((2..=6).contains(&looks), "{looks} look-ups for {CONSUMERS} consumers and two queues");
    consumers.shutdown().await;
    service.sql().await.execute(FAST).await.unwrap();
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_a_project_keep_none_of_its_sends_waiting() {
    let (service, replica, [listed, quiet]) = slow().await;
    let mut lists = JoinSet::new();
    for _ in 0..200 {
        let mut queues = replica.queues.clone();
        let request = pb::ListConsumerGroupsRequest {
            project_id: PROJECT.into(),
            queue_id: listed.queue.clone(),
            ..Default::default()
        };
        lists.spawn(async move { queues.list_consumer_groups(request).await.map(drop) });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let took = send(&replica, &quiet).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    lists.shutdown().await;
    service.sql().await.execute(FAST).await.unwrap();
    replica.shutdown().await;
}
