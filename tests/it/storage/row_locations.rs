//! Rows found by location: right when somebody else has moved them, and found by nothing else.

use std::time::Duration;

use bytes::Bytes;
use dms::broker::Settings;
use dms::domain::clock::{Clock as _, Timestamp};
use dms::domain::ids::{LeaseId, StreamId, SubscriptionId, SubscriptionKey};
use dms::domain::lease::{Lease, MessageRef};
use dms::store::log::segments::{Append, append, append_at};
use dms::store::row_location::RowLocation;
use dms::store::session::connection::{Durability, LaneConnection};
use dms::store::subscriptions::claims::{Claim, claim};
use dms::store::subscriptions::read_states;
use dms::store::{Store, StoreOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::calls::eventually;
use crate::support::prepared::statement;
use crate::support::service::{Group, Replica, TestService, bodies, handlers, message};

/// Messages of one append.
const COUNT: i32 = 2;

fn lane(service: &TestService) -> LaneConnection {
    let options = StoreOptions {
        database: service.database.url().into(),
        pool_connections: 1,
        statement_timeout: Duration::from_secs(15),
    };
    LaneConnection::new(&Store::new(&options).unwrap(), "test-lane", Durability::Synchronous)
}

/// One that waits for locks for as long as it takes.
async fn patient_lane(service: &TestService) -> LaneConnection {
    let mut lane = lane(service);
    lane.open().await.unwrap().execute("SET lock_timeout = 0").await.unwrap();
    lane
}

/// A queue with a group: its only stream and reader.
async fn reader(service: &TestService) -> SubscriptionKey {
    let queue = service.queue("queue").await;
    service.group(&queue, "group").await;
    key(service).await
}

async fn key(service: &TestService) -> SubscriptionKey {
    let stream = StreamId(service.number("SELECT stream_id FROM subscriptions").await);
    let subscription = SubscriptionId(service.number("SELECT subscription_id FROM subscriptions").await);
    SubscriptionKey { stream, subscription }
}

fn append_to(stream: StreamId) -> Append {
    Append { stream, message_count: COUNT, payload: Bytes::new() }
}

/// Appends at a location; the base offset, or `None` when the row is not there.
async fn append_at_location(
    conn: &mut PgConnection,
    stream: StreamId,
    location: RowLocation,
    now: Timestamp,
) -> Option<i64> {
    let results = append_at(conn, &[append_to(stream)], &[location], now).await.unwrap();
    results.first().map(|result| result.segment.base_offset)
}

/// Offsets have no gap, no overlap, and end where the stream does.
async fn assert_gapless(service: &TestService) {
    let broken = "SELECT count(*) FROM (
            SELECT base_offset, lag(base_offset + message_count, 1, 0::bigint)
                OVER (PARTITION BY stream_id ORDER BY appended_at, base_offset) AS expected FROM segments) AS s
        WHERE base_offset <> expected";
    assert_eq!(service.number(broken).await, 0, "gaps or overlaps");
    let unequal = "SELECT count(*) FROM streams AS t
        WHERE next_offset <> (SELECT coalesce(sum(message_count), 0) FROM segments AS s WHERE s.stream_id = t.stream_id)";
    assert_eq!(service.number(unequal).await, 0, "streams that do not end with their segments");
}

#[tokio::test]
async fn rows_are_found_by_place_and_not_by_key() {
    let service = TestService::start().await;
    let mut lane = lane(&service);
    let conn = lane.open().await.unwrap();
    let fill =
        "INSERT INTO streams SELECT s, 0, now(), gen_random_uuid(), 'normal' FROM generate_series(1000, 5000) AS s;
        INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, cursor_time)
            SELECT s, s, 0, now() FROM generate_series(1000, 5000) AS s;
        ANALYZE streams, subscriptions";
    for (size, prepare) in [("empty", "SELECT 1"), ("large", fill)] {
        conn.execute(prepare).await.unwrap();
        for (table, name, look_ups) in [
            ("streams", "segments::APPEND_AT", 1),
            ("streams", "segments::APPEND_ONE_AT", 1),
            ("subscriptions", "claims::CLAIM", 1),
            ("subscriptions", "claims::CLAIM_ONE", 1),
            ("subscriptions", "claims::CLAIM_ONE_FIFO", 1),
        ] {
            let plan = plan(conn, name).await;
            let scans: Vec<&String> = plan.iter().filter(|line| line.contains(&format!(" on {table}"))).collect();
            let by_place = scans.iter().filter(|line| line.contains("Tid Scan")).count();
            // One more is the update itself.
            assert_eq!((by_place, scans.len()), (look_ups, look_ups + 1), "{size} {table}:\n{}", plan.join("\n"));
            assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{size} {table}:\n{}", plan.join("\n"));
        }
    }
}

#[tokio::test]
async fn what_is_looked_up_by_key_is_looked_up_however_small_its_table_was() {
    let service = TestService::start().await;
    let mut lane = lane(&service);
    let conn = lane.open().await.unwrap();
    // As after an analysis in a quiet moment, with the index still as large as in the busy one before.
    let fill = "INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
            SELECT 1, 1, gen_random_uuid(), now(), '{1}', '{1}', '{now}' FROM generate_series(1, 5000);
        INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
            SELECT 1, 1, n, 1, now() FROM generate_series(1, 5000) AS n";
    let empty = "DELETE FROM leases; DELETE FROM retries; ANALYZE leases, retries, subscriptions, streams";
    for (size, prepare) in [("new", "SELECT 1"), ("emptied", empty), ("large", "ANALYZE leases, retries")] {
        conn.execute(if size == "new" { "SELECT 1" } else { fill }).await.unwrap();
        conn.execute(prepare).await.unwrap();
        for name in [
            "leases::DELETE_WHOLE",
            "leases::LOCK",
            "leases::DELETE",
            "leases::SHRINK",
            "state::READ_STATES",
            "subscriptions::LOCK",
            "locks::STREAMS",
            "locks::SUBSCRIPTIONS",
            "locks::LEASES",
            "locks::DEAD_LETTERS",
            "segments::APPEND",
            "claims::CLAIM",
            "claims::CLAIM_ONE",
            "claims::CLAIM_ONE_FIFO",
            "retries::READ",
            "held_segments::READ_HOLDING",
        ] {
            let plan = plan(conn, name).await;
            let (mut lines, mut found) = (plan.iter().peekable(), 0);
            while let Some(line) = lines.next() {
                assert!(!line.contains("Seq Scan"), "{size}:\n{}", plan.join("\n"));
                if line.contains("Index") && line.contains("Scan using") {
                    let condition = lines.peek().map_or("", |line| line.trim_start());
                    assert!(condition.starts_with("Index Cond"), "{size}:\n{}", plan.join("\n"));
                    found += 1;
                }
            }
            assert!(found > 0, "{size}:\n{}", plan.join("\n"));
        }
    }
}

/// The plan that a lane's connection has for a statement.
async fn plan(conn: &mut PgConnection, name: &str) -> Vec<String> {
    let statement = statement(name);
    let nulls = vec!["NULL"; statement.parameters.len()].join(", ");
    conn.execute(AssertSqlSafe(format!("PREPARE looked_at AS {}", statement.text))).await.unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE looked_at ({nulls})"));
    let plan = sqlx::query_scalar(explain).persistent(false).fetch_all(&mut *conn).await.unwrap();
    conn.execute("DEALLOCATE looked_at").await.unwrap();
    plan
}

#[tokio::test]
async fn an_append_at_a_place_that_is_not_the_stream_writes_nothing() {
    let service = TestService::start().await;
    let stream = reader(&service).await.stream;
    service.queue("other").await;
    let mut lane = lane(&service);
    let (conn, now) = (lane.open().await.unwrap(), service.clock.now());
    let first = append(conn, &[append_to(stream)], now).await.unwrap()[0];
    let second = append_at(conn, &[append_to(stream)], &[first.location], now).await.unwrap()[0];
    assert_eq!((first.segment.base_offset, second.segment.base_offset), (0, i64::from(COUNT)));
    let others = sqlx::query_scalar("SELECT ctid::text FROM streams WHERE stream_id <> $1").bind(stream.0);
    let other: String = others.fetch_one(&mut *conn).await.unwrap();
    let (block, line) = other.trim_matches(['(', ')']).split_once(',').unwrap();
    let elsewhere = [
        first.location,
        RowLocation { block: block.parse().unwrap(), line: line.parse().unwrap() },
        RowLocation { block: 0, line: 0 },
        RowLocation { block: 0, line: u16::MAX },
        RowLocation { block: 1_000_000, line: 1 },
        RowLocation { block: u32::MAX, line: 1 },
    ];
    for location in elsewhere {
        assert_eq!(append_at_location(conn, stream, location, now).await, None, "{location:?}");
    }
    assert_eq!(append_at_location(conn, stream, second.location, now).await, Some(2 * i64::from(COUNT)));
    assert_gapless(&service).await;
}

/// Waits until a lane's statement waits for a row lock.
async fn blocked(service: &TestService) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'test-lane' AND wait_event_type = 'Lock' AND datname = current_database()";
    eventually("a statement waits", async || service.number(waiting).await == 1).await;
}

/// Moves the row of a stream as an append of another replica does, up to its commit.
const OTHER_APPEND: &str = "WITH moved AS (
        UPDATE streams SET next_offset = next_offset + 7, last_appended_at = now() RETURNING stream_id, next_offset - 7 AS base)
    INSERT INTO segments (stream_id, base_offset, appended_at, message_count, codec, payload)
    SELECT stream_id, base, now(), 7, 0, '' FROM moved";

/// Versions of Postgres differ in whether the row is found then; offsets are right in both.
#[tokio::test]
async fn an_append_that_waits_for_another_one_follows_it_or_writes_nothing() {
    for (end, others) in [("COMMIT", 7), ("ROLLBACK", 0)] {
        let service = TestService::start().await;
        let stream = reader(&service).await.stream;
        let (mut lane, now) = (patient_lane(&service).await, service.clock.now());
        let location = append(lane.open().await.unwrap(), &[append_to(stream)], now).await.unwrap()[0].location;
        let mut other = service.sql().await;
        other.execute("BEGIN").await.unwrap();
        other.execute(OTHER_APPEND).await.unwrap();
        let appending: JoinHandle<Option<i64>> =
            tokio::spawn(async move { append_at_location(lane.open().await.unwrap(), stream, location, now).await });
        blocked(&service).await;
        other.execute(end).await.unwrap();
        let landed = appending.await.unwrap();
        let behind = i64::from(COUNT) + others;
        println!("{end}: landed at {landed:?}");
        assert!(landed == Some(behind) || (landed.is_none() && end == "COMMIT"), "{end}: {landed:?}");
        assert_gapless(&service).await;
        other.close().await.unwrap();
    }
}

#[tokio::test]
async fn of_claims_at_one_place_one_holds() {
    let service = TestService::start().await;
    let key = reader(&service).await;
    let mut lane = lane(&service);
    let (conn, now) = (lane.open().await.unwrap(), service.clock.now());
    append(conn, &[append_to(key.stream)], now).await.unwrap();
    let state = read_states(conn, &[(key, true)]).await.unwrap().remove(0);
    let lease = |offset| Lease {
        key,
        id: LeaseId(Uuid::new_v4()),
        expires_at: now,
        messages: vec![MessageRef { offset, attempts: 1, appended_at: now }],
    };
    let new = |location, version, cursor| Claim {
        key,
        location,
        version,
        cursor,
        cursor_time: now,
        exclusive: true,
        skipped: 0,
        passed_over: 0,
        retries: Vec::new(),
        retry_cursor: 0,
        failed_next: true,
        leases: vec![lease(cursor - 1)],
    };
    let claimed = claim(conn, &[new(state.location, state.version, 1)]).await.unwrap();
    let location = claimed[&key].location;
    assert!(
        claim(conn, &[new(state.location, state.version, 1)]).await.unwrap().is_empty(),
        "old location, old version"
    );
    assert!(claim(conn, &[new(location, state.version, 2)]).await.unwrap().is_empty(), "old version");
    assert!(claim(conn, &[new(state.location, state.version + 1, 2)]).await.unwrap().is_empty(), "old location");
    assert!(!read_states(conn, &[(key, false)]).await.unwrap()[0].has_leases, "not looked for");
    assert!(read_states(conn, &[(key, true)]).await.unwrap()[0].has_leases);
    assert_eq!(claim(conn, &[new(location, state.version + 1, 2)]).await.unwrap().len(), 1);
    assert_eq!(service.number("SELECT count(*) FROM leases").await, 2);
}

/// Two streams with a reader each, the first one's row locked by somebody else.
async fn first_of_two_is_locked(service: &TestService, table: &str) -> ([SubscriptionKey; 2], PgConnection) {
    for name in ["one", "two"] {
        let queue = service.queue(name).await;
        service.group(&queue, "group").await;
    }
    let mut sql = service.sql().await;
    let rows: Vec<(i64, i64)> = sqlx::query_as("SELECT stream_id, subscription_id FROM subscriptions ORDER BY 1")
        .fetch_all(&mut sql)
        .await
        .unwrap();
    let key =
        |index: usize| SubscriptionKey { stream: StreamId(rows[index].0), subscription: SubscriptionId(rows[index].1) };
    let keys = [key(0), key(1)];
    sql.execute("BEGIN").await.unwrap();
    let lock = format!("SELECT FROM {table} WHERE stream_id = {} FOR UPDATE", keys[0].stream.0);
    sql.execute(AssertSqlSafe(lock)).await.unwrap();
    (keys, sql)
}

/// While a statement waits for the first row, the second one is free: two of them cannot wait for each other.
async fn assert_second_is_free(service: &TestService, table: &str, keys: [SubscriptionKey; 2]) {
    blocked(service).await;
    let lock = format!("SELECT FROM {table} WHERE stream_id = {} FOR UPDATE NOWAIT", keys[1].stream.0);
    service.sql().await.execute(AssertSqlSafe(lock)).await.unwrap();
}

#[tokio::test]
async fn claims_lock_readers_in_the_order_of_their_keys_whatever_comes_first() {
    let service = TestService::start().await;
    let (keys, mut other) = first_of_two_is_locked(&service, "subscriptions").await;
    let (mut lane, now) = (patient_lane(&service).await, service.clock.now());
    let states = read_states(lane.open().await.unwrap(), &keys.map(|key| (key, false))).await.unwrap();
    let mut claims: Vec<Claim> = states
        .iter()
        .map(|state| Claim {
            key: state.key,
            location: state.location,
            version: state.version,
            cursor: 1,
            cursor_time: now,
            exclusive: false,
            skipped: 0,
            passed_over: 0,
            retries: Vec::new(),
            retry_cursor: 0,
            failed_next: true,
            leases: Vec::new(),
        })
        .collect();
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.key));
    let claiming = tokio::spawn(async move { claim(lane.open().await.unwrap(), &claims).await.unwrap().len() });
    assert_second_is_free(&service, "subscriptions", keys).await;
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(claiming.await.unwrap(), 2);
}

#[tokio::test]
async fn appends_lock_streams_in_the_order_of_their_keys_whatever_comes_first() {
    let service = TestService::start().await;
    let (keys, mut other) = first_of_two_is_locked(&service, "streams").await;
    let (mut lane, now) = (patient_lane(&service).await, service.clock.now());
    let appends = [keys[1], keys[0]].map(|key| append_to(key.stream));
    let appending = tokio::spawn(async move { append(lane.open().await.unwrap(), &appends, now).await.unwrap() });
    assert_second_is_free(&service, "streams", keys).await;
    other.execute("ROLLBACK").await.unwrap();
    let results = appending.await.unwrap();
    assert_eq!(results.len(), 2);

    let mut lane = patient_lane(&service).await;
    let (locations, streams): (Vec<RowLocation>, Vec<StreamId>) =
        results.iter().rev().map(|result| (result.location, result.segment.stream_id)).unzip();
    assert!(streams[0] > streams[1]);
    other.execute("BEGIN").await.unwrap();
    let lock = format!("SELECT FROM streams WHERE stream_id = {} FOR UPDATE", keys[0].stream.0);
    other.execute(AssertSqlSafe(lock)).await.unwrap();
    let appends: Vec<Append> = streams.into_iter().map(append_to).collect();
    let appending =
        tokio::spawn(async move { append_at(lane.open().await.unwrap(), &appends, &locations, now).await.unwrap() });
    assert_second_is_free(&service, "streams", keys).await;
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(appending.await.unwrap().len(), 2);
}

/// Sends, consumes and acknowledges one message through each replica in turns.
async fn take_turns(service: &TestService, other: &Replica, group: &Group, rounds: i32) {
    for round in 0..rounds {
        let (sender, consumer) = if round % 2 == 0 { (&service.replica, other) } else { (other, &service.replica) };
        for body in [2 * round, 2 * round + 1] {
            send_at(sender, &group.queue, body).await;
            let batch = group.receive_from(consumer, 1).await;
            assert_eq!(bodies(&batch), [body.to_string()]);
            group.ack_at(sender, &handlers(&batch, true)).await.unwrap();
        }
    }
}

async fn send_at(replica: &Replica, queue: &str, body: i32) {
    let request = dms_client::v1::SendMessagesRequest {
        project_id: crate::support::service::PROJECT.into(),
        queue_id: queue.into(),
        messages: vec![message(&body.to_string())],
        return_ids: false,
    };
    replica.messages.clone().send_messages(request).await.unwrap();
}

#[tokio::test]
async fn replicas_that_take_turns_move_the_rows_under_each_other() {
    let service = TestService::with(Settings { pool_connections: 4, ..Settings::default() }).await;
    let other = service.another_replica().await;
    for mode in [dms_client::v1::QueueMode::Normal, dms_client::v1::QueueMode::Fifo] {
        let queue = service.queue_of(&format!("queue-{mode:?}"), mode).await;
        let group = service.group(&queue, "group").await;
        take_turns(&service, &other, &group, 30).await;
        assert_eq!(service.counts(&group).await, [60, 60, 0, 0, 0]);
    }
    assert_gapless(&service).await;
    other.shutdown().await;
}

#[tokio::test]
async fn a_vacuum_that_moves_all_rows_harms_nothing() {
    let service = TestService::start().await;
    let other = service.another_replica().await;
    // Rows before the one in use, which go.
    for number in 0..20 {
        service.queue(&format!("before-{number}")).await;
    }
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let parked_queue = service.queue("parked").await;
    let parked = service.group(&parked_queue, "group").await;
    let consumer = parked.park_at(&service.replica, parked.consume_request(1)).await;
    let mut sql = service.sql().await;
    take_turns(&service, &other, &group, 4).await;
    for statement in [
        "DELETE FROM streams WHERE stream_id IN (SELECT stream_id FROM queues WHERE name LIKE 'before-%')",
        "VACUUM FULL streams",
        "VACUUM FULL subscriptions",
    ] {
        sql.execute(statement).await.unwrap();
        service.send(&queue, &["0"]).await;
        let batch = service.receive(&group, 10).await;
        assert_eq!(bodies(&batch), ["0"], "{statement}");
        service.ack(&group, &handlers(&batch, true)).await.unwrap();
    }
    sql.execute("VACUUM FULL streams").await.unwrap();
    sql.execute("VACUUM FULL subscriptions").await.unwrap();
    take_turns(&service, &other, &group, 4).await;
    assert_eq!(service.counts(&group).await, [19, 19, 0, 0, 0]);
    // Its row was read, and moved, while the consumer waited.
    send_at(&other, &parked_queue, 7).await;
    assert_eq!(bodies(&consumer.await.unwrap().unwrap()), ["7"]);
    assert_gapless(&service).await;
    other.shutdown().await;
}
