//! Sections 1.5 to 1.7: consumer groups, request and answer as documented.

use serde_json::{Value, json};

use crate::support::rest::{Rest, all, masked};
use crate::support::service::TestService;

fn names(answer: &Value) -> Vec<&str> {
    answer["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn section_1_5_create_answers_with_every_group_in_request_order() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let longest = "g".repeat(32);
    let body = json!({ "groups": [{ "name": "z-9" }, { "name": longest }, { "name": "_" }] });
    let created = rest.post(&format!("/queues/{queue}/groups"), &body).await.ok(201);
    let group = |name: &str| json!({ "id": "<group id>", "name": name });
    assert_eq!(masked(created), json!({ "groups": [group("z-9"), group(&longest), group("_")] }));
}

#[tokio::test]
async fn section_1_5_a_request_is_taken_whole_or_not_at_all() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    rest.group(&queue, "first").await;
    let path = format!("/queues/{queue}/groups");
    let cases = [
        (json!(["a", "b", "c"]), "DMS.10240019"),
        (json!(["a", "first"]), "DMS.10240018"),
        (json!(["a", "a"]), "DMS.10240018"),
        (json!(["a", "b b"]), "DMS.10240007"),
        (json!(["a", ""]), "DMS.10240012"),
    ];
    for (names, code) in cases {
        let groups: Vec<Value> = names.as_array().unwrap().iter().map(|name| json!({ "name": name })).collect();
        assert_eq!(rest.post(&path, &json!({ "groups": groups })).await.code(), (400, code.into()), "{names}");
    }
    assert_eq!(names(&rest.get(&path).await.ok(200)), ["first"]);
}

#[tokio::test]
async fn section_1_6_list_shows_the_queue_and_its_groups_with_counters() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let settings = json!({ "name": "q", "redrive_policy": "enable", "max_consume_count": 1 });
    let (queue, group) = rest.queue_and_group(&settings).await;
    rest.group(&queue, "other").await;
    rest.send_bodies(&queue, &[json!(1), json!(2), json!(3), json!(4)]).await;
    let (_, handlers) = rest.consume(&group).await;
    rest.ack(&group, &[(&handlers[0], "success"), (&handlers[1], "fail")]).await.ok(200);
    let counters = |name: &str, [produced, consumed, available]: [i64; 3]| {
        json!({
            "id": "<group id>", "name": name, "produced_messages": produced, "consumed_messages": consumed,
            "available_messages": available,
        })
    };
    let groups = json!([counters("billing", [4, 1, 2]), counters("other", [4, 0, 4])]);
    let path = format!("/queues/{queue}/groups");
    let expected = json!({ "queue_id": "<id>", "queue_name": "q", "groups": groups });
    assert_eq!(masked(rest.get(&path).await.ok(200)), expected);
    assert_eq!(masked(rest.get(&format!("{path}?include_messages_num=true")).await.ok(200)), expected);

    let uncounted = json!([counters("billing", [0, 0, 0]), counters("other", [0, 0, 0])]);
    let expected = json!({ "queue_id": "<id>", "queue_name": "q", "groups": uncounted });
    assert_eq!(masked(rest.get(&format!("{path}?include_messages_num=false")).await.ok(200)), expected);

    let mut groups = groups;
    for (index, dead) in [(0, 1), (1, 0)] {
        groups[index]["produced_deadletters"] = json!(dead);
        groups[index]["available_deadletters"] = json!(dead);
    }
    let expected = json!({ "queue_id": "<id>", "queue_name": "q", "groups": groups, "redrive_policy": "enable" });
    assert_eq!(masked(rest.get(&format!("{path}?include_deadletter=true")).await.ok(200)), expected);
}

#[tokio::test]
async fn section_1_6_pages_need_both_numbers() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    for name in ["a", "b", "c"] {
        rest.group(&queue, name).await;
    }
    let cases: [(&str, &[&str]); 11] = [
        ("page_size=2&current_page=1", &["a", "b"]),
        ("current_page=2&page_size=2", &["c"]),
        ("page_size=2&current_page=3", &[]),
        ("page_size=1&current_page=99999999999999", &[]),
        ("page_size=2", &["a", "b", "c"]),
        ("current_page=2", &["a", "b", "c"]),
        ("page_size=0&current_page=1", &["a", "b", "c"]),
        ("page_size=1&current_page=0", &["a", "b", "c"]),
        ("page_size=-1&current_page=1", &["a", "b", "c"]),
        ("page_size=x&current_page=1", &["a", "b", "c"]),
        ("page_size=&current_page=1", &["a", "b", "c"]),
    ];
    for (query, expected) in cases {
        let listed = rest.get(&format!("/queues/{queue}/groups?{query}")).await.ok(200);
        assert_eq!(names(&listed), expected, "{query}");
    }
}

#[tokio::test]
async fn section_1_7_delete_takes_the_dead_letters_and_leaves_the_messages_to_other_groups() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let settings = json!({ "name": "q", "redrive_policy": "enable", "max_consume_count": 1 });
    let (queue, group) = rest.queue_and_group(&settings).await;
    let other = rest.group(&queue, "other").await;
    rest.send_bodies(&queue, &[json!(1)]).await;
    let (_, handlers) = rest.consume(&group).await;
    rest.ack(&group, &all(&handlers, "fail")).await.ok(200);
    assert_eq!(rest.delete(&group).await.ok(204), Value::Null);
    for path in ["messages", "deadletters"] {
        let gone = rest.get(&format!("{group}/{path}?time_wait=1")).await;
        assert_eq!(gone.code(), (404, "DMS.10240405".into()), "{path}");
    }
    assert_eq!(rest.delete(&group).await.code(), (404, "DMS.10240405".into()));
    assert_eq!(rest.consume(&other).await.0, [json!(1)]);
    let again = rest.group(&queue, "billing").await;
    assert_eq!(rest.consume_dead_letters(&again).await.0, [Value::Null; 0]);
}
