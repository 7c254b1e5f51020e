//! NORMAL and Kafka queues: failed and new messages share the deliveries of a group, so that neither waits for all of the other.

use bytes::BytesMut;
use dms::domain::clock::Clock as _;
use dms::domain::ids::{MessageId, StreamId};
use dms::domain::message::Message;
use dms::store::log::codec;
use dms::store::log::segments::{Append, append};
use dms_client::v1 as pb;
use pb::QueueMode::{Fifo, KafkaHa, KafkaHt, Normal};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _};
use uuid::Uuid;

use crate::support::prepared::statement;
use crate::support::rest::Rest;
use crate::support::service::{Group, Replica, TestService, bodies};

const POISON: &str = "\"poison\"";

/// Sends the numbers below this, ten a send.
async fn send_numbers(service: &TestService, queue: &str, count: usize) {
    let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    for batch in numbers.chunks(10) {
        service.send(queue, &batch.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

/// Acknowledges in the order of the batch, with failure where the body says so.
async fn work(service: &TestService, group: &Group, batch: &[pb::LeasedMessage]) {
    let bodies = bodies(batch);
    let entries: Vec<(&str, bool)> =
        batch.iter().zip(&bodies).map(|(message, body)| (message.handler.as_str(), !body.contains("poison"))).collect();
    service.ack(group, &entries).await.unwrap();
}

/// A group with poison that has failed once, and so many numbers that wait.
async fn poisoned(service: &TestService, mode: pb::QueueMode, numbers: usize) -> Group {
    let queue = service.queue_of(&format!("{mode:?}").to_lowercase(), mode).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &[POISON]).await;
    service.fail_next(&group, 1).await;
    send_numbers(service, &queue, numbers).await;
    group
}

fn every_second_is_new(order: &[String]) -> bool {
    order.windows(2).all(|pair| pair.iter().any(|body| body != POISON))
}

#[tokio::test]
async fn a_message_that_always_fails_is_every_second_delivery_at_most() {
    let service = TestService::start().await;
    for mode in [Normal, KafkaHa, KafkaHt] {
        let group = poisoned(&service, mode, 12).await;
        let mut order = Vec::new();
        for _ in 0..24 {
            let batch = service.take(&group, 1).await;
            work(&service, &group, &batch).await;
            order.extend(bodies(&batch));
        }
        assert!(every_second_is_new(&order), "{mode:?}: {order:?}");
        let new: Vec<&String> = order.iter().filter(|body| *body != POISON).collect();
        assert_eq!(new, (0..12).map(|number| number.to_string()).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        assert_eq!(bodies(&service.take(&group, 10).await), [POISON], "{mode:?}: it has not been forgotten");
    }
}

#[tokio::test]
async fn of_a_fifo_queue_the_failed_message_is_first() {
    let service = TestService::start().await;
    let group = poisoned(&service, Fifo, 3).await;
    for _ in 0..6 {
        let batch = service.take(&group, 1).await;
        assert_eq!(bodies(&batch), [POISON]);
        work(&service, &group, &batch).await;
    }
}

#[tokio::test]
async fn over_rest_it_is_the_same() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q", "queue_mode": "KAFKA_HA" })).await;
    rest.send_bodies(&queue, &[json!("poison"), json!(1), json!(2), json!(3)]).await;
    let mut order = Vec::new();
    for _ in 0..7 {
        let answer = rest.get(&format!("{group}/messages?max_msgs=1&time_wait=3")).await.ok(200);
        let body = answer[0]["message"]["body"].clone();
        let status = if body == json!("poison") { "fail" } else { "success" };
        rest.ack(&group, &[(answer[0]["handler"].as_str().unwrap(), status)]).await;
        order.push(body.to_string());
    }
    assert!(every_second_is_new(&order), "{order:?}");
    assert_eq!(order.iter().filter(|body| *body != POISON).count(), 3, "{order:?}");
}

#[tokio::test]
async fn ten_bad_messages_leave_half_of_each_batch_to_new_ones() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let bad: Vec<String> = (0..10).map(|number| format!("\"poison {number}\"")).collect();
    service.send(&queue, &bad.iter().map(String::as_str).collect::<Vec<_>>()).await;
    service.fail_next(&group, 10).await;
    send_numbers(&service, &queue, 30).await;
    let mut failed = Vec::new();
    for round in 0..6 {
        let batch = service.take(&group, 10).await;
        let seen = bodies(&batch);
        let numbers: Vec<String> = (5 * round..5 * round + 5).map(|number| number.to_string()).collect();
        // In front, so that whoever acknowledges in order meets no failure before them.
        assert_eq!(seen[..5], numbers);
        failed.extend_from_slice(&seen[5..]);
        work(&service, &group, &batch).await;
    }
    let in_turn: Vec<&String> = bad.iter().cycle().take(30).collect();
    assert_eq!(failed.iter().collect::<Vec<_>>(), in_turn, "the oldest failure first");
    assert_eq!(service.counts(&group).await, [40, 30, 10, 0, 0]);
}

#[tokio::test]
async fn dead_letters_share_the_deliveries_as_their_queue_does() {
    let service = TestService::start().await;
    for (mode, shares) in [(Normal, true), (Fifo, false)] {
        let queue = service.redrive_queue(&format!("{mode:?}").to_lowercase(), mode, 1).await;
        let group = service.group(&queue, "group").await;
        service.send(&queue, &[POISON, "1", "2", "3"]).await;
        service.fail_next(&group, 10).await;
        let mut order = Vec::new();
        for _ in 0..7 {
            let dead = service.take_dead_letters(&group, 1).await;
            let body = bodies(&dead).remove(0);
            service.ack_dead_letters(&group, &[(dead[0].handler.as_str(), body != POISON)]).await.unwrap();
            order.push(body);
        }
        let new = order.iter().filter(|body| *body != POISON).count();
        assert_eq!((every_second_is_new(&order), new), if shares { (true, 3) } else { (false, 0) }, "{order:?}");
    }
}

#[tokio::test]
async fn replicas_take_turns_as_one() {
    let service = TestService::start().await;
    let other = service.another_replica().await;
    let group = poisoned(&service, Normal, 30).await;
    let mut order = Vec::new();
    for call in 0..40 {
        // In no regular order: 0 1 1 0 1 0 0 1 ...
        let replica: &Replica = if i32::count_ones(call) % 2 == 0 { &service.replica } else { &other };
        let batch = group.receive_from(replica, 1).await;
        work(&service, &group, &batch).await;
        order.extend(bodies(&batch));
    }
    // A replica may hear a moment later that a message has failed, and then new ones come: never the other way round.
    assert!(every_second_is_new(&order), "{order:?}");
    assert!(order.iter().filter(|body| *body == POISON).count() >= 5, "{order:?}");
    other.shutdown().await;
}

const MANY: i64 = 20_000;

/// A group for which so many messages have failed, without the deliveries that it takes.
async fn many_failed(service: &TestService) -> Group {
    let queue = service.queue("many").await;
    let group = service.group(&queue, "group").await;
    let stream = StreamId(service.number("SELECT stream_id FROM subscriptions").await);
    let mut payload = BytesMut::new();
    for number in 0..MANY {
        let body = format!("\"poison {number}\"").into();
        let (id, attributes, tags) = (MessageId(Uuid::new_v4()), bytes::Bytes::new(), Vec::new());
        codec::encode(&Message { id, body, attributes, tags, dead_letter: None, trace: None }, &mut payload);
    }
    let message_count = i32::try_from(MANY).unwrap();
    let appends = [Append { stream, message_count, payload: payload.freeze() }];
    let mut sql = service.sql().await;
    append(&mut sql, &appends, service.clock.now()).await.unwrap();
    let fail = format!(
        "UPDATE subscriptions SET cursor_offset = {MANY};
         INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
         SELECT s.stream_id, s.subscription_id, n, 1, t.last_appended_at
         FROM subscriptions AS s JOIN streams AS t USING (stream_id), generate_series(0, {MANY} - 1) AS n ORDER BY n"
    );
    sql.execute(AssertSqlSafe(fail)).await.unwrap();
    group
}

#[tokio::test]
async fn twenty_thousand_failed_messages_hold_up_no_new_one_and_cost_no_more_than_a_few() {
    let service = TestService::start().await;
    let group = many_failed(&service).await;
    // Nothing dead can be removed meanwhile.
    let mut snapshot = service.sql().await;
    snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM retries").await.unwrap();
    let mut failed = 0;
    for round in 0..60 {
        service.send(&group.queue, &["1", "2", "3", "4", "5"]).await;
        let batch = service.take(&group, 10).await;
        let seen = bodies(&batch);
        assert_eq!(seen[..5], ["1", "2", "3", "4", "5"], "round {round}");
        for body in &seen[5..] {
            assert_eq!(*body, format!("\"poison {failed}\""), "the oldest failure first");
            failed += 1;
        }
        work(&service, &group, &batch).await;
    }
    assert_eq!(failed, 300);
    assert!(buffers_read(&service).await < 30, "the dead rows of those taken are not walked");
    snapshot.execute("ROLLBACK").await.unwrap();
}

/// Pages that a look for failed messages touches.
async fn buffers_read(service: &TestService) -> i64 {
    let mut sql = service.sql().await;
    sql.execute(AssertSqlSafe(format!("PREPARE failed AS {}", statement("retries::READ").text))).await.unwrap();
    let explain = "DO $$ DECLARE plan json; BEGIN
        EXECUTE (SELECT format('EXPLAIN (ANALYZE, BUFFERS, FORMAT json)
                                EXECUTE failed (ARRAY[%s]::bigint[], ARRAY[%s]::bigint[], ARRAY[%s]::bigint[], ARRAY[5]::bigint[])',
                               stream_id, subscription_id, retry_cursor) FROM subscriptions) INTO plan;
        PERFORM set_config('test.buffers', plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks', false);
        END $$";
    sql.execute(explain).await.unwrap();
    let buffers: String =
        sqlx::query_scalar("SELECT current_setting('test.buffers')").fetch_one(&mut sql).await.unwrap();
    buffers.parse().unwrap()
}
