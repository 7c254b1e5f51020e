//! Migrations: by several replicas at once, on a newer schema, and on a busy database.

use std::time::{Duration, Instant};

use dms::store;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::postgres::TestDatabase;
use crate::support::service::{TestService, bodies};

async fn versions(sql: &mut PgConnection) -> Vec<i64> {
    sqlx::query_scalar("SELECT version FROM dms_migrations WHERE success ORDER BY version")
        .fetch_all(sql)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_replicas_may_start_at_once_and_each_runs_once() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    let expected = versions(&mut sql).await;
    sql.execute("DROP SCHEMA dms CASCADE").await.unwrap();
    let migrate = || store::migrate(database.url());
    let (first, second, third, fourth) = tokio::join!(migrate(), migrate(), migrate(), migrate());
    [first, second, third, fourth].into_iter().for_each(|done| drop(done.unwrap()));
    assert_eq!(versions(&mut sql).await, expected);
    let service = TestService::on(database).await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    assert_eq!(bodies(&service.take(&group, 1).await), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_left_as_it_is_and_served() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    sql.execute(
        "INSERT INTO dms_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the next version', true, '', 0)",
    )
    .await
    .unwrap();
    store::migrate(database.url()).await.unwrap();
    assert_eq!(versions(&mut sql).await.last(), Some(&9999));
    let service = TestService::on(database).await;
    let queue = service.queue("queue").await;
    service.send(&queue, &["1"]).await;
}

/// The second migration takes locks on tables that every call uses; here a transaction is in its way.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_lock_lets_others_through() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    sql.execute(
        "ALTER TABLE streams ADD CONSTRAINT streams_kind CHECK (kind IN ('normal', 'dead_letter'));
         ALTER TABLE segments ADD CONSTRAINT segments_message_count CHECK (message_count > 0);
         ALTER TABLE leases ADD CONSTRAINT leases_parallel CHECK (cardinality(offsets) > 0);
         DELETE FROM dms_migrations WHERE version = 2",
    )
    .await
    .unwrap();
    let mut reader = database.sql().await;
    let mut long = reader.begin().await.unwrap();
    long.execute("SELECT 1 FROM streams").await.unwrap();

    let others = async {
        while !waits_for_streams(&mut sql).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = Instant::now();
        sql.execute("SELECT 1 FROM streams").await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(!versions(&mut sql).await.contains(&2));
        long.rollback().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(store::migrate(database.url()), others);
    migrated.unwrap();
    assert!(versions(&mut sql).await.contains(&2));
}

async fn waits_for_streams(sql: &mut PgConnection) -> bool {
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'streams'::regclass AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar::<_, i64>(waiting).fetch_one(sql).await.unwrap() > 0
}
