//! What another project owns is not found, in the words for what does not exist at all.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::rest::{Rest, ack_body, all};
use crate::support::service::TestService;

#[tokio::test]
async fn ids_of_another_project_are_answered_like_unknown_ones() {
    let service = TestService::start().await;
    let owner = Rest::new(&service.replica);
    let settings = json!({ "name": "q", "redrive_policy": "enable", "max_consume_count": 1 });
    let (queue, group) = owner.queue_and_group(&settings).await;
    owner.send_bodies(&queue, &[json!(1)]).await;
    let (_, handlers) = owner.consume(&group).await;
    owner.post(&format!("/queue/{queue}/tags"), &json!({ "tag": { "key": "k", "value": "v" } })).await.ok(204);
    let ack = ack_body(&all(&handlers, "success"));
    let calls = [
        ("GET", "/queues/{queue}", Value::Null),
        ("DELETE", "/queues/{queue}", Value::Null),
        ("POST", "/queues/{queue}/groups", json!({ "groups": [{ "name": "g" }] })),
        ("GET", "/queues/{queue}/groups", Value::Null),
        ("DELETE", "{group}", Value::Null),
        ("POST", "/queues/{queue}/messages", json!({ "messages": [{ "body": 1 }] })),
        ("GET", "{group}/messages?time_wait=1", Value::Null),
        ("POST", "{group}/ack", ack.clone()),
        ("GET", "{group}/deadletters?time_wait=1", Value::Null),
        ("POST", "{group}/deadletters/ack", ack.clone()),
        ("POST", "/queue/{queue}/tags", json!({ "tag": { "key": "k", "value": "w" } })),
        ("DELETE", "/queue/{queue}/tags/k", Value::Null),
        ("POST", "/queue/{queue}/tags/action", json!({ "action": "delete", "tags": [{ "key": "k" }] })),
        ("GET", "/queue/{queue}/tags", Value::Null),
    ];
    let stranger = owner.at("v1.0", "stranger");
    let unknown = Uuid::new_v4().to_string();
    for (method, path, body) in calls {
        let ask = async |queue: &str, group: &str| {
            let path = path.replace("{queue}", queue).replace("{group}", group);
            let body = (!body.is_null()).then(|| body.to_string().into_bytes());
            stranger.call(method.parse().unwrap(), &path, body).await.error()
        };
        let (status, code, message) = ask(&queue, &group).await;
        assert_eq!((status, code.as_str()), (404, "DMS.10240401"), "{method} {path}");
        assert_eq!(message, format!("queue_id: no queue {queue} in this project"), "{method} {path}");
        let absent = ask(&unknown, &group.replace(&queue, &unknown)).await;
        assert_eq!(absent, (404, code, message.replace(&queue, &unknown)), "{method} {path}");
    }
    assert_eq!(stranger.get("/queues").await.ok(200)["total"], json!(0));
    assert_eq!(stranger.get("/queue/tags").await.ok(200), json!({ "tags": [] }));
    let search = json!({ "action": "count" });
    let counted = stranger.post("/queue/resource_instances/action", &search).await.ok(200);
    assert_eq!(counted, json!({ "total_count": 0 }));
    // Nothing of all that has touched the owner's things.
    assert_eq!(owner.get(&format!("/queue/{queue}/tags")).await.ok(200)["tags"], json!([{ "key": "k", "value": "v" }]));
    assert_eq!(owner.post(&format!("{group}/ack"), &ack).await.ok(200), json!({ "success": 1, "fail": 0 }));
}

#[tokio::test]
async fn a_group_of_another_queue_is_not_found_in_this_one() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (first, group) = rest.queue_and_group(&json!({ "name": "first" })).await;
    let second = rest.queue(&json!({ "name": "second" })).await;
    let mixed = group.replace(&first, &second);
    assert_eq!(rest.get(&format!("{mixed}/messages")).await.code(), (404, "DMS.10240405".into()));
    assert_eq!(rest.delete(&mixed).await.code(), (404, "DMS.10240405".into()));
    rest.delete(&group).await.ok(204);
}

#[tokio::test]
async fn a_handler_of_another_project_is_refused_and_stays_good_for_its_owner() {
    let service = TestService::start().await;
    let owner = Rest::new(&service.replica);
    let (queue, group) = owner.queue_and_group(&json!({ "name": "q" })).await;
    owner.send_bodies(&queue, &[json!(1)]).await;
    let (_, handlers) = owner.consume(&group).await;
    let stranger = owner.at("v1.0", "stranger");
    let (queue, own_group) = stranger.queue_and_group(&json!({ "name": "q" })).await;
    stranger.send_bodies(&queue, &[json!(2)]).await;
    assert_eq!(stranger.ack(&own_group, &all(&handlers, "fail")).await.code(), (400, "DMS.10540004".into()));
    assert_eq!(owner.ack(&group, &all(&handlers, "success")).await.ok(200), json!({ "success": 1, "fail": 0 }));
}
