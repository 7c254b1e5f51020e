//! One replica does for all what needs to be done once, and another one takes over when it goes.

use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms::store::session::leadership::Candidate;
use dms::store::{Store, StoreOptions};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::replicas::idle::{STATISTICS_LAG, create, statements};
use crate::support::calls::{PATIENCE, delayed, eventually};
use crate::support::postgres::TestDatabase;
use crate::support::service::{PROJECT, Replica, TestService, bodies};

const GROUPS: u32 = 20_000;
/// As Prometheus asks each replica.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);
/// Two scrapes are in it.
const WATCHED: Duration = Duration::from_secs(30);
/// Autovacuum counts too when it comes by, and a replica on a busy machine reads the clock again until it has a good reading.
const WINDOWS: usize = 4;

async fn metrics(replica: &Replica) -> String {
    reqwest::get(format!("{}/metrics", replica.admin())).await.unwrap().text().await.unwrap()
}

async fn leads(replica: &Replica) -> bool {
    metrics(replica).await.lines().any(|line| line == "dms_leader 1")
}

async fn shows_groups(replica: &Replica) -> bool {
    metrics(replica).await.contains("dms_group_backlog_messages{")
}

/// Statements a second of so many idle replicas, while each is scraped. A transaction of several statements would count once: when nothing
/// happens there is none.
async fn idle_rate(replicas: usize, most: f64) -> f64 {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    sql.execute(AssertSqlSafe(create(GROUPS))).await.unwrap();
    sql.execute("VACUUM ANALYZE").await.unwrap();
    let mut started = Vec::new();
    for _ in 0..replicas {
        started
            .push(Replica::start(database.url(), Settings { pool_connections: 4, ..Settings::default() }, None).await);
    }
    let admins: Vec<String> = started.iter().map(|replica| format!("{}/metrics", replica.admin())).collect();
    let prometheus = tokio::spawn(async move {
        loop {
            for admin in &admins {
                reqwest::get(admin).await.unwrap().text().await.unwrap();
            }
            tokio::time::sleep(SCRAPE_INTERVAL).await;
        }
    });
    tokio::time::sleep(STATISTICS_LAG).await;
    let mut rate = f64::INFINITY;
    for _ in 0..WINDOWS {
        let begun = (Instant::now(), statements(&mut sql).await);
        tokio::time::sleep(WATCHED).await;
        rate = rate.min((statements(&mut sql).await - begun.1) / begun.0.elapsed().as_secs_f64());
        if rate <= most {
            break;
        }
    }
    prometheus.abort();
    let (mut leaders, mut showing) = (0, 0);
    for replica in &started {
        leaders += usize::from(leads(replica).await);
        showing += usize::from(shows_groups(replica).await);
    }
    assert_eq!((leaders, showing), (1, 1), "one for all");
    for replica in started {
        replica.shutdown().await;
    }
    rate
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_replica_sends_three_statements_a_second_at_most() {
    let rate = idle_rate(1, 3.0).await;
    println!("{rate:.2} statements a second with {GROUPS} groups");
    assert!(rate <= 3.0, "{rate}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_idle_replicas_send_twelve_statements_a_second_at_most() {
    let rate = idle_rate(8, 12.0).await;
    println!("{rate:.2} statements a second with {GROUPS} groups");
    assert!(rate <= 12.0, "{rate}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_moves_when_the_leader_stops_or_loses_its_session() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.group(&queue, "group").await;
    assert!(leads(&service.replica).await, "from the start");
    let other = service.another_replica().await;
    assert!(shows_groups(&service.replica).await && !shows_groups(&other).await);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'dms-leader' AND datname = current_database() AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')";
    assert_eq!(service.number(end).await, 1);
    eventually("one leads again", async || leads(&service.replica).await != leads(&other).await).await;
    let (leader, follower) = if leads(&other).await { (other, service.replica) } else { (service.replica, other) };
    leader.shutdown().await;
    let begun = Instant::now();
    eventually("the other one leads", async || leads(&follower).await && shows_groups(&follower).await).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// As of a replica that is frozen, or cut off without a word.
#[tokio::test]
async fn a_leader_that_is_silent_loses_the_lead() {
    let database = TestDatabase::create().await;
    let options = StoreOptions {
        database: database.url().into(),
        pool_connections: 1,
        statement_timeout: Duration::from_secs(15),
    };
    let store = Store::new(&options).unwrap();
    let (mut silent, mut other) =
        (Candidate::connect(&store).await.unwrap(), Candidate::connect(&store).await.unwrap());
    assert!(silent.heartbeat().await.unwrap());
    assert!(silent.heartbeat().await.unwrap(), "it keeps it");
    let begun = Instant::now();
    while !other.heartbeat().await.unwrap() {
        assert!(begun.elapsed() < PATIENCE, "it never ends");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(4), "it had time for two heartbeats: {:?}", begun.elapsed());
    assert!(silent.heartbeat().await.is_err());
    other.close().await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_delayed_through_a_follower_comes_on_time() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let follower = service.another_replica().await;
    assert!(leads(&service.replica).await);
    let request = dms_client::v1::SendMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: queue.clone(),
        messages: vec![delayed("1", 500)],
        return_ids: false,
    };
    follower.messages.clone().send_messages(request).await.unwrap();
    // The leader has heard of it, and looks by itself only every ten seconds.
    tokio::time::sleep(Duration::from_millis(300)).await;
    service.clock.advance(Duration::from_millis(500));
    let begun = Instant::now();
    assert_eq!(bodies(&group.receive_from(&follower, 1).await), ["1"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    follower.shutdown().await;
}
