//! Sections 1.1 to 1.4 and 1.11: queues and quotas, request and answer as documented.

use dms::domain::clock::Clock as _;
use serde_json::{Value, json};

use crate::support::rest::{Rest, masked};
use crate::support::service::TestService;

/// A queue of a list, without messages and groups.
fn listed(name: &str, mode: &str) -> Value {
    json!({
        "id": "<id>", "name": name, "description": "", "queue_mode": mode, "reservation": 4320, "created": "<ms>",
        "eff_date": "<ms>", "max_msg_size_byte": 524_288, "produced_messages": 0, "group_count": 0,
    })
}

fn with(mut object: Value, more: &Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

#[tokio::test]
async fn section_1_1_create_answers_with_id_and_name_and_kafka_queues_with_their_topic() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let full = json!({
        "name": "queue-001", "description": "This is a FIFO queue.", "queue_mode": "FIFO", "redrive_policy": "enable",
        "max_consume_count": 3,
    });
    let created = rest.post("/queues", &full).await.ok(201);
    assert_eq!(masked(created), json!({ "id": "<id>", "name": "queue-001" }));
    for mode in ["KAFKA_HA", "KAFKA_HT"] {
        let created =
            rest.post("/queues", &json!({ "name": mode, "queue_mode": mode, "retention_hours": 36 })).await.ok(201);
        let (id, topic) = (created["id"].as_str().unwrap(), created["kafka_topic"].as_str().unwrap());
        assert!(topic.ends_with(id), "{created}");
        assert_eq!(masked(created), json!({ "id": "<id>", "name": mode, "kafka_topic": "<topic>" }));
    }
}

#[tokio::test]
async fn section_1_1_the_ends_of_every_range_are_allowed() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let cases = [
        json!({ "name": "a" }),
        json!({ "name": "A-_9".repeat(16), "description": "é".repeat(160) }),
        json!({ "name": "one", "redrive_policy": "enable", "max_consume_count": 1 }),
        json!({ "name": "hundred", "redrive_policy": "enable", "max_consume_count": 100 }),
        json!({ "name": "hour", "queue_mode": "KAFKA_HA", "retention_hours": 1 }),
        json!({ "name": "days", "queue_mode": "KAFKA_HT", "retention_hours": 72 }),
        json!({ "name": "nulls", "queue_mode": null, "description": null, "redrive_policy": null,
                "max_consume_count": null, "retention_hours": null }),
        json!({ "name": "unused", "redrive_policy": "disable", "max_consume_count": 3 }),
    ];
    for case in cases {
        assert_eq!(masked(rest.post("/queues", &case).await.ok(201))["name"], case["name"]);
    }
}

#[tokio::test]
async fn section_1_2_list_shows_every_queue_by_creation() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    assert_eq!(rest.get("/queues").await.ok(200), json!({ "queues": [], "total": 0 }));
    rest.queue(&json!({ "name": "z", "redrive_policy": "enable", "max_consume_count": 80 })).await;
    service.advance(1);
    rest.queue(&json!({ "name": "y", "queue_mode": "FIFO" })).await;
    service.advance(1);
    rest.queue(&json!({ "name": "x", "queue_mode": "KAFKA_HA", "retention_hours": 36 })).await;
    let plain =
        [listed("z", "NORMAL"), listed("y", "FIFO"), with(listed("x", "KAFKA_HA"), &json!({ "reservation": 2160 }))];
    let expected = json!({ "queues": plain.clone(), "total": 3 });
    for path in [
        "/queues",
        "/queues?include_deadletter=false",
        "/queues?include_messages_num=true",
        "/queues?include_deadletter=",
    ] {
        assert_eq!(masked(rest.get(path).await.ok(200)), expected, "{path}");
    }
    let [z, y, x] = plain;
    let expected = [
        with(z, &json!({ "redrive_policy": "enable", "max_consume_count": 80 })),
        with(y, &json!({ "redrive_policy": "disable" })),
        x,
    ];
    let shown = rest.get("/queues?include_deadletter=true").await.ok(200);
    assert_eq!(masked(shown), json!({ "queues": expected, "total": 3 }));
}

#[tokio::test]
async fn section_1_3_show_is_the_same_object_and_kafka_queues_have_their_topic() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let millis = service.clock.now().0 / 1000;
    let settings =
        json!({ "name": "q", "description": "d \u{1f600}", "redrive_policy": "enable", "max_consume_count": 80 });
    let (queue, _group) = rest.queue_and_group(&settings).await;
    rest.send_bodies(&queue, &[json!(1), json!(2)]).await;
    let shown = rest.get(&format!("/queues/{queue}")).await.ok(200);
    assert_eq!((&shown["created"], &shown["eff_date"]), (&json!(millis), &json!(millis)));
    let counts = json!({ "description": "d \u{1f600}", "produced_messages": 2, "group_count": 1 });
    let expected = with(listed("q", "NORMAL"), &counts);
    assert_eq!(masked(shown), expected);
    let expected = with(expected, &json!({ "redrive_policy": "enable", "max_consume_count": 80 }));
    assert_eq!(masked(rest.get(&format!("/queues/{queue}?include_deadletter=true")).await.ok(200)), expected);
    let kafka = rest.queue(&json!({ "name": "k", "queue_mode": "KAFKA_HT" })).await;
    let expected = with(listed("k", "KAFKA_HT"), &json!({ "kafka_topic": "<topic>" }));
    assert_eq!(masked(rest.get(&format!("/queues/{kafka}?include_deadletter=true")).await.ok(200)), expected);
}

#[tokio::test]
async fn section_1_4_delete_takes_everything_in_the_queue_and_frees_its_name() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    rest.send_bodies(&queue, &[json!(1)]).await;
    assert_eq!(rest.delete(&format!("/queues/{queue}")).await.ok(204), Value::Null);
    for path in [format!("/queues/{queue}"), format!("/queues/{queue}/groups"), format!("{group}/messages")] {
        assert_eq!(rest.get(&path).await.code(), (404, "DMS.10240401".into()), "{path}");
    }
    assert_eq!(rest.delete(&format!("/queues/{queue}")).await.code(), (404, "DMS.10240401".into()));
    let (again, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    assert_ne!(again, queue);
    assert_eq!(rest.consume(&group).await.0, [Value::Null; 0]);
}

#[tokio::test]
async fn section_1_11_quotas_count_the_queues_of_the_project() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let quota = |used| json!({ "quotas": { "resources": [{ "type": "queue", "quota": 30, "used": used, "min": 0, "max": 500 }] } });
    assert_eq!(rest.get("/quotas/dms").await.ok(200), quota(0));
    let queue = rest.queue(&json!({ "name": "q" })).await;
    rest.at("v1.0", "another").queue(&json!({ "name": "q" })).await;
    assert_eq!(rest.get("/quotas/dms").await.ok(200), quota(1));
    rest.delete(&format!("/queues/{queue}")).await.ok(204);
    assert_eq!(rest.get("/quotas/dms").await.ok(200), quota(0));
}
