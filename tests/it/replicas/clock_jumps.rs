//! Postgres's clock stands, jumps ahead by days and is put back; partitions of the log go missing. Every stream stays writable and
//! readable, and reads stay short.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dms::broker::{Broker, BrokerOptions, Settings};
use dms::domain::clock::Clock as _;
use dms::domain::ids::StreamId;
use dms::store::log::segments::{Append, append};
use dms_client::v1 as pb;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::support::calls::{delayed, eventually};
use crate::support::prepared::statement;
use crate::support::service::{Group, TestService, bodies, handlers};

const DAY: Duration = Duration::from_secs(86_400);
const UNORDERED: &str = "SELECT count(*) FROM (
        SELECT appended_at, lag(appended_at) OVER (PARTITION BY stream_id ORDER BY base_offset) AS before FROM segments) AS s
    WHERE appended_at <= before";

async fn partitions(service: &TestService) -> BTreeSet<String> {
    let names = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'segments'::regclass";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut service.sql().await).await.unwrap();
    names.into_iter().collect()
}

async fn drop_partitions(service: &TestService) {
    for table in partitions(service).await {
        service.sql().await.execute(AssertSqlSafe(format!("DROP TABLE {table}"))).await.unwrap();
    }
}

/// A queue of each mode with a group.
async fn queues(service: &TestService, name: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo, pb::QueueMode::KafkaHa, pb::QueueMode::KafkaHt] {
        let queue = service.queue_of(&format!("{name}-{}", mode.as_str_name()), mode).await;
        groups.push(service.group(&queue, "group").await);
    }
    groups
}

/// All queues take a message and give it out again.
async fn assert_alive(service: &TestService, groups: &[Group], body: &str) {
    for group in groups {
        service.send(&group.queue, &[body]).await;
        assert_eq!(service.work_off(group, 1).await, [body], "queue {}", group.queue);
    }
    assert_eq!(service.number(UNORDERED).await, 0, "append times increase");
}

#[tokio::test]
async fn a_dropped_partition_is_made_again_by_the_next_send() {
    let service = TestService::start().await;
    let groups = queues(&service, "queue").await;
    assert_alive(&service, &groups, "1").await;
    for group in &groups {
        drop_partitions(&service).await;
        assert_alive(&service, std::slice::from_ref(group), "2").await;
    }
    assert_eq!(partitions(&service).await.len(), 1, "only what is needed now");
}

#[tokio::test]
async fn a_partition_detached_by_hand_comes_back_with_what_it_holds() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    let today = format!("segments_d{}", service.clock.now().0 / 86_400_000_000);
    let detach = format!("ALTER TABLE segments DETACH PARTITION {today}");
    service.sql().await.execute(AssertSqlSafe(detach)).await.unwrap();
    service.send(&queue, &["2"]).await;
    assert_eq!(service.work_off(&group, 2).await, ["1", "2"]);
}

#[tokio::test]
async fn a_flush_that_lacks_a_partition_takes_all_its_sends() {
    let service = TestService::start().await;
    let groups = queues(&service, "queue").await;
    assert_alive(&service, &groups, "1").await;
    for round in 0..20 {
        drop_partitions(&service).await;
        let body = round.to_string();
        let body_text = body.as_str();
        let send = |index: usize| service.send(&groups[index].queue, std::slice::from_ref(&body_text));
        tokio::join!(send(0), send(1), send(2), send(3));
    }
    let lost = "SELECT count(*) FROM streams WHERE next_offset <> 21";
    assert_eq!(service.number(lost).await, 0, "each send once");
}

#[tokio::test]
async fn dead_letters_and_ended_delays_make_the_partition_they_need() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    let batch = service.receive(&group, 1).await;
    // The message itself stays in memory.
    drop_partitions(&service).await;
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    assert_eq!(bodies(&service.receive_dead_letters(&group, 1).await), ["1"]);
    service.send_messages(&queue, vec![delayed("2", 5_000)]).await.unwrap();
    drop_partitions(&service).await;
    service.send_messages(&queue, vec![delayed("3", 4_000), delayed("4", 0)]).await.unwrap();
    assert_eq!(service.work_off(&group, 1).await, ["4"]);
    drop_partitions(&service).await;
    service.clock.advance(Duration::from_secs(5));
    assert_eq!(service.work_off(&group, 2).await, ["3", "2"]);
}

#[tokio::test]
async fn upkeep_makes_a_missing_partition_again() {
    let service = TestService::start().await;
    let options = BrokerOptions {
        database: service.database.url().into(),
        settings: Settings { pool_connections: 2, ..Settings::default() },
        clock: Some(Arc::new(service.clock.clone())),
    };
    let broker = Broker::start(options).await.unwrap();
    let before = partitions(&service).await;
    drop_partitions(&service).await;
    broker.enforce_retention().await.unwrap();
    assert_eq!(partitions(&service).await, before);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_stream_whose_last_append_lies_behind_the_last_partition_stays_writable() {
    let service = TestService::start().await;
    let groups = queues(&service, "queue").await;
    assert_alive(&service, &groups, "1").await;
    let ahead = "UPDATE streams SET last_appended_at = last_appended_at + interval '40 days'";
    service.sql().await.execute(ahead).await.unwrap();
    let before = partitions(&service).await.len();
    assert_alive(&service, &groups, "2").await;
    assert_eq!(partitions(&service).await.len(), before + 1, "one day for all");
    let last_instant =
        "UPDATE streams SET last_appended_at = date_trunc('day', last_appended_at, 'UTC') + interval '86399.999999 s'";
    service.sql().await.execute(last_instant).await.unwrap();
    assert_alive(&service, &groups, "3").await;
    assert_alive(&service, &queues(&service, "new").await, "4").await;
}

#[tokio::test]
async fn a_jump_of_days_and_back_leaves_every_stream_writable_and_readable() {
    for days in [2, 3, 40] {
        let service = TestService::start().await;
        let groups = queues(&service, "before").await;
        assert_alive(&service, &groups, "1").await;
        service.clock.advance(days * DAY);
        let during = queues(&service, "during").await;
        for groups in [&groups, &during] {
            assert_alive(&service, groups, "2").await;
        }
        for group in &groups {
            service.send(&group.queue, &["3"]).await;
        }
        service.clock.put_back(days * DAY);
        for group in &groups {
            assert_eq!(service.work_off(group, 1).await, ["3"], "{days} days: sent while the clock was ahead");
        }
        let after = queues(&service, "after").await;
        for groups in [&groups, &during, &after] {
            assert_alive(&service, groups, "4").await;
        }
        service.enforce_retention().await;
        let replica = service.another_replica().await;
        for groups in [&groups, &during, &after] {
            assert_alive(&service, groups, "5").await;
            for group in groups {
                assert_eq!(service.counts(group).await[2], 0);
            }
        }
        replica.shutdown().await;
        assert!(partitions(&service).await.len() <= 12, "four for each time that the clock showed");
    }
}

#[tokio::test]
async fn a_clock_put_back_and_mended_leaves_every_stream_writable_and_readable() {
    let service = TestService::start().await;
    let groups = queues(&service, "before").await;
    assert_alive(&service, &groups, "1").await;
    service.clock.put_back(3 * DAY);
    for group in &groups {
        service.send(&group.queue, &["2"]).await;
    }
    service.clock.advance(3 * DAY);
    for group in &groups {
        assert_eq!(service.work_off(group, 1).await, ["2"], "sent while the clock was behind");
    }
    assert_alive(&service, &groups, "3").await;
}

/// Rows that a read of one segment from a cursor fetches, and those it throws away.
async fn rows_of_read(conn: &mut PgConnection, stream: i64, offset: i64) -> (f64, f64) {
    let sql = format!(
        "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF, BUFFERS OFF) {}",
        statement("segments::read::READ")
            .text
            .replace("$1", &stream.to_string())
            .replace(
                "$2",
                &format!(
                    "(SELECT appended_at FROM segments WHERE stream_id = {stream} AND base_offset = {})",
                    offset - 1
                )
            )
            .replace("$3", "'-infinity'")
            .replace("$4", &offset.to_string())
            .replace("$5", "4")
            .replace("$6", "NULL")
            .replace("$7", "1000000")
    );
    let plan: serde_json::Value = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await.unwrap();
    let main = &plan[0]["Plan"];
    (main["Actual Rows"].as_f64().unwrap(), removed(main))
}

/// Rows removed by filters anywhere in a plan but in its sub-selects.
fn removed(plan: &serde_json::Value) -> f64 {
    let below = plan["Plans"].as_array().into_iter().flatten().filter(|plan| plan["Parent Relationship"] != "InitPlan");
    plan["Rows Removed by Filter"].as_f64().unwrap_or(0.0) + below.map(removed).sum::<f64>()
}

#[tokio::test]
async fn a_read_touches_few_rows_though_the_clock_stands() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.group(&queue, "group").await;
    let stream = service.number("SELECT stream_id FROM streams").await;
    let mut conn = service.sql().await;
    let one = Append { stream: StreamId(stream), message_count: 1, payload: Bytes::from_static(b"") };
    conn.execute("BEGIN").await.unwrap();
    for _ in 0..3_000 {
        append(&mut conn, std::slice::from_ref(&one), service.clock.now()).await.unwrap();
    }
    conn.execute("COMMIT").await.unwrap();
    assert_eq!(service.number(UNORDERED).await, 0, "append times increase");
    for offset in [1, 1_500, 2_990] {
        let (rows, removed) = rows_of_read(&mut conn, stream, offset).await;
        assert!((rows - 4.0).abs() < 0.1 && removed <= 1.0, "offset {offset}: {rows} rows, {removed} thrown away");
    }
}

#[tokio::test]
async fn segments_of_one_transaction_have_times_of_their_own() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    // Ten dead letters of half a megabyte are several segments, appended at once.
    let large: Vec<String> = (0..10).map(|number| format!("\"{number}{}\"", "x".repeat(480_000))).collect();
    for body in &large {
        service.send(&queue, &[body]).await;
    }
    let mut taken = 0;
    while taken < large.len() {
        taken += service.receive(&group, 10).await.len();
    }
    service.clock.advance(Duration::from_secs(31));
    eventually("all are dead", async || service.counts(&group).await[4] == 10).await;
    assert!(
        service.number("SELECT count(*) FROM segments JOIN streams USING (stream_id) WHERE kind = 'dead_letter'").await
            > 1
    );
    assert_eq!(service.number(UNORDERED).await, 0, "append times increase");
}
