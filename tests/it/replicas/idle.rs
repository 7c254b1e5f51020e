//! What a replica asks of Postgres when nothing happens.

use std::time::Duration;

use dms::broker::Settings;
use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tokio::task::JoinSet;

use crate::support::calls::{Consumed, eventually};
use crate::support::postgres::TestDatabase;
use crate::support::service::{PROJECT, Replica, message};

const QUEUES: u32 = 3_000;
/// A service takes a thousand calls at a time on a connection.
const CONNECTIONS: usize = 4;
/// Long polls end, and come again, meanwhile.
const WAIT_SECONDS: u32 = 7;
/// Not all begin, and begin again, in the same instant.
const STAGGER: Duration = Duration::from_millis(2);
/// A refresh of what is known of readers is in it.
const WATCHED: Duration = Duration::from_secs(14);
/// A connection that is idle tells what it has done after this at the latest.
pub(crate) const STATISTICS_LAG: Duration = Duration::from_secs(11);
/// Autovacuum counts too when it comes by, which it does once in a while.
const WINDOWS: usize = 3;
const STATEMENTS_PER_SECOND_MAX: f64 = 5.0;

/// Queues with a group each, faster than by calls. Ids are numbers.
pub(crate) fn create(queues: u32) -> String {
    format!(
        "INSERT INTO streams (stream_id, last_appended_at, queue_id, kind)
             SELECT n, now(), lpad(n::text, 32, '0')::uuid, 'normal' FROM generate_series(1, {queues}) AS n;
         INSERT INTO queues (queue_id, project_id, name, description, mode, retention_hours, created_at, stream_id)
             SELECT queue_id, '{PROJECT}', 'queue-' || stream_id, '', 'NORMAL', 72, now(), stream_id FROM streams;
         INSERT INTO consumer_groups (group_id, queue_id, name, subscription_id)
             SELECT queue_id, queue_id, 'group', stream_id FROM streams;
         INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, cursor_time)
             SELECT stream_id, stream_id, 0, now() FROM streams"
    )
}

/// The id of a queue, and of its group.
fn id(number: u32) -> String {
    uuid::Uuid::from_u128(u128::from_str_radix(&number.to_string(), 16).unwrap()).to_string()
}

/// A consumer of each queue, which waits until something comes.
async fn park(replica: &Replica) -> JoinSet<Consumed> {
    let wait = Some(prost_types::Duration { seconds: WAIT_SECONDS.into(), nanos: 0 });
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(MessageServiceClient::connect(replica.grpc()).await.unwrap());
    }
    let mut parked = JoinSet::new();
    for number in 1..=QUEUES {
        let mut client = clients[number as usize % CONNECTIONS].clone();
        let request = pb::ConsumeMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: id(number),
            group_id: format!("g-{}", id(number)),
            options: Some(pb::ConsumeOptions { wait, ..Default::default() }),
            ..Default::default()
        };
        parked.spawn(async move {
            tokio::time::sleep(STAGGER * number).await;
            loop {
                let messages = client.consume_messages(request.clone()).await?.into_inner().messages;
                if !messages.is_empty() {
                    return Ok(messages);
                }
            }
        });
    }
    parked
}

/// Statements ever run in the database; one in a transaction of several is not counted.
pub(crate) async fn statements(sql: &mut PgConnection) -> f64 {
    let count = "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(count).fetch_one(sql).await.unwrap()
}

/// Statements a second for a while.
async fn watch(sql: &mut PgConnection) -> f64 {
    let begun = (tokio::time::Instant::now(), statements(sql).await);
    tokio::time::sleep(WATCHED).await;
    (statements(sql).await - begun.1) / begun.0.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_parked_consumers_cost_a_few_statements_a_second() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    sql.execute(AssertSqlSafe(create(QUEUES))).await.unwrap();
    let replica = Replica::start(database.url(), Settings::default(), None).await;
    let mut parked = park(&replica).await;
    let mut before = 0.0;
    eventually("all are parked", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = statements(&mut sql).await;
        now - std::mem::replace(&mut before, now) < 50.0 && now > f64::from(QUEUES)
    })
    .await;
    tokio::time::sleep(STATISTICS_LAG).await;
    let mut rate = f64::INFINITY;
    for _ in 0..WINDOWS {
        rate = rate.min(watch(&mut sql).await);
        println!("{rate:.2} statements a second for {QUEUES} parked consumers");
        if rate <= STATEMENTS_PER_SECOND_MAX {
            break;
        }
    }
    assert!(rate <= STATEMENTS_PER_SECOND_MAX, "{rate}");
    assert!(parked.try_join_next().is_none(), "they still wait");

    let request = pb::SendMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: id(QUEUES),
        messages: vec![message("1")],
        return_ids: false,
    };
    replica.messages.clone().send_messages(request).await.unwrap();
    let first = parked.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(first.len(), 1);
    parked.abort_all();
    replica.shutdown().await;
}
