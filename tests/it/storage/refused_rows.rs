//! What Postgres refuses of one queue is refused to that queue alone.

use std::time::Duration;

use dms::broker::Settings;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::rest::{Rest, all};
use crate::support::service::TestService;

const REFUSE: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.stream_id = TG_ARGV[0]::bigint THEN
        RAISE EXCEPTION 'refused by the test' USING ERRCODE = TG_ARGV[1];
    END IF;
    RETURN NEW;
END $$";

/// Has inserts of a queue's rows into a table refused with this SQLSTATE.
async fn refuse(service: &TestService, table: &str, queue: &str, code: &str) {
    let mut sql = service.sql().await;
    let stream: i64 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT stream_id FROM queues WHERE queue_id = '{queue}'")))
            .fetch_one(&mut sql)
            .await
            .unwrap();
    let trigger = format!(
        "{REFUSE}; CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse({stream}, '{code}')"
    );
    sql.execute(AssertSqlSafe(trigger)).await.unwrap();
}

fn one_lane() -> Settings {
    Settings { append_lanes: 1, claim_lanes: 1, settle_lanes: 1, pool_connections: 4, ..Settings::default() }
}

/// Sends of many callers at a time to a healthy queue, and as many to one that is refused: the statuses of each.
async fn sends(rest: &Rest, refused: &str, healthy: &[String], message: &Value) -> [Vec<u16>; 2] {
    let mut calls = JoinSet::new();
    for caller in 0..24 {
        let is_healthy = caller % 2 == 0;
        let queue = if is_healthy { &healthy[caller / 2 % healthy.len()] } else { refused };
        let (rest, path) = (rest.clone(), format!("/queues/{queue}/messages"));
        let body = json!({ "messages": [message] });
        calls.spawn(async move {
            let mut statuses = Vec::new();
            for _ in 0..12 {
                statuses.push(rest.post(&path, &body).await.status);
            }
            (is_healthy, statuses)
        });
    }
    let mut found = [Vec::new(), Vec::new()];
    while let Some(call) = calls.join_next().await {
        let (is_healthy, statuses) = call.unwrap();
        found[usize::from(is_healthy)].extend(statuses);
    }
    found
}

struct Polls {
    made: usize,
    failed: usize,
}

/// Polls a group that gets nothing until told to stop: each poll is empty or fails.
fn poll(rest: Rest, group: String, stop: CancellationToken) -> JoinHandle<Polls> {
    tokio::spawn(async move {
        let mut polls = Polls { made: 0, failed: 0 };
        while !stop.is_cancelled() {
            let answer = rest.get(&format!("{group}/messages?time_wait=1")).await;
            assert!(answer.status == 500 || answer.text == "[]", "{answer:?}");
            polls.made += 1;
            polls.failed += usize::from(answer.status == 500);
        }
        polls
    })
}

/// Messages of a healthy group come at once, and again when they have failed.
async fn is_served(rest: &Rest, queue: &str, group: &str) {
    for number in 0..20 {
        rest.send_bodies(queue, &[json!(number)]).await;
        for status in ["fail", "success"] {
            let (bodies, handlers) = rest.consume(group).await;
            assert_eq!(bodies, [json!(number)]);
            assert_eq!(rest.ack(group, &all(&handlers, status)).await.ok(200)[status], json!(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_fails_no_other_send() {
    let large = "x".repeat(60_000);
    for (code, message) in [
        ("P0001", json!({ "body": 1 })),
        ("23514", json!({ "body": 1, "delayTime": 60_000 })),
        // Large flushes are committed first and confirmed later; a full disk of one tablespace.
        ("53100", json!({ "body": large })),
    ] {
        let service = TestService::with(one_lane()).await;
        let rest = Rest::new(&service.replica);
        let mut queues = Vec::new();
        for name in ["refused", "a", "b", "c"] {
            queues.push(rest.queue(&json!({ "name": name })).await);
        }
        let table = if message["delayTime"].is_null() { "segments" } else { "delayed_messages" };
        refuse(&service, table, &queues[0], code).await;
        let [refused, healthy] = sends(&rest, &queues[0], &queues[1..], &message).await;
        assert!(refused.iter().all(|status| *status == 500), "{code}: {refused:?}");
        assert!(healthy.iter().all(|status| *status == 201), "{code}: {healthy:?}");
        let stored = match table {
            "segments" => "SELECT coalesce(sum(message_count), 0)::bigint FROM segments",
            _ => "SELECT count(*) FROM delayed_messages",
        };
        assert_eq!(service.number(stored).await, 12 * 12, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_claims_are_refused_fails_no_other_consumer() {
    let service = TestService::with(one_lane()).await;
    let rest = Rest::new(&service.replica);
    let (refused, bad) = rest.queue_and_group(&json!({ "name": "refused" })).await;
    let (healthy, good) = rest.queue_and_group(&json!({ "name": "healthy" })).await;
    refuse(&service, "leases", &refused, "P0001").await;
    rest.send_bodies(&refused, &[json!("never")]).await;
    let stop = CancellationToken::new();
    let polling = poll(rest.clone(), bad, stop.clone());
    is_served(&rest, &healthy, &good).await;
    stop.cancel();
    assert!(polling.await.unwrap().made > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_row_cannot_be_read_holds_up_no_other() {
    let service = TestService::with(one_lane()).await;
    let rest = Rest::new(&service.replica);
    let (broken, bad) = rest.queue_and_group(&json!({ "name": "broken" })).await;
    let (healthy, good) = rest.queue_and_group(&json!({ "name": "healthy" })).await;
    rest.send_bodies(&broken, &[json!("never")]).await;
    let break_row = format!(
        "UPDATE subscriptions SET label_tags = ARRAY[NULL::text]
         WHERE stream_id = (SELECT stream_id FROM queues WHERE queue_id = '{broken}')"
    );
    service.sql().await.execute(AssertSqlSafe(break_row)).await.unwrap();
    let stop = CancellationToken::new();
    let polling = [0; 4].map(|_| poll(rest.clone(), bad.clone(), stop.clone()));
    // What fails has the row of its group read again, together with the broken one.
    is_served(&rest, &healthy, &good).await;
    stop.cancel();
    let mut failed = 0;
    for polling in polling {
        failed += polling.await.unwrap().failed;
    }
    assert!(failed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_failures_are_refused_holds_up_no_other() {
    let service = TestService::with(one_lane()).await;
    let rest = Rest::new(&service.replica);
    let (refused, bad) = rest.queue_and_group(&json!({ "name": "refused" })).await;
    let (healthy, good) = rest.queue_and_group(&json!({ "name": "healthy" })).await;
    refuse(&service, "retries", &refused, "23514").await;
    rest.send_bodies(&refused, &[json!("never")]).await;
    let (_, handlers) = rest.consume(&bad).await;
    let stop = CancellationToken::new();
    let failing = tokio::spawn({
        let (rest, stop, handler) = (rest.clone(), stop.clone(), handlers[0].clone());
        async move {
            let mut tried = 0;
            while !stop.is_cancelled() {
                assert_eq!(rest.ack(&bad, &[(&handler, "fail")]).await.status, 500);
                tried += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tried
        }
    });
    is_served(&rest, &healthy, &good).await;
    stop.cancel();
    assert!(failing.await.unwrap() > 0);
}
