//! Section 4 of the contract, rows 9 to 18 and 20 to 27: queues, sends, shapes. `decisions_acks` has the others.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::rest::{Rest, text};
use crate::support::service::TestService;

async fn start() -> (TestService, Rest) {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    (service, rest)
}

async fn refused(rest: &Rest, path: &str, body: Value) -> (u16, String, String) {
    rest.post(path, &body).await.error()
}

fn bad_request(code: &str, message: &str) -> (u16, String, String) {
    (400, code.to_owned(), message.to_owned())
}

#[tokio::test]
async fn row_9_a_project_has_thirty_queues() {
    let (_service, rest) = start().await;
    for number in 1..=30 {
        rest.queue(&json!({ "name": format!("q{number}") })).await;
    }
    let (status, code, message) = refused(&rest, "/queues", json!({ "name": "q31" })).await;
    assert_eq!((status, code.as_str()), (400, "DMS.10240020"));
    assert!(message.contains("quota of 30 queues"), "{message}");
    assert_eq!(rest.get("/quotas/dms").await.ok(200)["quotas"]["resources"][0]["used"], json!(30));
}

#[tokio::test]
async fn row_10_a_list_always_counts_messages() {
    let (_service, rest) = start().await;
    let queue = rest.queue(&json!({ "name": "q" })).await;
    rest.send_bodies(&queue, &[json!(1), json!(2)]).await;
    for query in ["", "?include_messages_num=false", "?include_messages_num=true"] {
        let listed = rest.get(&format!("/queues{query}")).await.ok(200);
        assert_eq!(listed["queues"][0]["produced_messages"], json!(2), "{query}");
    }
}

#[tokio::test]
async fn row_11_a_disabled_redrive_policy_is_shown_without_a_count() {
    let (_service, rest) = start().await;
    let given = json!({ "name": "q", "redrive_policy": "disable", "max_consume_count": 5 });
    let queue = rest.queue(&given).await;
    let shown = rest.get(&format!("/queues/{queue}?include_deadletter=true")).await.ok(200);
    assert_eq!((&shown["redrive_policy"], shown.get("max_consume_count")), (&json!("disable"), None));
    let groups = rest.get(&format!("/queues/{queue}/groups?include_deadletter=true")).await.ok(200);
    assert_eq!(groups["redrive_policy"], json!("disable"));
}

#[tokio::test]
async fn row_12_times_are_numbers_of_milliseconds() {
    let (_service, rest) = start().await;
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let shown = rest.get(&format!("/queues/{queue}")).await.ok(200);
    assert!(shown["created"].as_i64().unwrap() > 1_700_000_000_000, "{shown}");
    assert_eq!(shown["eff_date"], shown["created"]);
}

#[tokio::test]
async fn row_13_eleven_messages_are_too_many() {
    let (_service, rest) = start().await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let path = format!("/queues/{queue}/messages");
    let messages = |count: usize| json!({ "messages": vec![json!({ "body": 1 }); count] });
    let expected = bad_request("DMS.10540010", "messages: '11 messages' is not 1-10 messages");
    assert_eq!(refused(&rest, &path, messages(11)).await, expected);
    let expected = bad_request("DMS.10540010", "messages: '0 messages' is not 1-10 messages");
    assert_eq!(refused(&rest, &path, messages(0)).await, expected);
    rest.post(&path, &messages(10)).await.ok(201);
    assert_eq!(rest.consume(&group).await.0.len(), 10);
}

#[tokio::test]
async fn row_14_an_oversized_request_is_refused_whole() {
    let (_service, rest) = start().await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let body = json!({ "messages": [{ "body": "small" }, { "body": "x".repeat(524_288) }] });
    let expected = "messages: size 524297 bytes is larger than the limit of 524288 bytes";
    assert_eq!(refused(&rest, &format!("/queues/{queue}/messages"), body).await, bad_request("DMS.10540011", expected));
    assert_eq!(rest.consume(&group).await.0, [Value::Null; 0]);
}

#[tokio::test]
async fn row_15_a_malformed_id_is_a_bad_request_and_an_unknown_one_not_found() {
    let (_service, rest) = start().await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    for id in ["q", &queue.replace('-', ""), &format!("{{{queue}}}"), &format!("g-{queue}"), "%00", "%27", "..%2F"] {
        let (status, code, message) = rest.get(&format!("/queues/{id}")).await.error();
        assert_eq!((status, code.as_str()), (400, "DMS.10240015"), "{id}");
        assert!(
            message.starts_with("queue_id: '") && message.ends_with("' is not a UUID of 36 characters"),
            "{message}"
        );
    }
    let unknown = Uuid::nil();
    let expected = (404, "DMS.10240401".to_owned(), format!("queue_id: no queue {unknown} in this project"));
    assert_eq!(rest.get(&format!("/queues/{unknown}")).await.error(), expected);
    let id = group.rsplit('/').next().unwrap();
    for id in ["billing", &id[2..], &id.replace("g-", "G-"), &format!("g-{id}")] {
        let answer = rest.get(&format!("/queues/{queue}/groups/{id}/messages")).await;
        assert_eq!(answer.code(), (400, "DMS.10240016".into()), "{id}");
    }
    let expected = (404, "DMS.10240405".to_owned(), format!("group_id: no group g-{unknown} in this queue"));
    assert_eq!(rest.get(&format!("/queues/{queue}/groups/g-{unknown}/messages")).await.error(), expected);
}

#[tokio::test]
async fn row_16_kafka_queues_take_messages_without_their_attributes() {
    let (_service, rest) = start().await;
    for mode in ["KAFKA_HA", "KAFKA_HT"] {
        let (queue, group) = rest.queue_and_group(&json!({ "name": mode, "queue_mode": mode })).await;
        let messages = json!([{ "body": { "a": 1 }, "attributes": { "lost": true }, "delayTime": 0 }]);
        rest.send_messages(&queue, &messages).await;
        let taken = rest.get(&format!("{group}/messages")).await.ok(200);
        assert_eq!(taken[0]["message"], json!({ "body": { "a": 1 }, "attributes": {} }), "{mode}");
        let delayed = json!({ "messages": [{ "body": 1, "delayTime": 1 }] });
        let expected = "messages.delayTime: kafka queue message could not have delayTime";
        assert_eq!(
            refused(&rest, &format!("/queues/{queue}/messages"), delayed).await,
            bad_request("DMS.10540010", expected)
        );
    }
}

#[tokio::test]
async fn rows_17_and_18_labels_are_an_array_and_absent_attributes_an_object() {
    let (_service, rest) = start().await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q", "queue_mode": "FIFO" })).await;
    let messages = json!([
        { "body": 1, "tags": ["a", "b"] }, { "body": 2 }, { "body": 3, "tags": null, "attributes": null },
        { "body": 4, "tags": [], "attributes": {} },
    ]);
    rest.send_messages(&queue, &messages).await;
    let taken = rest.get(&format!("{group}/messages")).await.ok(200);
    let messages: Vec<&Value> = taken.as_array().unwrap().iter().map(|taken| &taken["message"]).collect();
    assert_eq!(messages[0], &json!({ "body": 1, "attributes": {}, "tags": ["a", "b"] }));
    for (message, body) in messages[1..].iter().zip(2..) {
        assert_eq!(*message, &json!({ "body": body, "attributes": {} }));
    }
    let path = format!("/queues/{queue}/messages");
    for tags in [json!({ "a": 1 }), json!("a"), json!([1])] {
        let (status, code, message) = refused(&rest, &path, json!({ "messages": [{ "body": 1, "tags": tags }] })).await;
        assert_eq!((status, code.as_str()), (400, "DMS.10540001"), "{message}");
        assert!(message.ends_with("' is not an array of strings"), "{message}");
    }
}

#[tokio::test]
async fn rows_20_and_21_counts_and_hours_must_fit_the_queue() {
    let (_service, rest) = start().await;
    let cases = [
        (
            json!({ "redrive_policy": "enable" }),
            "DMS.10240022",
            "max_consume_count: missing; give an integer from 1 to 100",
        ),
        (
            json!({ "redrive_policy": "enable", "max_consume_count": 101 }),
            "DMS.10240022",
            "max_consume_count: '101' is not an integer from 1 to 100",
        ),
        (
            json!({ "retention_hours": 24 }),
            "DMS.10240028",
            "retention_hours: '24' is not allowed for NORMAL and FIFO queues",
        ),
        (
            json!({ "queue_mode": "FIFO", "retention_hours": 72 }),
            "DMS.10240028",
            "retention_hours: '72' is not allowed for NORMAL and FIFO queues",
        ),
    ];
    for (mut body, code, message) in cases {
        body["name"] = json!("q");
        assert_eq!(refused(&rest, "/queues", body).await, bad_request(code, message));
    }
    assert_eq!(rest.get("/queues").await.ok(200)["total"], json!(0));
}

#[tokio::test]
async fn row_22_a_kafka_queue_ignores_a_redrive_policy() {
    let (_service, rest) = start().await;
    for (name, redrive) in [
        ("a", json!({ "redrive_policy": "enable", "max_consume_count": 3 })),
        ("b", json!({ "redrive_policy": "enable" })),
    ] {
        let mut settings = redrive;
        settings["name"] = json!(name);
        settings["queue_mode"] = json!("KAFKA_HA");
        let queue = rest.queue(&settings).await;
        let shown = rest.get(&format!("/queues/{queue}?include_deadletter=true")).await.ok(200);
        assert_eq!((shown.get("redrive_policy"), shown.get("max_consume_count")), (None, None), "{name}");
    }
}

#[tokio::test]
async fn row_23_message_ids_are_uuids_in_order() {
    let (_service, rest) = start().await;
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let body = json!({ "returnId": true, "messages": [{ "body": 1 }, { "body": 2 }, { "body": 3 }] });
    let sent = rest.post(&format!("/queues/{queue}/messages"), &body).await.ok(201);
    let ids: Vec<Uuid> =
        sent["messages"].as_array().unwrap().iter().map(|sent| text(&sent["id"]).parse().unwrap()).collect();
    assert!(ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
}

#[tokio::test]
async fn row_24_an_empty_consume_is_an_empty_array() {
    let (_service, rest) = start().await;
    let (_, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let empty = rest.get(&format!("{group}/messages?time_wait=1")).await;
    assert_eq!((empty.status, empty.text.as_str()), (200, "[]"));
}

#[tokio::test]
async fn row_25_errors_have_a_code_a_message_and_a_request_id() {
    let (_service, rest) = start().await;
    let request = rest.request(reqwest::Method::GET, "/queues/x").header("X-Request-Id", "mine-42");
    let answer = rest.send(request).await;
    let expected = bad_request("DMS.10240015", "queue_id: 'x' is not a UUID of 36 characters");
    assert_eq!(answer.error(), expected);
    assert_eq!(answer.headers["x-request-id"], "mine-42");
}

#[tokio::test]
async fn row_26_an_invalid_tag_type_is_the_documented_500() {
    let (_service, rest) = start().await;
    let (_, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    for given in ["AND", "xor", "1"] {
        let answer = rest.get(&format!("{group}/messages?tag=a&tag_type={given}")).await;
        let message = format!("tag_type: '{given}' is not 'or' or 'and'");
        assert_eq!(answer.error(), (500, "DMS.10550035".into(), message));
    }
}

#[tokio::test]
async fn row_27_booleans_of_a_query_come_in_any_case() {
    let (_service, rest) = start().await;
    let queue = rest.queue(&json!({ "name": "q" })).await;
    for (given, shown) in
        [("True", true), ("TRUE", true), ("true", true), ("False", false), ("fALSE", false), ("", false)]
    {
        let queue = rest.get(&format!("/queues/{queue}?include_deadletter={given}")).await.ok(200);
        assert_eq!(queue.get("redrive_policy").is_some(), shown, "{given}");
    }
    let (status, code, message) = rest.get(&format!("/queues/{queue}?include_deadletter=1")).await.error();
    assert_eq!((status, code.as_str()), (400, "DMS.10540014"));
    assert_eq!(message, "include_deadletter: '1' is not true or false");
}
