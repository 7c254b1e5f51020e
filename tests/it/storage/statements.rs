//! Statements beside the hot ones: they look up what they need, however much there is of others.

use std::time::Duration;

use dms::domain::clock::{Clock as _, Timestamp};
use dms::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
use dms::store::subscriptions::failed_expiry;
use dms::store::{Store, StoreOptions};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::support::calls::eventually;
use crate::support::prepared::statement;
use crate::support::service::{Group, TestService};

/// Rows of others, and of ours.
const FILL: &str = "
INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, cursor_time)
    SELECT 1 + n % 3, 1000 + n, 0, now() FROM generate_series(1, 9000) AS n;
INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
    SELECT stream_id, subscription_id, gen_random_uuid(), now() + interval '1 hour', '{1}', '{1}', '{now}'
    FROM subscriptions, generate_series(1, 2);
INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
    SELECT stream_id, subscription_id, o, 1, now() FROM subscriptions, generate_series(1, 2) AS o;
INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
    SELECT 2, 999, o, 1, now() FROM generate_series(1, 20000) AS o;
INSERT INTO delayed_messages (stream_id, due_at, record) SELECT 100 + n, now(), '' FROM generate_series(1, 9000) AS n;
INSERT INTO streams (stream_id, last_appended_at, queue_id, kind)
    SELECT 1000 + n, now(), lpad(n::text, 32, '0')::uuid, 'normal' FROM generate_series(1, 9000) AS n;
INSERT INTO queues (queue_id, project_id, name, description, mode, retention_hours, created_at, stream_id)
    SELECT queue_id, 'project', 'queue-' || stream_id, '', 'NORMAL', 72, now(), stream_id FROM streams WHERE stream_id > 1000;
INSERT INTO queue_tags (queue_id, tag_key, tag_value) SELECT queue_id, 'key', 'value' FROM queues;
ANALYZE";

fn store(service: &TestService) -> Store {
    let options = StoreOptions {
        database: service.database.url().into(),
        pool_connections: 1,
        statement_timeout: Duration::from_secs(15),
    };
    Store::new(&options).unwrap()
}

async fn explain(conn: &mut PgConnection, options: &str, name: &str, values: &str) -> Vec<String> {
    let sql = statement(name).text;
    conn.execute(AssertSqlSafe(format!("PREPARE looked_at AS {sql}"))).await.unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN ({options}) EXECUTE looked_at ({values})"));
    let plan = sqlx::query_scalar(explain).persistent(false).fetch_all(&mut *conn).await.unwrap();
    conn.execute("DEALLOCATE looked_at").await.unwrap();
    plan
}

/// The plans are those of the pool, whose sessions plan once for all values: what stands behind an OR with a parameter would be
/// read whole.
#[tokio::test]
async fn what_is_deleted_or_shown_is_looked_up_by_its_whole_key() {
    let service = TestService::start().await;
    let store = store(&service);
    let mut conn = store.pool.acquire().await.unwrap();
    conn.execute(FILL).await.unwrap();
    for (name, values, keys) in [
        ("deletion::LOCK_SUBSCRIPTION", "'{1}', 1001", &["stream_id", "subscription_id"][..]),
        ("deletion::DELETE_SUBSCRIPTION", "'{1}', 1001", &["stream_id", "subscription_id"]),
        ("deletion::PURGE_LEASES_OF_SUBSCRIPTION", "'{1}', 1001, 1000", &["stream_id", "subscription_id"]),
        ("deletion::PURGE_RETRIES_OF_SUBSCRIPTION", "'{1}', 1001, 1000", &["stream_id", "subscription_id"]),
        ("deletion::PURGE_LEASES", "'{5}', 1000", &["stream_id"]),
        ("deletion::PURGE_RETRIES", "'{5}', 1000", &["stream_id"]),
        ("deletion::PURGE_DELAYED", "'{5}', 1000", &["stream_id"]),
        ("failed_expiry::DROP", "1, 1001, now(), 1000", &["stream_id", "subscription_id"]),
        ("queues::SUMMARY", "'project', now(), '00000000-0000-0000-0000-000000000001'", &["queue_id"]),
        ("tags::OF_QUEUE", "'project', '00000000-0000-0000-0000-000000000001'", &["queue_id"]),
    ] {
        let plan = explain(&mut conn, "COSTS OFF", name, values).await;
        let text = plan.join("\n");
        // Empty tables may be read whole: there is no group, and no segment.
        let empty = |line: &str| line.contains("on consumer_groups") || line.contains("on segments_d");
        assert!(!plan.iter().any(|line| line.contains("Seq Scan") && !empty(line)), "{text}");
        let conditions: Vec<&String> = plan.iter().filter(|line| line.contains("Index Cond")).collect();
        assert!(conditions.iter().any(|line| keys.iter().all(|key| line.contains(key))), "{keys:?}\n{text}");
    }
}

#[tokio::test]
async fn looking_for_expired_failures_takes_a_step_for_each_subscription() {
    let service = TestService::start().await;
    let store = store(&service);
    let mut conn = store.pool.acquire().await.unwrap();
    conn.execute(FILL).await.unwrap();
    let plan =
        explain(&mut conn, "ANALYZE, TIMING OFF", "failed_expiry::SUBSCRIPTIONS", "now() - interval '3 days', 100")
            .await;
    let text = plan.join("\n");
    assert!(!text.contains("Seq Scan") && !text.contains("Sort"), "{text}");
    // 9,001 readers, of which one has 20,000 failed messages.
    let most = |line: &String| -> Option<u64> {
        let (_, actual) = line.split_once("actual rows=")?;
        let (rows, loops) = actual.split_once(" loops=")?;
        Some(rows.parse::<f64>().ok()? as u64 * loops.trim_end_matches(')').parse::<u64>().ok()?)
    };
    let rows: Vec<u64> = plan.iter().filter_map(most).collect();
    assert!(!rows.is_empty() && rows.iter().all(|rows| *rows <= 9_001), "{rows:?}\n{text}");
}

/// A group, its reader, and 2,500 leases and failed messages of it.
async fn burdened(service: &TestService, queue: &str) -> (Group, i64) {
    let group = service.group(queue, "burdened").await;
    let reader = service.number("SELECT max(subscription_id) FROM consumer_groups").await;
    service
        .sql()
        .await
        .execute(
            "INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
                 SELECT stream_id, subscription_id, gen_random_uuid(), now() + interval '1 hour', '{1}', '{1}', '{now}'
                 FROM subscriptions, generate_series(1, 2500);
             INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
                 SELECT stream_id, subscription_id, o, 1, now() FROM subscriptions, generate_series(1, 2500) AS o",
        )
        .await
        .unwrap();
    (group, reader)
}

async fn outstanding(service: &TestService) -> [i64; 2] {
    [service.number("SELECT count(*) FROM leases").await, service.number("SELECT count(*) FROM retries").await]
}

#[tokio::test]
async fn a_deletion_takes_all_of_a_group_and_nothing_of_others() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.group(&queue, "other").await;
    let (group, _) = burdened(&service, &queue).await;
    assert_eq!(outstanding(&service).await, [5_000; 2]);
    service.delete_group(&group).await.unwrap();
    assert_eq!(outstanding(&service).await, [2_500; 2]);
    service.delete_queue(&queue).await.unwrap();
    assert_eq!(outstanding(&service).await, [0; 2]);
    assert_eq!(service.number("SELECT count(*) FROM subscriptions").await, 0);
}

/// What somebody has locked is left behind; leases end, and failed messages expire, though their reader is gone.
#[tokio::test]
async fn a_deletion_does_not_wait_for_locked_rows_which_go_later() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let (group, _) = burdened(&service, &queue).await;
    let mut holder = service.sql().await;
    holder
        .execute("BEGIN; SELECT FROM leases LIMIT 1 FOR UPDATE; SELECT FROM retries LIMIT 1 FOR UPDATE")
        .await
        .unwrap();
    let deleting = service.delete_group(&group);
    tokio::time::timeout(Duration::from_secs(5), deleting).await.expect("it waits for nobody").unwrap();
    assert_eq!(outstanding(&service).await, [1, 1]);
    holder.execute("ROLLBACK").await.unwrap();
    service.advance(4 * 86_400);
    service.enforce_retention().await;
    assert_eq!(service.number("SELECT count(*) FROM retries").await, 0);
    eventually("the lease is swept", async || outstanding(&service).await == [0, 0]).await;
}

#[tokio::test]
async fn expired_failures_are_dropped_batch_by_batch_and_a_locked_reader_is_passed_over() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let (_, reader) = burdened(&service, &queue).await;
    let stream = service.number("SELECT stream_id FROM subscriptions").await;
    let key = SubscriptionKey { stream: StreamId(stream), subscription: SubscriptionId(reader) };
    let pool = &store(&service).pool;
    let now = service.clock.now();
    let past = Timestamp(now.0 - 3_600_000_000);
    assert!(failed_expiry::subscriptions(pool, past, 10).await.unwrap().is_empty());
    let later = Timestamp(now.0 + 3_600_000_000);
    assert_eq!(failed_expiry::subscriptions(pool, later, 10).await.unwrap(), [key]);
    assert_eq!(failed_expiry::drop_batch(pool, key, past).await.unwrap(), (0, false));
    let mut holder = service.sql().await;
    holder.execute("BEGIN; SELECT FROM subscriptions FOR UPDATE").await.unwrap();
    assert_eq!(failed_expiry::drop_batch(pool, key, later).await.unwrap(), (0, false), "it is locked");
    holder.execute("ROLLBACK").await.unwrap();
    for expected in [(1_000, true), (1_000, true), (500, false), (0, false)] {
        assert_eq!(failed_expiry::drop_batch(pool, key, later).await.unwrap(), expected);
    }
    assert_eq!(service.number("SELECT skipped FROM subscriptions").await, 2_500);
    assert_eq!(service.number("SELECT version FROM subscriptions").await, 3);
}
