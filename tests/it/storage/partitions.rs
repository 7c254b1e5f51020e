//! Partitions of the log: retired while nobody waits, finished when that was cut short, and frozen once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dms::broker::{Broker, BrokerOptions, Settings};
use dms::domain::clock::Clock as _;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::support::calls::eventually;
use crate::support::service::TestService;

const DAY: u64 = 86_400;

fn today(service: &TestService) -> i64 {
    service.clock.now().0 / 86_400_000_000
}

/// A broker that is asked for single rounds of its upkeep.
async fn broker(service: &TestService) -> Broker {
    let options = BrokerOptions {
        database: service.database.url().into(),
        settings: Settings { pool_connections: 2, ..Settings::default() },
        clock: Some(Arc::new(service.clock.clone())),
    };
    Broker::start(options).await.unwrap()
}

/// Tables of days beside today's, with how they stand to the log.
async fn tables(service: &TestService) -> BTreeMap<i64, &'static str> {
    let query = "SELECT substr(c.relname, 11)::bigint, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
        FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
        WHERE c.relkind = 'r' AND c.relname ~ '^segments_d[0-9]+$'";
    let rows: Vec<(i64, bool, bool)> = sqlx::query_as(query).fetch_all(&mut service.sql().await).await.unwrap();
    let state = |attached, detaching| match (attached, detaching) {
        (_, true) => "detaching",
        (true, false) => "attached",
        (false, false) => "detached",
    };
    rows.into_iter().map(|(day, attached, detaching)| (day - today(service), state(attached, detaching))).collect()
}

/// A service whose log has a partition that expired a day ago, with a message in it.
async fn with_expired_day() -> (TestService, String) {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.send(&queue, &["1"]).await;
    service.advance(5 * DAY);
    service.send(&queue, &["2"]).await;
    assert_eq!(tables(&service).await.get(&-5), Some(&"attached"));
    (service, queue)
}

/// A transaction that has looked at the log and stays open, as a dump does.
async fn dump(service: &TestService) -> PgConnection {
    let mut dump = service.sql().await;
    dump.execute("BEGIN; SELECT count(*) FROM segments").await.unwrap();
    dump
}

/// Whether anybody waits for a lock on the log that a send would have to queue behind.
const IN_THE_WAY: &str = "SELECT count(*) FROM pg_locks AS l
    WHERE l.relation = 'segments'::regclass AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock')
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

#[tokio::test(flavor = "multi_thread")]
async fn no_send_queues_behind_a_partition_that_is_retired() {
    let (service, queue) = with_expired_day().await;
    let mut dump = dump(&service).await;
    let broker = broker(&service).await;
    let retiring = {
        let broker = broker.clone();
        tokio::spawn(async move { broker.enforce_retention().await })
    };
    let mut sent = 0;
    while !retiring.is_finished() {
        assert_eq!(service.number(IN_THE_WAY).await, 0, "a lock on the log that sends wait for");
        service.send(&queue, &["3"]).await;
        sent += 1;
    }
    assert!(retiring.await.unwrap().is_err(), "the dump is in the way");
    assert!(sent > 3, "{sent} sends meanwhile");
    // One after the other: the oldest day comes first.
    assert_eq!(tables(&service).await.first_key_value(), Some((&-6, &"detaching")), "it has stopped half way");
    // Nobody minds: sends, reads, and whoever makes partitions.
    service.send(&queue, &["4"]).await;
    let group = service.group(&queue, "group").await;
    assert_eq!(service.work_off(&group, 1 + sent + 1).await.len(), sent + 2);
    dump.execute("COMMIT").await.unwrap();
    eventually("the next round finishes it", async || broker.enforce_retention().await.is_ok()).await;
    assert!(!tables(&service).await.keys().any(|day| *day < -4));
    broker.shutdown().await;
}

/// Detaches a day as a round does that ends half way: its wait for the dump is cut short.
async fn detach_half(service: &TestService, day: i64) {
    let mut dump = dump(service).await;
    let mut sql = service.sql().await;
    sql.execute("SET lock_timeout = '50ms'").await.unwrap();
    let table = table_of(service, day);
    let detach = format!("ALTER TABLE segments DETACH PARTITION {table} CONCURRENTLY");
    sqlx::query(AssertSqlSafe(detach)).execute(&mut sql).await.unwrap_err();
    dump.execute("ROLLBACK").await.unwrap();
    assert_eq!(tables(service).await.get(&day), Some(&"detaching"));
}

#[tokio::test]
async fn a_partition_left_half_detached_or_detached_is_dropped_when_it_has_expired() {
    let (service, queue) = with_expired_day().await;
    detach_half(&service, -5).await;
    let dropped = service.enforce_retention().await;
    assert!(dropped >= 1 && !tables(&service).await.contains_key(&-5), "{dropped}");

    service.advance(5 * DAY);
    service.send(&queue, &["3"]).await;
    let table = table_of(&service, -5);
    let detach = format!("ALTER TABLE segments DETACH PARTITION {table}");
    service.sql().await.execute(AssertSqlSafe(detach)).await.unwrap();
    assert_eq!(tables(&service).await.get(&-5), Some(&"detached"));
    service.enforce_retention().await;
    assert!(!tables(&service).await.contains_key(&-5));
}

/// Postgres's clock was ahead for a while, and set right.
#[tokio::test]
async fn a_day_that_was_detached_and_has_not_expired_has_its_messages_again() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.send(&queue, &["1"]).await;
    service.advance(DAY);
    service.send(&queue, &["2"]).await;
    detach_half(&service, -1).await;
    service.enforce_retention().await;
    assert_eq!(tables(&service).await.get(&-1), Some(&"attached"));
    let group = service.group(&queue, "group").await;
    assert_eq!(service.work_off(&group, 2).await, ["1", "2"]);
}

/// Transactions since the rows of a day, its TOAST included, were last known to be frozen, and how often it was vacuumed.
async fn frozen(service: &TestService, day: i64) -> (i64, i64) {
    let query = "SELECT greatest(age(c.relfrozenxid), age(t.relfrozenxid))::bigint, pg_stat_get_vacuum_count(c.oid)
        FROM pg_class AS c JOIN pg_class AS t ON t.oid = c.reltoastrelid WHERE c.relname = $1";
    sqlx::query_as(query).bind(table_of(service, day)).fetch_one(&mut service.sql().await).await.unwrap()
}

fn table_of(service: &TestService, day: i64) -> String {
    format!("segments_d{}", today(service) + day)
}

/// What `dms doctor` is told.
async fn unfrozen(service: &TestService) -> Vec<String> {
    let now = service.clock.now();
    let horizon = now.minus(Duration::from_secs(3 * DAY));
    dms::store::log::partitions::unfrozen_days(&mut service.sql().await, now, horizon).await.unwrap()
}

/// Far more transactions than other tests begin meanwhile on the same server.
const AGE: i64 = 2_000;

/// Lets transactions pass that take an id each.
async fn age_by(service: &TestService, transactions: i64) {
    let mut sql = service.sql().await;
    for _ in 0..transactions {
        sql.execute("SELECT pg_current_xact_id()").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_frozen_once_when_its_day_is_over_by_one_replica() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    // Large enough for TOAST.
    let large = format!("\"{}\"", "x".repeat(20_000));
    for _ in 0..5 {
        service.send(&queue, &[&large, "1"]).await;
    }
    age_by(&service, AGE).await;
    let brokers = [broker(&service).await, broker(&service).await];
    assert!(brokers[0].freeze_partitions().await.unwrap().is_empty(), "its day is not over");
    service.advance(DAY);
    assert_eq!(unfrozen(&service).await, [table_of(&service, -1)]);
    let before = frozen(&service, -1).await;
    assert!(before.0 >= AGE && before.1 == 0, "{before:?}");
    // What a transaction that has not ended may still have to see is left for the next time.
    eventually("yesterday's partition is frozen", async || {
        let (first, second) = tokio::join!(brokers[0].freeze_partitions(), brokers[1].freeze_partitions());
        assert!(first.unwrap().len() + second.unwrap().len() <= 1, "by one of them");
        unfrozen(&service).await.is_empty()
    })
    .await;
    let after = frozen(&service, -1).await;
    assert!(after.0 < AGE && after.1 >= 1, "{after:?}");
    for broker in &brokers {
        assert!(broker.freeze_partitions().await.unwrap().is_empty(), "once");
    }
    assert_eq!(frozen(&service, -1).await.1, after.1);
    assert_eq!(frozen(&service, 0).await.1, 0, "today's is left alone");
    let group = service.group(&queue, "group").await;
    assert_eq!(service.work_off(&group, 10).await.len(), 10);
    for broker in brokers {
        broker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn freezing_gives_way_to_who_works_on_the_partition() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.send(&queue, &["1"]).await;
    let table = table_of(&service, 0);
    service.advance(DAY);
    let broker = broker(&service).await;
    let mut other = service.sql().await;
    // The lock of a vacuum.
    let lock = format!("BEGIN; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.unwrap();
    let freezing = tokio::time::timeout(Duration::from_secs(10), broker.freeze_partitions());
    assert!(freezing.await.expect("it does not wait").unwrap().is_empty());
    other.execute("ROLLBACK").await.unwrap();
    eventually("it is frozen", async || broker.freeze_partitions().await.unwrap() == [table.clone()]).await;
    broker.shutdown().await;
}
