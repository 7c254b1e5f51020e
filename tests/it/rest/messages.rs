//! Sections 1.8 to 1.10, 1.12 and 1.13: send, consume, acknowledge, dead letters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::rest::{Answer, Rest, ack_body, all, masked, text};
use crate::support::service::{PROJECT, TestService};

const LIMIT_BYTES: usize = 524_288;

async fn send(rest: &Rest, queue: &str, body: &Value) -> Answer {
    rest.post(&format!("/queues/{queue}/messages"), body).await
}

#[tokio::test]
async fn section_1_8_send_answers_one_element_for_each_message() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let messages = json!([
        { "body": "TEST11", "attributes": { "attribute1": "value1", "attribute2": "value2" } },
        { "body": { "foo": "test02" }, "attributes": { "attribute1": "value1" } },
    ]);
    let bare = json!({ "error": null, "error_code": null, "state": 0 });
    for flag in [json!({}), json!({ "returnId": false }), json!({ "return_id": null })] {
        let mut body = flag;
        body["messages"] = messages.clone();
        assert_eq!(send(&rest, &queue, &body).await.ok(201), json!({ "messages": [bare, bare] }));
    }
    let named = json!({ "error": null, "error_code": null, "state": 0, "id": "<id>" });
    for (flag, version) in [("returnId", "v1.0"), ("return_id", "v1.0"), ("returnId", "v2"), ("return_id", "v2")] {
        let rest = rest.at(version, PROJECT);
        let sent = send(&rest, &queue, &json!({ flag: true, "messages": messages })).await.ok(201);
        let ids: BTreeSet<String> = sent["messages"].as_array().unwrap().iter().map(|sent| text(&sent["id"])).collect();
        assert_eq!(ids.len(), 2);
        assert_eq!(masked(sent), json!({ "messages": [named, named] }));
    }
}

#[tokio::test]
async fn section_1_8_a_batch_may_be_as_large_as_the_limit_and_no_byte_larger() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    // Counted: the JSON text of the body with its quotes, of the attributes with theirs, and the labels.
    let message = |extra: usize| {
        let body = "b".repeat(LIMIT_BYTES - 2 - r#"{"a":"b"}"#.len() - "red".len() + extra);
        json!({ "messages": [{ "body": body, "attributes": { "a": "b" }, "tags": ["red"] }] })
    };
    assert_eq!(send(&rest, &queue, &message(1)).await.code(), (400, "DMS.10540011".into()));
    send(&rest, &queue, &message(0)).await.ok(201);
    let halves = |extra: usize| {
        let half = LIMIT_BYTES / 2 - 2;
        json!({ "messages": [{ "body": "a".repeat(half) }, { "body": "b".repeat(half + extra) }] })
    };
    assert_eq!(send(&rest, &queue, &halves(1)).await.code(), (400, "DMS.10540011".into()));
    send(&rest, &queue, &halves(0)).await.ok(201);
    // An answer has the same limit: the first message fills it.
    let (bodies, _) = rest.consume(&group).await;
    assert_eq!(bodies.iter().map(|body| text(body).len()).collect::<Vec<_>>(), [LIMIT_BYTES - 2 - 9 - 3]);
    let (bodies, _) = rest.consume(&group).await;
    assert_eq!(bodies.iter().map(|body| text(body).len()).collect::<Vec<_>>(), [LIMIT_BYTES / 2 - 2; 2]);
}

#[tokio::test]
async fn section_1_8_the_last_of_repeated_attributes_counts_for_json_readers() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let raw = r#"{"messages":[{"body":1,"attributes":{"a":1,"b":true,"a":"2"}}]}"#;
    rest.post_bytes(&format!("/queues/{queue}/messages"), raw).await.ok(201);
    let taken = rest.get(&format!("{group}/messages")).await.ok(200);
    assert_eq!(taken[0]["message"]["attributes"], json!({ "a": "2", "b": true }));
}

#[tokio::test]
async fn section_1_9_consume_answers_a_bare_array() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q", "queue_mode": "FIFO" })).await;
    let messages = json!([
        { "body": { "foo": "123=" }, "attributes": { "attribute1": "value1", "attribute2": "value2" } },
        { "body": "plain", "tags": ["red", "blue"] },
        { "body": null, "attributes": {}, "tags": [] },
    ]);
    rest.send_messages(&queue, &messages).await;
    let taken = rest.get(&format!("{group}/messages")).await.ok(200);
    let expected = json!([
        { "message": { "body": { "foo": "123=" }, "attributes": { "attribute1": "value1", "attribute2": "value2" } },
          "handler": "<handler>" },
        { "message": { "body": "plain", "attributes": {}, "tags": ["red", "blue"] }, "handler": "<handler>" },
        { "message": { "body": null, "attributes": {} }, "handler": "<handler>" },
    ]);
    assert_eq!(masked(taken), expected);
}

#[tokio::test]
async fn section_1_9_max_msgs_and_ack_wait_do_what_they_say() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let bodies: Vec<Value> = (0..10).map(|body| json!(body)).collect();
    rest.send_bodies(&queue, &bodies).await;
    let one = rest.get(&format!("{group}/messages?max_msgs=1&ack_wait=15")).await.ok(200);
    assert_eq!(one.as_array().unwrap().len(), 1);
    let rest_of_it = rest.get(&format!("{group}/messages?max_msgs=10&ack_wait=300")).await.ok(200);
    assert_eq!(rest_of_it.as_array().unwrap().len(), 9);
    service.advance(14);
    assert_eq!(rest.consume(&group).await.0, [Value::Null; 0]);
    service.advance(2);
    let (again, _) = rest.consume(&group).await;
    assert_eq!(again, [one[0]["message"]["body"].clone()]);
    service.advance(280);
    assert_eq!(rest.consume(&group).await.0.len(), 1, "the long lease still holds");
    service.advance(5);
    assert_eq!(rest.consume(&group).await.0.len(), 9);
}

#[tokio::test]
async fn section_1_9_labels_select_with_or_and_with_and() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let tagged = |body: i32, tags: Value| json!({ "body": body, "tags": tags });
    let messages =
        json!([tagged(1, json!(["a"])), tagged(2, json!(["b", "a"])), tagged(3, json!(["c"])), tagged(4, json!([]))]);
    rest.send_messages(&queue, &messages).await;
    let rules = [("tag=a&tag=b", [1, 2]), ("tag=b&tag_type=or&tag=c", [2, 3]), ("tag_type=and&tag=a&tag=b", [2, 0])];
    for (index, (rule, expected)) in rules.into_iter().enumerate() {
        let group = rest.group(&queue, &format!("group-{index}")).await;
        let taken = rest.get(&format!("{group}/messages?{rule}")).await.ok(200);
        let bodies: Vec<&Value> = taken.as_array().unwrap().iter().map(|taken| &taken["message"]["body"]).collect();
        let expected: Vec<Value> = expected.into_iter().filter(|body| *body > 0).map(Value::from).collect();
        assert_eq!(bodies, expected.iter().collect::<Vec<_>>(), "{rule}");
    }
}

#[tokio::test]
async fn section_1_10_the_first_n_are_acknowledged_and_the_last_m_are_not() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q", "queue_mode": "FIFO" })).await;
    rest.send_bodies(&queue, &[json!(1), json!(2), json!(3)]).await;
    let (_, handlers) = rest.consume(&group).await;
    let entries = [(handlers[0].as_str(), "success"), (&handlers[1], "fail"), (&handlers[2], "success")];
    assert_eq!(rest.ack(&group, &entries).await.ok(200), json!({ "success": 1, "fail": 2 }));
    let (bodies, handlers) = rest.consume(&group).await;
    assert_eq!(bodies, [json!(2), json!(3)]);
    let acked = rest.ack(&group, &all(&handlers, "success")).await.ok(200);
    assert_eq!(acked, json!({ "success": 2, "fail": 0 }));
}

#[tokio::test]
async fn sections_1_12_and_1_13_dead_letters_are_consumed_and_acknowledged_like_messages() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let settings = json!({ "name": "q", "queue_mode": "FIFO", "redrive_policy": "enable", "max_consume_count": 1 });
    let (queue, group) = rest.queue_and_group(&settings).await;
    rest.send_messages(&queue, &json!([{ "body": 1, "attributes": { "a": "b" }, "tags": ["red"] }, { "body": 2 }]))
        .await;
    let (_, handlers) = rest.consume(&group).await;
    assert_eq!(rest.ack(&group, &all(&handlers, "fail")).await.ok(200), json!({ "success": 0, "fail": 2 }));
    let dead = rest.get(&format!("{group}/deadletters?max_msgs=2&time_wait=60&ack_wait=15")).await.ok(200);
    let expected =
        json!({ "message": { "body": 1, "attributes": { "a": "b" }, "tags": ["red"] }, "handler": "<handler>" });
    let second = json!({ "message": { "body": 2, "attributes": {} }, "handler": "<handler>" });
    assert_eq!(masked(dead), json!([expected, second]));
    // Not acknowledged: consumable again, and no second-level dead letter, however often.
    for _ in 0..3 {
        service.advance(16);
        let (bodies, _) = rest.consume_dead_letters(&group).await;
        assert_eq!(bodies, [json!(1), json!(2)]);
        service.advance(31);
    }
    let (_, handlers) = rest.consume_dead_letters(&group).await;
    let body = ack_body(&all(&handlers, "success"));
    let acked = rest.post(&format!("{group}/deadletters/ack"), &body).await.ok(200);
    assert_eq!(acked, json!({ "success": 2, "fail": 0 }));
    service.advance(31);
    assert_eq!(rest.consume_dead_letters(&group).await.0, [Value::Null; 0]);
    assert_eq!(rest.consume(&group).await.0, [Value::Null; 0]);
    let again = rest.post(&format!("{group}/deadletters/ack"), &body).await;
    assert_eq!(again.code(), (400, "DMS.10542209".into()));
}
