//! Memory: each use of it is driven to its bound, in a process of its own whose resident size is read, while another project is
//! served.

mod all;
mod lists;
pub(crate) mod process;
pub(crate) mod unread;

use std::time::Duration;

use dms_client::v1 as pb;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tokio::task::JoinSet;

use self::process::{Client, GREEDY, MIB, Process, QUIET};
use self::unread::{Unread, unfinished};
use crate::support::postgres::TestDatabase;

const SEND: &str = "/dms.v1.MessageService/SendMessages";
const CONSUME: &str = "/dms.v1.MessageService/ConsumeMessages";
const LIST: &str = "/dms.v1.QueueService/ListQueues";
/// Small, so that the tests are short.
const BUDGET: usize = 192 * MIB;

/// A service with a client that is to be served whatever happens.
struct Beside {
    process: Process,
    database: TestDatabase,
    quiet: Client,
    queue: (String, String),
}

impl Beside {
    async fn start() -> Self {
        let database = TestDatabase::create().await;
        let process = Process::serve(&database, BUDGET, &[]).await;
        let quiet = process.client(QUIET).await;
        let queue = quiet.queue("quiet").await;
        quiet.probe(&queue).await;
        process.check("at rest", BUDGET);
        Self { process, database, quiet, queue }
    }

    async fn bounded(&self, what: &str) {
        for _ in 0..3 {
            self.quiet.probe(&self.queue).await;
        }
        self.process.check(what, BUDGET);
    }
}

fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// Twenty thousand queues, as the service makes them, but many in one statement.
pub(crate) async fn many_queues(database: &TestDatabase, project: &str) {
    let mut sql = database.sql().await;
    let statements = [
        "CREATE TEMP TABLE made AS SELECT gen_random_uuid() AS id, nextval('stream_ids') AS stream, n
         FROM generate_series(1, 20000) AS n"
            .to_owned(),
        "INSERT INTO streams (stream_id, last_appended_at, queue_id, kind) SELECT stream, now(), id, 'normal' FROM made"
            .to_owned(),
        format!(
            "INSERT INTO queues (queue_id, project_id, name, description, mode, retention_hours, created_at, stream_id)
             SELECT id, '{project}', 'q' || n, repeat('d', 150), 'NORMAL', 72, now(), stream FROM made"
        ),
    ];
    for statement in statements {
        sql.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

/// Whoever appends to this queue waits until the connection is dropped.
async fn locked(database: &TestDatabase, queue: &str) -> PgConnection {
    let mut sql = database.sql().await;
    sql.execute("BEGIN").await.unwrap();
    sqlx::query(
        "SELECT FROM streams WHERE stream_id = (SELECT stream_id FROM queues WHERE queue_id = $1::uuid) FOR UPDATE",
    )
    .bind(queue)
    .execute(&mut sql)
    .await
    .unwrap();
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_end() {
    let beside = Beside::start().await;
    let message = beside.quiet.message("q", text(1_400_000));
    let small = beside.quiet.message("q", text(60_000));
    let (mut connections, mut bodies) = (Vec::new(), Vec::new());
    for token in GREEDY {
        for (message, count) in [(&message, 20), (&small, 60)].repeat(3) {
            let mut connection = Unread::open(beside.process.grpc.as_ref().unwrap()).await;
            for _ in 0..count {
                bodies.push(connection.begin(SEND, token, message).await);
            }
            connections.push(connection);
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    beside.bounded("180 requests of 1.4 MB and 540 of 60 KB on gRPC").await;
    beside.process.was_refused("large_requests").await;
    beside.process.was_refused("small_requests").await;
    let mut rest = Vec::new();
    for peer in 2..8 {
        for _ in 0..40 {
            rest.push(unfinished(&beside.process.rest, peer, "/v1.0/p/queues/q/messages", GREEDY[0], MIB).await);
        }
    }
    beside.bounded("and 240 of 1 MiB on REST").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads() {
    let beside = Beside::start().await;
    let mut connections = Vec::new();
    for token in GREEDY {
        let client = beside.process.client(token).await;
        let (queue, group) = client.queue("queue").await;
        for _ in 0..100 {
            client.send(&queue, text(500_000)).await.unwrap();
        }
        for _ in 0..4 {
            let mut connection = Unread::open(beside.process.grpc.as_ref().unwrap()).await;
            for _ in 0..50 {
                connection.call(CONSUME, token, &client.consume(&queue, &group, 1)).await;
            }
            connections.push(connection);
        }
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    beside.bounded("600 consumers of 500 KB that do not read").await;
    beside.process.was_refused("answers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_nobody_reads() {
    let beside = Beside::start().await;
    let token = GREEDY[0];
    many_queues(&beside.database, token).await;
    let mut connections = Vec::new();
    for _ in 0..5 {
        let mut connection = Unread::open(beside.process.grpc.as_ref().unwrap()).await;
        for _ in 0..20 {
            connection
                .call(LIST, token, &pb::ListQueuesRequest { project_id: token.into(), ..Default::default() })
                .await;
        }
        connections.push(connection);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    beside.bounded("100 lists of 20,000 queues").await;
    beside.process.was_refused("answers").await;
    let mut reader = Unread::open(&beside.process.rest).await;
    for _ in 0..40 {
        reader.get(&format!("/v1.0/{token}/queues"), token).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    beside.bounded("and 40 on REST").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait() {
    let beside = Beside::start().await;
    let mut waiting = JoinSet::new();
    for token in GREEDY {
        let (queue, group) = beside.process.client(token).await.queue("queue").await;
        // A connection has a thousand at most.
        for _ in 0..2 {
            let client = beside.process.client(token).await;
            for _ in 0..1_000 {
                let request = client.request(client.consume(&queue, &group, 60));
                let mut messages = client.messages.clone();
                waiting.spawn(async move { messages.consume_messages(request).await.map(drop) });
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    beside.bounded("6,000 long polls").await;
    let refused = async |why: &str| beside.process.metric(&format!("dms_calls_refused_total{{why=\"{why}\"}}")).await;
    assert!(refused("share").await + refused("in_flight").await > 1_000);
    waiting.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_that_wait_for_a_lane() {
    let beside = Beside::start().await;
    let mut sends = JoinSet::new();
    let mut locks = Vec::new();
    for token in GREEDY {
        let client = beside.process.client(token).await;
        let (queue, _) = client.queue("queue").await;
        client.send(&queue, text(400_000)).await.unwrap();
        locks.push(locked(&beside.database, &queue).await);
        for _ in 0..150 {
            let (client, queue) = (client.clone(), queue.clone());
            sends.spawn(async move { client.send(&queue, text(400_000)).await });
        }
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    beside.process.check("450 sends of 400 KB in front of lanes", BUDGET);
    beside.process.was_refused("lanes").await;
    drop(locks);
    let mut refused = 0;
    while let Some(sent) = sends.join_next().await {
        refused += usize::from(sent.unwrap().is_err());
    }
    assert!(refused > 100, "{refused}");
    beside.bounded("and after they were stored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_through_the_cache() {
    let beside = Beside::start().await;
    let client = beside.process.client(GREEDY[0]).await;
    let (queue, group) = client.queue("queue").await;
    let mut sends = JoinSet::new();
    for worker in 0..8 {
        let (client, queue) = (client.clone(), queue.clone());
        sends.spawn(async move {
            for n in 0..60 {
                let size = if (worker + n) % 2 == 0 { 500_000 } else { 3 };
                let _refused = client.send(&queue, text(size)).await;
            }
        });
    }
    sends.join_all().await;
    beside.bounded("120 MB sent").await;
    let mut consumers = JoinSet::new();
    for _ in 0..8 {
        let (client, queue, group) = (client.clone(), queue.clone(), group.clone());
        consumers.spawn(async move {
            for _ in 0..30 {
                let request = client.request(client.consume(&queue, &group, 1));
                let _refused = client.messages.clone().consume_messages(request).await;
            }
        });
    }
    consumers.join_all().await;
    beside.bounded("and consumed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_its_own() {
    let beside = Beside::start().await;
    let budget = 160 * MIB;
    let gateway = Process::gateway(beside.process.grpc.as_ref().unwrap(), budget).await;
    gateway.check("a gateway at rest", budget);
    let mut held = Vec::new();
    for peer in 2..10 {
        for _ in 0..60 {
            held.push(unfinished(&gateway.rest, peer, "/v1.0/p/queues/q/messages", GREEDY[0], MIB).await);
        }
    }
    let probe = async || {
        let url = format!("{}/v1.0/{QUIET}/queues/{}/messages", gateway.rest, beside.queue.0);
        let body = serde_json::json!({ "messages": [{ "body": "17" }] });
        let answer = reqwest::Client::new().post(url).header("x-auth-token", QUIET).json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201, "{}", answer.text().await.unwrap());
    };
    probe().await;
    gateway.check("480 bodies of 1 MiB at a gateway", budget);
    gateway.was_refused("large_requests").await;
    drop(held);
    let client = beside.process.client(GREEDY[0]).await;
    let (queue, group) = client.queue("queue").await;
    for _ in 0..150 {
        client.send(&queue, text(500_000)).await.unwrap();
    }
    let mut reader = Unread::open(&gateway.rest).await;
    for _ in 0..150 {
        let path = format!("/v1.0/{}/queues/{queue}/groups/{group}/messages?time_wait=3", GREEDY[0]);
        reader.get(&path, GREEDY[0]).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    probe().await;
    gateway.check("150 answers of 500 KB that nobody reads", budget);
    gateway.was_refused("answers").await;
}
