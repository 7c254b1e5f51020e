//! What a claim reads and keeps in memory is bounded, whatever its group makes it look at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dms::broker::Settings;
use dms::domain::clock::{Clock as _, Timestamp};
use dms::domain::ids::{MessageId, StreamId};
use dms::domain::lease::MessageRef;
use dms::domain::message::Message;
use dms::store::log::codec;
use dms::store::log::held_segments::read_holding;
use dms::store::log::segments::{Append, ReadFrom, append, read};
use dms_client::v1 as pb;
use dms_postgres::{Cluster, ClusterOptions};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::calls::eventually;
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;
use crate::support::prepared::statement;
use crate::support::service::{Group, Replica, TestService, bodies, handlers};

const MIB: usize = 1024 * 1024;
const CONSUMERS: usize = 100;

fn small_settings() -> Settings {
    Settings {
        append_lanes: 1,
        claim_lanes: 1,
        settle_lanes: 1,
        pool_connections: 4,
        cache_bytes: 0,
        ..Settings::default()
    }
}

/// A server of its own that logs every statement.
async fn logging_cluster() -> Cluster {
    let settings = [("log_statement", "all"), ("log_line_prefix", "@%a@"), ("log_parameter_max_length", "0")];
    let options = ClusterOptions {
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
        ..ClusterOptions::default()
    };
    tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap()
}

/// How many statements of a kind of connection the server has logged.
fn statements(cluster: &Cluster, who: &str) -> usize {
    cluster.log().lines().filter(|line| line.starts_with(&format!("@{who}@LOG:  execute "))).count()
}

fn reads(cluster: &Cluster) -> usize {
    let log = cluster.log().split_whitespace().collect::<Vec<_>>().join(" ");
    log.matches(&statement("held_segments::READ_HOLDING").text.split_whitespace().collect::<Vec<_>>().join(" ")).count()
}

/// As many consumers as together want a thousand messages; each takes ten and does nothing with them.
async fn take_all(replica: &Replica, group: &Group) -> Vec<Vec<pb::LeasedMessage>> {
    let mut consumers = JoinSet::new();
    for _ in 0..CONSUMERS {
        let consumer = group.waiting_at(replica, group.consume_request(10));
        consumers.spawn(async move { consumer.await.unwrap().unwrap() });
    }
    consumers.join_all().await
}

#[tokio::test]
async fn a_thousand_failed_messages_and_dead_letters_are_a_handful_of_statements() {
    let cluster = logging_cluster().await;
    let service = TestService::on_with(TestDatabase::create_on(&cluster).await, small_settings()).await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 2).await;
    let group = service.group(&queue, "group").await;
    for first in (0..1000).step_by(10) {
        let numbers: Vec<String> = (first..first + 10).map(|number: i32| number.to_string()).collect();
        service.send(&queue, &numbers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let taken: usize = take_all(&service.replica, &group).await.iter().map(Vec::len).sum();
    assert_eq!(taken, 1000);
    // All leases end at once: a thousand messages have failed.
    service.advance(31);
    eventually("all have failed", async || service.number("SELECT count(*) FROM retries").await == 1000).await;
    // A consumer of each batch waits already: all is found in one round, or few.
    let (claims, before) = (statements(&cluster, "dms-claim"), reads(&cluster));
    let again = take_all(&service.replica, &group).await;
    assert_eq!(again.iter().map(Vec::len).sum::<usize>(), 1000);
    assert!(again.iter().flatten().all(|message| message.delivery_attempt == 2));
    let (claims, read) = (statements(&cluster, "dms-claim") - claims, reads(&cluster) - before);
    println!("1,000 failed messages: {claims} statements, {read} of them reads of messages");
    // Consumers arrive over a while, so rounds may be several; each is four statements.
    assert!(read <= 25 && claims <= 100, "{claims} statements, {read} reads");

    let (settlements, before) = (statements(&cluster, "dms-settle"), reads(&cluster));
    service.advance(31);
    eventually("all are dead", async || service.counts(&group).await[4] == 1000).await;
    let (settlements, read) = (statements(&cluster, "dms-settle") - settlements, reads(&cluster) - before);
    println!("1,000 dead letters: {settlements} statements, {read} of them reads of messages");
    assert!(read <= 10, "{read} reads");
}

/// A message with a body of this size.
fn message(size: usize, label: &str) -> Message {
    let body = Bytes::from(format!("\"{}\"", "x".repeat(size.saturating_sub(2))));
    let (id, attributes, tags) = (MessageId(Uuid::new_v4()), Bytes::new(), vec![label.to_owned()]);
    Message { id, body, attributes, tags, dead_letter: None, trace: None }
}

/// A segment of 2 MiB with so many small messages, which carry the label `small`, and ten large ones.
fn large_segment(small: usize) -> Bytes {
    let mut payload = BytesMut::new();
    for number in 0..10 {
        if number < small {
            codec::encode(&message(5, "small"), &mut payload);
        }
        codec::encode(&message(2 * MIB / 10 - 200, "large"), &mut payload);
    }
    payload.freeze()
}

async fn append_large(service: &TestService, stream: StreamId, segments: usize) {
    let payload = large_segment(10);
    let mut sql = service.sql().await;
    for _ in 0..segments {
        service.clock.advance(Duration::from_millis(1));
        let appends = [Append { stream, message_count: 20, payload: payload.clone() }];
        append(&mut sql, &appends, service.clock.now()).await.unwrap();
    }
}

async fn stream_of(service: &TestService, queue: &str) -> StreamId {
    let query = format!("SELECT stream_id FROM queues WHERE queue_id = '{queue}'");
    StreamId(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut service.sql().await).await.unwrap())
}

#[tokio::test]
async fn reads_stop_at_their_bounds_and_say_what_they_have_left() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let stream = stream_of(&service, &queue).await;
    append_large(&service, stream, 6).await;
    let mut sql = service.sql().await;
    let rows: Vec<(i64, Timestamp)> =
        sqlx::query_as("SELECT base_offset, appended_at FROM segments ORDER BY 1").fetch_all(&mut sql).await.unwrap();
    let at = |(offset, appended_at): &(i64, _)| MessageRef { offset: *offset, attempts: 1, appended_at: *appended_at };
    // Several of each segment: each segment is read once.
    let messages: Vec<_> = rows.iter().flat_map(|row| [(stream, at(row)), (stream, at(&(row.0 + 3, row.1)))]).collect();
    let held = read_holding(&mut sql, &messages, 3 * MIB).await.unwrap();
    assert_eq!(held.segments.len(), 2);
    for (index, (stream, message)) in messages.iter().enumerate() {
        let (found, deferred) = (held.find(*stream, *message).is_some(), held.has_deferred(*stream, *message));
        assert_eq!((found, deferred), (index < 4, index >= 4), "{index}");
    }
    let gone = MessageRef { offset: 3, ..at(&rows[1]) };
    assert!(!held.has_deferred(stream, gone), "no segment of that time holds it");

    let (offset, not_before, horizon) = (0, rows[0].1, service.clock.now().minus(Duration::from_secs(3600)));
    let from = ReadFrom { stream, offset, not_before, horizon, not_after: None };
    for (bytes_max, expected) in [(1, 1), (3 * MIB, 2), (100 * MIB, 5)] {
        assert_eq!(read(&mut sql, from, 5, bytes_max).await.unwrap().len(), expected, "{bytes_max}");
    }
}

/// Groups that select little of long backlogs, all at once, beside one that has a message at once.
#[tokio::test]
async fn a_long_search_holds_up_nobody_else_and_finds_what_there_is() {
    let service = Arc::new(TestService::on_with(TestDatabase::create().await, small_settings()).await);
    let queue = service.queue("backlog").await;
    let groups = [service.group(&queue, "one").await, service.group(&queue, "two").await];
    append_large(&service, stream_of(&service, &queue).await, 40).await;
    let quiet_queue = service.queue("quiet").await;
    let quiet = service.group(&quiet_queue, "group").await;
    let mut searches = JoinSet::new();
    for group in groups {
        let service = Arc::clone(&service);
        searches.spawn(async move {
            let request = group.labelled_request(&["nowhere"], pb::TagMatch::Any);
            group.waiting_at(&service.replica, request).await.unwrap().unwrap()
        });
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        service.send(&quiet_queue, &["1"]).await;
        let begun = Instant::now();
        let batch = service.take(&quiet, 1).await;
        slowest = slowest.max(begun.elapsed());
        service.ack(&quiet, &handlers(&batch, true)).await.unwrap();
    }
    println!("beside two searches through 80 MiB each the slowest of ten consumes took {slowest:?}");
    let found = message(5, "nowhere");
    let body = String::from_utf8(found.body.to_vec()).unwrap();
    service.send_messages(&queue, vec![crate::support::calls::tagged(&body, &["nowhere"])]).await.unwrap();
    for batch in searches.join_all().await {
        assert_eq!(bodies(&batch).concat(), body);
    }
}

const GROUPS: usize = 40;
const SEGMENTS: i64 = 20;

#[tokio::test]
async fn groups_that_select_little_of_large_segments_keep_little_in_memory() {
    let database = TestDatabase::create().await;
    let flags = ["--auth=none", "--groups-per-queue=100", "--claim-lanes=1", "--cache-bytes=16MiB"];
    let service = Logged::serve(&database, flags).await;
    let queue = service.rest.queue(&json!({ "name": "q" })).await;
    let mut groups = Vec::new();
    for number in 0..GROUPS {
        groups.push(service.rest.group(&queue, &format!("group-{number}")).await);
    }
    let mut sql = database.sql().await;
    let stream: i64 = sqlx::query_scalar("SELECT stream_id FROM queues").fetch_one(&mut sql).await.unwrap();
    for _ in 0..SEGMENTS {
        let now: Timestamp = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut sql).await.unwrap();
        let appends = [Append { stream: StreamId(stream), message_count: 11, payload: large_segment(1) }];
        append(&mut sql, &appends, now).await.unwrap();
    }
    let before = service.peak_bytes();
    let mut consumers = JoinSet::new();
    for group in groups {
        let rest = service.rest.clone();
        consumers.spawn(async move {
            let answer = rest.get(&format!("{group}/messages?tag=small&max_msgs=10&time_wait=20")).await;
            answer.ok(200).as_array().unwrap().len()
        });
    }
    let taken = consumers.join_all().await;
    assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
    let grown = (service.peak_bytes() - before) / MIB;
    println!(
        "{} messages of 5 bytes for {GROUPS} groups: {grown} MiB more resident at most",
        taken.iter().sum::<usize>()
    );
    assert!(grown < 200, "{grown} MiB");
}
