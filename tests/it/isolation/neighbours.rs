//! What one project does costs another nothing. Statements, rounds and refusals are counted rather than times.

use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms_client::v1 as pb;
use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::JoinSet;

use crate::support::calls::eventually;
use crate::support::rest::Rest;
use crate::support::service::{Group, PROJECT, Replica, TestService, bodies, code};

/// Consumers of the quiet project.
const PARKED: u64 = 150;

/// Groups of as many queues, faster than by calls.
async fn quiet_groups(service: &TestService) -> Vec<Group> {
    let create = format!(
        "INSERT INTO streams (stream_id, last_appended_at, queue_id, kind)
             SELECT n, now(), lpad(n::text, 32, '0')::uuid, 'normal' FROM generate_series(1000, 999 + {PARKED}) AS n;
         INSERT INTO queues (queue_id, project_id, name, description, mode, retention_hours, created_at, stream_id)
             SELECT queue_id, '{PROJECT}', 'queue-' || stream_id, '', 'NORMAL', 72, now(), stream_id FROM streams
             WHERE stream_id >= 1000;
         INSERT INTO consumer_groups (group_id, queue_id, name, subscription_id)
             SELECT queue_id, queue_id, 'group', stream_id FROM streams WHERE stream_id >= 1000;
         INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, cursor_time)
             SELECT stream_id, stream_id, 0, now() FROM streams WHERE stream_id >= 1000"
    );
    service.sql().await.execute(AssertSqlSafe(create)).await.unwrap();
    let id = |number: u64| uuid::Uuid::parse_str(&format!("{number:0>32}")).unwrap().to_string();
    (1000..1000 + PARKED).map(|number| Group { queue: id(number), id: format!("g-{}", id(number)) }).collect()
}

/// Consumers that wait, one of each group, however long it takes.
fn park(replica: &Replica, groups: &[Group]) -> JoinSet<Vec<String>> {
    let mut parked = JoinSet::new();
    for group in groups {
        let mut client = replica.messages.clone();
        let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let request = pb::ConsumeMessagesRequest {
            options: Some(pb::ConsumeOptions { wait, ..Default::default() }),
            ..group.consume_request(1)
        };
        parked.spawn(async move {
            loop {
                let messages = client.consume_messages(request.clone()).await.unwrap().into_inner().messages;
                if !messages.is_empty() {
                    return bodies(&messages);
                }
            }
        });
    }
    parked
}

/// A figure of a replica.
async fn metric(replica: &Replica, series: &str) -> f64 {
    let text = reqwest::get(format!("{}/metrics", replica.admin())).await.unwrap().text().await.unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or(0.0)
}

/// Readers that the claim lanes have looked after, each time counted.
async fn looked_after(replica: &Replica) -> f64 {
    metric(replica, r#"dms_lane_flush_calls_sum{lane="claim"}"#).await
}

/// Waits until the claim lanes have nothing to do; what they had done by then.
async fn settled(replica: &Replica) -> f64 {
    let mut before = -1.0;
    loop {
        let now = looked_after(replica).await;
        if now == before {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_of_one_project_have_no_consumer_of_another_looked_after() {
    const DELETIONS: u32 = 15;
    let service = TestService::start().await;
    let other = service.another_replica().await;
    let groups = quiet_groups(&service).await;
    let mut parked = [park(&service.replica, &groups), park(&other, &groups)];
    let stranger = Rest::new(&service.replica).at("v1.0", "stranger");
    let queue = stranger.queue(&json!({ "name": "q", "redrive_policy": "enable", "max_consume_count": 3 })).await;
    eventually("all are parked", async || looked_after(&service.replica).await >= PARKED as f64).await;
    eventually("all are parked", async || looked_after(&other).await >= PARKED as f64).await;
    let before = [settled(&service.replica).await, settled(&other).await];
    let begun = Instant::now();
    for round in 0..DELETIONS {
        let group = stranger.group(&queue, "g").await;
        stranger.delete(&group).await.ok(204);
        let victim = stranger.queue(&json!({ "name": format!("q-{round}") })).await;
        stranger.delete(&format!("/queues/{victim}")).await.ok(204);
    }
    for (replica, before) in [&service.replica, &other].into_iter().zip(before) {
        let more = settled(replica).await - before;
        println!("{more} readers looked after during {DELETIONS} deletions of a group and of a queue");
        // All are looked after every ten seconds in any case.
        let refreshes = begun.elapsed().as_secs() / 10 + 3;
        assert!(more <= (refreshes * PARKED) as f64 + f64::from(4 * DELETIONS), "{more}, {refreshes}");
    }
    assert!(parked.iter_mut().all(|parked| parked.try_join_next().is_none()), "they still wait");
    other.shutdown().await;
}

/// Waits until a statement of this application waits for a lock.
async fn waits_for_a_lock(service: &TestService, application: &str) {
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{application}'
         AND datname = current_database()"
    );
    let mut sql = service.sql().await;
    eventually("something waits for a lock", async || {
        sqlx::query_scalar::<_, i64>(AssertSqlSafe(query.clone())).fetch_one(&mut sql).await.unwrap() > 0
    })
    .await;
}

#[tokio::test]
async fn a_stranger_who_names_a_queue_costs_its_owner_no_look_up() {
    let service = TestService::start().await;
    let owner = Rest::new(&service.replica);
    let (queue, group) = owner.queue_and_group(&json!({ "name": "q" })).await;
    owner.send_bodies(&queue, &[json!(0)]).await;
    owner.consume(&group).await;
    // From here on a look-up would fail.
    service.sql().await.execute("ALTER TABLE queues RENAME TO hidden").await.unwrap();
    let stranger = owner.at("v1.0", "stranger");
    for number in 1..5 {
        let message = json!({ "messages": [{ "body": 1 }] });
        let named = stranger.post(&format!("/queues/{queue}/messages"), &message).await;
        assert_eq!(named.code(), (404, "DMS.10240401".into()), "answered without a look-up");
        let consumed = stranger.get(&format!("{group}/messages?time_wait=1")).await;
        assert_eq!(consumed.code(), (404, "DMS.10240401".into()));
        owner.send_bodies(&queue, &[json!(number)]).await;
        assert_eq!(owner.consume(&group).await.0, [json!(number)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_to_a_lane_that_is_held_up_takes_no_place_of_a_call() {
    const CALLS_MAX: usize = 16;
    let settings = Settings { lane_calls_max: CALLS_MAX, claim_lanes: 1, ..Settings::default() };
    let service = TestService::with(settings).await;
    let rest = Rest::new(&service.replica);
    let (busy, _) = rest.queue_and_group(&json!({ "name": "busy" })).await;
    let (_, first) = rest.queue_and_group(&json!({ "name": "first" })).await;
    let (queue, second) = rest.queue_and_group(&json!({ "name": "second" })).await;
    let mut sql = service.sql().await;
    sql.execute("BEGIN; LOCK TABLE subscriptions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let (path, held_up) = (format!("{first}/messages?time_wait=3"), rest.clone());
    let held_up = tokio::spawn(async move { held_up.get(&path).await });
    waits_for_a_lock(&service, "dms-claim").await;
    // Each is an event for the lane.
    for number in 0..8 * CALLS_MAX {
        rest.send_bodies(&busy, &[json!(number)]).await;
    }
    let path = format!("{second}/messages?time_wait=20");
    let consumer = tokio::spawn({
        let rest = rest.clone();
        async move { rest.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    sql.execute("ROLLBACK").await.unwrap();
    rest.send_bodies(&queue, &[json!("there")]).await;
    let answer: Value = consumer.await.unwrap().ok(200);
    assert_eq!(answer[0]["message"]["body"], json!("there"));
    assert_eq!(held_up.await.unwrap().ok(200), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_calls_of_one_project_leave_connections_for_others() {
    let service = TestService::with(Settings { pool_connections: 4, ..Settings::default() }).await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let quiet = rest.at("v1.0", "quiet");
    let (other, group) = quiet.queue_and_group(&json!({ "name": "q" })).await;
    let mut sql = service.sql().await;
    sql.execute(AssertSqlSafe(format!("BEGIN; SELECT FROM queues WHERE queue_id = '{queue}' FOR UPDATE")))
        .await
        .unwrap();
    let mut held_up = JoinSet::new();
    for number in 0..12 {
        let (rest, path) = (rest.clone(), format!("/queues/{queue}/groups"));
        let body = json!({ "groups": [{ "name": format!("g-{number}") }] });
        held_up.spawn(async move { rest.post(&path, &body).await });
    }
    waits_for_a_lock(&service, "dms").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    assert_eq!(quiet.get("/queues").await.ok(200)["total"], json!(1));
    quiet.send_bodies(&other, &[json!(1)]).await;
    assert_eq!(quiet.consume(&group).await.0, [json!(1)]);
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    while let Some(answer) = held_up.join_next().await {
        assert_eq!(answer.unwrap().code(), (500, "DMS.10250003".into()), "told in time, with a hint to retry");
    }
}

/// Replicas of the version before know a deletion by the queue alone, and have to hear of ours.
#[tokio::test]
async fn deletions_are_told_and_understood_across_versions() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let (told, heard) = (service.group(&queue, "told").await, service.group(&queue, "heard").await);
    let parked = service.parked(&heard, 1).await;
    let id = heard.id.trim_start_matches("g-");
    let as_before = format!(
        "DELETE FROM subscriptions WHERE subscription_id IN
             (SELECT subscription_id FROM consumer_groups WHERE group_id = '{id}');
         DELETE FROM consumer_groups WHERE group_id = '{id}';
         SELECT pg_notify('dms_dms', '{} d{queue}')",
        uuid::Uuid::new_v4()
    );
    service.sql().await.execute(AssertSqlSafe(as_before)).await.unwrap();
    assert_eq!(code(&parked.refused_at_once().await), "DMS.10240405");

    let mut listener = PgListener::connect(service.database.url()).await.unwrap();
    listener.listen("dms_dms").await.unwrap();
    service.delete_group(&told).await.unwrap();
    let word = format!("d{queue}");
    loop {
        let notified = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await;
        if notified.unwrap().unwrap().payload().split(' ').any(|told| told == word) {
            break;
        }
    }
}
