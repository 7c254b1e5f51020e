//! Section 4 of the contract, rows 1 to 8, 19 and 28: acknowledgements, leases, dead letters, delays.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::rest::{Rest, ack_body, all};
use crate::support::service::TestService;

const NOTHING: [Value; 0] = [];

fn counts(success: i32, fail: i32) -> Value {
    json!({ "success": success, "fail": fail })
}

async fn start(settings: Value, bodies: &[i32]) -> (TestService, Rest, String, String) {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&settings).await;
    let bodies: Vec<Value> = bodies.iter().map(|body| json!(body)).collect();
    if !bodies.is_empty() {
        rest.send_bodies(&queue, &bodies).await;
    }
    (service, rest, queue, group)
}

#[tokio::test]
async fn row_1_a_missing_ack_status_is_success_and_an_unknown_one_an_error() {
    let (_service, rest, _, group) = start(json!({ "name": "q" }), &[1, 2, 3]).await;
    let (_, handlers) = rest.consume(&group).await;
    let path = format!("{group}/ack");
    for status in [json!("SUCCESS"), json!("done"), json!(""), json!(1), json!(true), json!({}), json!([])] {
        let body = json!({ "message": [{ "handler": handlers[0] }, { "handler": handlers[1], "status": status }] });
        let (http, code, message) = rest.post(&path, &body).await.error();
        assert_eq!((http, code.as_str()), (400, "DMS.10540003"), "{status}");
        assert!(
            message.starts_with("message[1].status: '") && message.ends_with("is not 'success' or 'fail'"),
            "{message}"
        );
    }
    let body = json!({ "message": [{ "handler": handlers[0] }, { "handler": handlers[1], "status": null }] });
    assert_eq!(rest.post(&path, &body).await.ok(200), counts(2, 0));
    assert_eq!(rest.ack(&group, &[(&handlers[2], "success")]).await.ok(200), counts(1, 0));
}

#[tokio::test]
async fn row_2_a_bad_first_handler_is_an_error_and_a_later_one_ends_the_prefix() {
    let (service, rest, queue, group) = start(json!({ "name": "q" }), &[1, 2, 3, 4]).await;
    let other = rest.group(&queue, "other").await;
    let (_, foreign) = rest.consume(&other).await;
    let (_, handlers) = rest.consume(&group).await;
    let invalid = (400, "DMS.10542209".to_owned());
    for bad in ["", "x", "eyJjZyI6Im1xcyJ9", &"A".repeat(56), &"A".repeat(100_000)] {
        assert_eq!(rest.ack(&group, &[(bad, "success"), (&handlers[0], "success")]).await.code(), invalid, "{bad:.60}");
    }
    let mismatch = rest.ack(&group, &[(&foreign[0], "success"), (&handlers[0], "success")]).await;
    assert_eq!(mismatch.code(), (400, "DMS.10540004".into()));
    // Nothing has been acknowledged so far.
    let entries = [(handlers[0].as_str(), "success"), ("x", "success"), (&handlers[1], "success")];
    let ended = rest.ack(&group, &entries).await;
    assert_eq!(ended.ok(200), counts(1, 2));
    let why = ended.headers["x-dms-invalid-handler"].to_str().unwrap();
    assert!(why.starts_with("message[1].handler: unparsable; give a handler"), "{why}");
    assert_eq!(rest.ack(&group, &[(&handlers[0], "success")]).await.code(), invalid, "acknowledged twice");
    let entries = [(handlers[2].as_str(), "success"), (&handlers[2], "success")];
    assert_eq!(rest.ack(&group, &entries).await.ok(200), counts(1, 1), "named twice");
    let entries = [(handlers[3].as_str(), "success"), (&foreign[1], "success")];
    assert_eq!(rest.ack(&group, &entries).await.ok(200), counts(1, 1), "the second of another group");
    service.advance(31);
    let late = rest.ack(&group, &[(&handlers[1], "success")]).await;
    assert_eq!(late.code(), invalid, "expired");
    assert!(late.error().2.starts_with("message[0].handler: its lease ended at 20"), "{}", late.error().2);
}

#[tokio::test]
async fn row_3_a_fifo_batch_in_flight_holds_back_the_rest_for_its_group_only() {
    let (service, rest, queue, group) = start(json!({ "name": "q", "queue_mode": "FIFO" }), &[1, 2]).await;
    let other = rest.group(&queue, "other").await;
    let one = rest.get(&format!("{group}/messages?max_msgs=1")).await.ok(200);
    let asked = Instant::now();
    assert_eq!(rest.get(&format!("{group}/messages?time_wait=1")).await.ok(200), json!([]));
    assert!(asked.elapsed() >= Duration::from_millis(950), "{:?}", asked.elapsed());
    assert_eq!(rest.consume(&other).await.0, [json!(1), json!(2)]);
    rest.ack(&group, &[(one[0]["handler"].as_str().unwrap(), "success")]).await.ok(200);
    assert_eq!(rest.consume(&group).await.0, [json!(2)]);
    service.advance(31);
    assert_eq!(rest.consume(&group).await.0, [json!(2)]);
}

#[tokio::test]
async fn row_4_the_tail_of_a_partial_ack_keeps_its_lease_and_the_tail_of_a_fail_comes_at_once() {
    let (service, rest, queue, group) = start(json!({ "name": "q" }), &[1, 2, 3]).await;
    let (_, handlers) = rest.consume(&group).await;
    assert_eq!(rest.ack(&group, &all(&handlers[..1], "success")).await.ok(200), counts(1, 0));
    assert_eq!(rest.consume(&group).await.0, NOTHING);
    service.advance(31);
    let (bodies, handlers) = rest.consume(&group).await;
    assert_eq!(bodies, [json!(2), json!(3)]);
    assert_eq!(rest.ack(&group, &[(&handlers[0], "fail"), (&handlers[1], "success")]).await.ok(200), counts(0, 2));
    let (bodies, handlers) = rest.consume(&group).await;
    assert_eq!(bodies, [json!(2), json!(3)], "in order");
    assert_eq!(rest.ack(&group, &all(&handlers, "success")).await.ok(200), counts(2, 0));
    // All with success, but not in order of delivery: all are acknowledged.
    rest.send_bodies(&queue, &[json!(4), json!(5), json!(6)]).await;
    let (_, mut handlers) = rest.consume(&group).await;
    handlers.reverse();
    assert_eq!(rest.ack(&group, &all(&handlers, "success")).await.ok(200), counts(3, 0));
}

#[tokio::test]
async fn row_5_a_message_behind_a_failed_one_has_used_an_attempt_too() {
    let settings = json!({ "name": "q", "queue_mode": "FIFO", "redrive_policy": "enable", "max_consume_count": 2 });
    let (_service, rest, _, group) = start(settings, &[1, 2]).await;
    for _ in 0..2 {
        let (bodies, handlers) = rest.consume(&group).await;
        assert_eq!(bodies, [json!(1), json!(2)]);
        let entries = [(handlers[0].as_str(), "fail"), (&handlers[1], "success")];
        assert_eq!(rest.ack(&group, &entries).await.ok(200), counts(0, 2));
    }
    assert_eq!(rest.consume(&group).await.0, NOTHING);
    assert_eq!(rest.consume_dead_letters(&group).await.0, [json!(1), json!(2)]);
}

#[tokio::test]
async fn row_6_a_message_is_a_dead_letter_with_its_last_failure_by_ack_or_by_time() {
    let settings = json!({ "name": "q", "redrive_policy": "enable", "max_consume_count": 3 });
    let (service, rest, _, group) = start(settings, &[1]).await;
    for failure in ["fail", "late", "fail"] {
        assert_eq!(rest.consume_dead_letters(&group).await.0, NOTHING);
        let (bodies, handlers) = rest.consume(&group).await;
        assert_eq!(bodies, [json!(1)]);
        match failure {
            "late" => service.advance(31),
            _ => assert_eq!(rest.ack(&group, &all(&handlers, "fail")).await.ok(200), counts(0, 1)),
        }
    }
    assert_eq!(rest.consume_dead_letters(&group).await.0, [json!(1)], "in the same instant");
    service.advance(31);
    assert_eq!(rest.consume(&group).await.0, NOTHING, "never a fourth time");
    assert_eq!(rest.consume_dead_letters(&group).await.0, [json!(1)], "once");
}

#[tokio::test]
async fn row_7_a_dead_lettered_head_of_a_fifo_queue_lets_the_rest_pass() {
    let settings = json!({ "name": "q", "queue_mode": "FIFO", "redrive_policy": "enable", "max_consume_count": 1 });
    let (service, rest, _, group) = start(settings, &[1, 2]).await;
    rest.get(&format!("{group}/messages?max_msgs=1")).await.ok(200);
    service.advance(31);
    let (bodies, handlers) = rest.consume(&group).await;
    assert_eq!(bodies, [json!(2)]);
    rest.ack(&group, &all(&handlers, "success")).await.ok(200);
    assert_eq!(rest.consume_dead_letters(&group).await.0, [json!(1)]);
}

#[tokio::test]
async fn row_8_no_dead_letters_without_redrive_and_an_error_for_kafka_queues() {
    let (service, rest, _, group) = start(json!({ "name": "q" }), &[1]).await;
    for _ in 0..3 {
        let (bodies, handlers) = rest.consume(&group).await;
        assert_eq!(bodies, [json!(1)]);
        rest.ack(&group, &all(&handlers, "fail")).await.ok(200);
    }
    let asked = Instant::now();
    assert_eq!(rest.consume_dead_letters(&group).await.0, NOTHING);
    assert!(asked.elapsed() >= Duration::from_millis(950), "{:?}", asked.elapsed());
    let (_, handlers) = rest.consume(&group).await;
    let acked = rest.post(&format!("{group}/deadletters/ack"), &ack_body(&all(&handlers, "success"))).await;
    assert_eq!(acked.code(), (400, "DMS.10540004".into()));
    for mode in ["KAFKA_HA", "KAFKA_HT"] {
        let (queue, group) = rest.queue_and_group(&json!({ "name": mode, "queue_mode": mode })).await;
        let (http, code, message) = rest.get(&format!("{group}/deadletters?time_wait=1")).await.error();
        assert_eq!((http, code.as_str()), (400, "DMS.10540010"), "{mode}");
        assert_eq!(message, format!("queue_id: queue {queue} is a Kafka queue and has no dead letters"));
        let body = ack_body(&all(&handlers, "success"));
        let acked = rest.post(&format!("{group}/deadletters/ack"), &body).await;
        assert_eq!(acked.code(), (400, "DMS.10540010".into()), "{mode}");
    }
    drop(service);
}

#[tokio::test]
async fn row_19_a_long_lease_lasts_longer_than_a_minute() {
    let (service, rest, _, group) = start(json!({ "name": "q" }), &[1]).await;
    let taken = rest.get(&format!("{group}/messages?ack_wait=300")).await.ok(200);
    service.advance(299);
    assert_eq!(rest.ack(&group, &[(taken[0]["handler"].as_str().unwrap(), "success")]).await.ok(200), counts(1, 0));
}

#[tokio::test]
async fn row_28_a_delayed_message_does_not_hold_up_later_ones() {
    for mode in ["NORMAL", "FIFO"] {
        let (service, rest, queue, group) = start(json!({ "name": "q", "queue_mode": mode }), &[]).await;
        let messages = json!([
            { "body": "week", "delay_time": 604_800_000 }, { "body": "cut", "delayTime": 6000.9 }, { "body": "now" },
            { "body": "zero", "delayTime": 0 }, { "body": "null", "delayTime": null },
        ]);
        rest.send_messages(&queue, &messages).await;
        let (bodies, handlers) = rest.consume(&group).await;
        assert_eq!(bodies, [json!("now"), json!("zero"), json!("null")], "{mode}");
        rest.ack(&group, &all(&handlers, "success")).await.ok(200);
        service.advance(5);
        assert_eq!(rest.consume(&group).await.0, NOTHING, "{mode}");
        service.advance(1);
        let taken = rest.get(&format!("{group}/messages?time_wait=20")).await.ok(200);
        assert_eq!(taken[0]["message"]["body"], json!("cut"), "{mode}");
        rest.ack(&group, &[(taken[0]["handler"].as_str().unwrap(), "success")]).await.ok(200);
        service.advance(604_794);
        let taken = rest.get(&format!("{group}/messages?time_wait=20")).await.ok(200);
        assert_eq!(taken[0]["message"]["body"], json!("week"), "{mode}");
    }
}
