//! Section 1.14: resource tags of queues and the search by them.

use serde_json::{Value, json};

use crate::support::rest::{Rest, masked};
use crate::support::service::TestService;

async fn tags(rest: &Rest, queue: &str) -> Value {
    rest.get(&format!("/queue/{queue}/tags")).await.ok(200)["tags"].clone()
}

async fn add(rest: &Rest, queue: &str, key: &str, value: &str) {
    let body = json!({ "tag": { "key": key, "value": value } });
    assert_eq!(rest.post(&format!("/queue/{queue}/tags"), &body).await.ok(204), Value::Null);
}

async fn batch(rest: &Rest, queue: &str, action: &str, tags: Value) {
    let body = json!({ "action": action, "tags": tags });
    assert_eq!(rest.post(&format!("/queue/{queue}/tags/action"), &body).await.ok(204), Value::Null);
}

#[tokio::test]
async fn adding_is_idempotent_and_overwrites() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    assert_eq!(tags(&rest, &queue).await, json!([]));
    add(&rest, &queue, "DEV", "DEV1").await;
    add(&rest, &queue, "DEV", "DEV1").await;
    add(&rest, &queue, &"é".repeat(36), &"值".repeat(43)).await;
    add(&rest, &queue, "DEV", "").await;
    let expected = json!([{ "key": "DEV", "value": "" }, { "key": "é".repeat(36), "value": "值".repeat(43) }]);
    assert_eq!(tags(&rest, &queue).await, expected);
}

#[tokio::test]
async fn keys_in_a_path_are_decoded() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    for (key, path) in
        [("a b", "a%20b"), ("é:?#&", "%C3%A9%3A%3F%23%26"), ("action", "action"), ("+", "+"), ("%", "%25")]
    {
        add(&rest, &queue, key, "v").await;
        assert_eq!(tags(&rest, &queue).await, json!([{ "key": key, "value": "v" }]));
        assert_eq!(rest.delete(&format!("/queue/{queue}/tags/{path}")).await.ok(204), Value::Null, "{key}");
        let again = rest.delete(&format!("/queue/{queue}/tags/{path}")).await;
        assert_eq!(again.code(), (404, "DMS.10240426".into()), "{key}");
    }
    let empty = rest.delete(&format!("/queue/{queue}/tags/")).await;
    assert_eq!(empty.code(), (400, "DMS.10240035".into()));
}

#[tokio::test]
async fn a_batch_overwrites_and_deletes_by_key_or_by_key_and_value() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let tag = |key: &str, value: &str| json!({ "key": key, "value": value });
    batch(&rest, &queue, "create", json!([tag("a", "1"), tag("b", "2"), tag("c", "3"), tag("d", "4")])).await;
    batch(&rest, &queue, "create", json!([tag("b", "5"), { "key": "e" }])).await;
    let expected = json!([tag("a", "1"), tag("b", "5"), tag("c", "3"), tag("d", "4"), tag("e", "")]);
    assert_eq!(tags(&rest, &queue).await, expected);
    // By key, by key and value, a value that does not match, absent tags, one named twice.
    let gone = json!([{ "key": "a" }, tag("b", "5"), tag("c", "other"), { "key": "d", "value": null }, { "key": "x" }, { "key": "a" }]);
    batch(&rest, &queue, "delete", gone).await;
    assert_eq!(tags(&rest, &queue).await, json!([tag("c", "3"), tag("e", "")]));
}

#[tokio::test]
async fn a_queue_has_at_most_ten_tags() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let ten: Vec<Value> = (0..10).map(|key| json!({ "key": format!("k{key}"), "value": "v" })).collect();
    batch(&rest, &queue, "create", json!(ten)).await;
    let eleventh = rest.post(&format!("/queue/{queue}/tags"), &json!({ "tag": { "key": "k", "value": "" } })).await;
    assert_eq!(
        eleventh.error(),
        (400, "DMS.10240044".into(), "tags: '11 tags' is not at most 10 tags on one queue".into())
    );
    add(&rest, &queue, "k9", "changed").await;
    let tags = tags(&rest, &queue).await;
    assert_eq!((tags.as_array().unwrap().len(), &tags[9]), (10, &json!({ "key": "k9", "value": "changed" })));
}

#[tokio::test]
async fn project_tags_gather_the_values_of_all_queues() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    assert_eq!(rest.get("/queue/tags").await.ok(200), json!({ "tags": [] }));
    for (name, value) in [("one", "v2"), ("two", "v1"), ("three", "v1")] {
        let queue = rest.queue(&json!({ "name": name })).await;
        add(&rest, &queue, "key1", value).await;
        add(&rest, &queue, "key0", "").await;
    }
    let foreign = rest.at("v1.0", "another");
    let queue = foreign.queue(&json!({ "name": "one" })).await;
    add(&foreign, &queue, "key1", "foreign").await;
    let expected = json!({ "tags": [{ "key": "key0", "values": [""] }, { "key": "key1", "values": ["v1", "v2"] }] });
    assert_eq!(rest.get("/queue/tags").await.ok(200), expected);
}

/// Three queues: `red` with colour=red and size=1, `blue` with colour=blue and size=2, `bare` without tags.
async fn searched(rest: &Rest, service: &TestService) {
    for (name, size) in [("red", "1"), ("blue", "2")] {
        let queue = rest.queue(&json!({ "name": name })).await;
        add(rest, &queue, "colour", name).await;
        add(rest, &queue, "size", size).await;
        service.advance(1);
    }
    rest.queue(&json!({ "name": "bare" })).await;
}

#[tokio::test]
async fn a_search_filters_by_tags_and_name_and_counts() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    searched(&rest, &service).await;
    let colour = |values: &[&str]| json!([{ "key": "colour", "values": values }]);
    let either = json!([{ "key": "colour", "values": ["red"] }, { "key": "size", "values": ["2"] }]);
    let cases: [(Value, &[&str]); 13] = [
        (json!({}), &["red", "blue", "bare"]),
        (json!({ "tags": colour(&["red", "blue"]) }), &["red", "blue"]),
        (json!({ "tags": colour(&[]) }), &["red", "blue"]),
        (json!({ "tags": [{ "key": "colour" }] }), &["red", "blue"]),
        (json!({ "tags": either }), &[]),
        (json!({ "tags_any": either }), &["red", "blue"]),
        (json!({ "not_tags": either }), &["red", "blue", "bare"]),
        (json!({ "not_tags_any": either }), &["bare"]),
        (json!({ "tags_any": colour(&["red"]), "matches": [{ "key": "resource_name", "value": "E" }] }), &["red"]),
        (json!({ "matches": [{ "key": "resource_name", "value": "b" }] }), &["blue", "bare"]),
        (json!({ "limit": "1", "offset": "1" }), &["blue"]),
        (json!({ "limit": 2, "offset": 2 }), &["bare"]),
        (json!({ "limit": "", "offset": "", "tags": null, "matches": null }), &["red", "blue", "bare"]),
    ];
    for (mut body, expected) in cases {
        body["action"] = json!("filter");
        let found = rest.post("/queue/resource_instances/action", &body).await.ok(200);
        let names: Vec<&str> = found["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| found["resource_name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{body}");
        let total = if body.get("limit").is_some_and(|limit| limit != "") { 3 } else { expected.len() };
        assert_eq!(found["total_count"], json!(total), "{body}");
        body["action"] = json!("count");
        let counted = rest.post("/queue/resource_instances/action", &body).await.ok(200);
        assert_eq!(counted, json!({ "total_count": total }), "{body}");
    }
}

#[tokio::test]
async fn a_search_answers_in_the_documented_shape() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    searched(&rest, &service).await;
    let body = json!({ "action": "filter", "tags": [{ "key": "colour", "values": ["red"] }] });
    let found = rest.post("/queue/resource_instances/action", &body).await.ok(200);
    let tags = json!([{ "key": "colour", "value": "red" }, { "key": "size", "value": "1" }]);
    let resource = json!({ "resource_detail": null, "resource_id": "<id>", "resource_name": "red", "tags": tags });
    assert_eq!(masked(found), json!({ "resources": [resource], "total_count": 1 }));
}
