//! Section 5 of the contract: what real clients need of a server, sentence by sentence.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::rest::{Rest, all, text};
use crate::support::service::{PROJECT, TestService};
use crate::support::wire::Wire;

async fn start() -> (TestService, Rest, String, String) {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    (service, rest, queue, group)
}

#[tokio::test]
async fn a_queue_asked_for_by_its_name_is_no_server_error() {
    let (_service, rest, ..) = start().await;
    assert_eq!(rest.get("/queues/q").await.code(), (400, "DMS.10240015".into()));
}

#[tokio::test]
async fn unknown_keys_of_bodies_and_queries_are_tolerated() {
    let (_service, rest, queue, group) = start().await;
    let body = json!({ "name": "other", "limit": 1, "": {}, "Name": 5, "nested": [[{}]] });
    rest.post("/queues", &body).await.ok(201);
    rest.post(&format!("/queues/{queue}/groups"), &json!({ "groups": [{ "name": "g", "id": 1 }], "x": 1 }))
        .await
        .ok(201);
    let body = json!({ "messages": [{ "body": 1, "priority": 9 }], "ttl": 1 });
    rest.post(&format!("/queues/{queue}/messages"), &body).await.ok(201);
    let listed = rest.get("/queues?limit=1&marker=x&include_deadletter=False").await.ok(200);
    assert_eq!(listed["total"], json!(2));
    let taken = rest.get(&format!("{group}/messages?foo=bar&max_msgs=5&=&&x")).await.ok(200);
    let handler = &taken[0]["handler"];
    let acked =
        rest.post(&format!("{group}/ack"), &json!({ "message": [{ "handler": handler, "id": 5 }], "y": null })).await;
    assert_eq!(acked.ok(200), json!({ "success": 1, "fail": 0 }));
}

#[tokio::test]
async fn both_spellings_are_taken_on_both_versions() {
    let (service, rest, queue, group) = start().await;
    for version in ["v1.0", "v2"] {
        let rest = rest.at(version, PROJECT);
        for (flag, delay) in [("returnId", "delayTime"), ("return_id", "delay_time"), ("returnId", "delay_time")] {
            let body = json!({ flag: true, "messages": [{ "body": delay, delay: 5000 }] });
            let sent = rest.post(&format!("/queues/{queue}/messages"), &body).await.ok(201);
            assert_eq!(text(&sent["messages"][0]["id"]).len(), 36);
            assert_eq!(rest.consume(&group).await.0, [Value::Null; 0], "{version} {delay}");
            service.advance(5);
            let taken = rest.get(&format!("{group}/messages?time_wait=20")).await.ok(200);
            assert_eq!(taken[0]["message"]["body"], json!(delay), "{version}");
            rest.ack(&group, &[(taken[0]["handler"].as_str().unwrap(), "success")]).await.ok(200);
        }
    }
}

#[tokio::test]
async fn an_empty_query_value_counts_as_absent_and_keys_come_in_any_order() {
    let (_service, rest, queue, group) = start().await;
    rest.send_messages(&queue, &json!([{ "body": 1, "tags": ["a", "b"] }])).await;
    let query = "tag_type=&ack_wait=&tag=&time_wait=&max_msgs=";
    let (bodies, handlers) = {
        let taken = rest.get(&format!("{group}/messages?{query}")).await.ok(200);
        (taken[0]["message"]["body"].clone(), vec![text(&taken[0]["handler"])])
    };
    assert_eq!(bodies, json!(1));
    rest.ack(&group, &all(&handlers, "fail")).await.ok(200);
    let bound = rest.group(&queue, "bound").await;
    let query = "tag_type=and&time_wait=60&tag=b&max_msgs=1&tag=a&ack_wait=300";
    let taken = rest.get(&format!("{bound}/messages?{query}")).await.ok(200);
    assert_eq!(taken.as_array().unwrap().len(), 1);
    // The same rule in another order.
    let again = rest.get(&format!("{bound}/messages?tag=a&tag=b&tag_type=and&time_wait=1")).await.ok(200);
    assert_eq!(again, json!([]));
}

#[tokio::test]
async fn credentials_of_every_kind_are_accepted() {
    let (_service, rest, ..) = start().await;
    let signature = "SDK-HMAC-SHA256 Access=AK, SignedHeaders=content-type;host;user-agent;x-project-id;x-sdk-date, \
                     Signature=c0ffee";
    let headers = [
        [("X-Auth-Token", "MIIEow=="), ("Content-Type", "application/json")],
        [("Authorization", signature), ("X-Sdk-Date", "20260101T000000Z")],
        [("X-Project-Id", PROJECT), ("User-Agent", "huaweicloud-usdk-python/3.0")],
    ];
    for pair in headers {
        let request = pair
            .iter()
            .fold(rest.request(Method::GET, "/queues"), |request, (name, value)| request.header(*name, *value));
        assert_eq!(rest.send(request).await.ok(200)["total"], json!(1), "{pair:?}");
    }
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own_or_the_callers() {
    let (_service, rest, ..) = start().await;
    let mut seen = std::collections::BTreeSet::new();
    for path in ["/queues", "/queues/x", "/nothing", "/queues?include_deadletter=x"] {
        let answer = rest.get(path).await;
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() == 36 && seen.insert(id), "{path}");
    }
    for (given, kept) in
        [("abc_DEF-1", true), ("a b", false), ("", false), (&*"x".repeat(65), false), ("a<script>", false)]
    {
        let answer = rest.send(rest.request(Method::GET, "/queues").header("x-request-id", given)).await;
        assert_eq!(answer.headers["x-request-id"] == given, kept, "{given}");
    }
}

#[tokio::test]
async fn a_get_may_have_a_content_type_and_a_delete_a_content_length_of_zero() {
    let (service, _, queue, group) = start().await;
    let mut wire = Wire::open(&service.replica).await;
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: dms\r\nContent-Type: application/json\r\n");
    wire.send(format!("{}\r\n", head(&format!("GET /v1.0/{PROJECT}/queues/{queue}")))).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    wire.send(format!("{}Content-Length: 0\r\n\r\n", head(&format!("DELETE /v1.0/{PROJECT}{group}")))).await;
    let deleted = wire.answer().await.unwrap();
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(deleted.header("content-length"), None);
    // Some send a body where none belongs.
    wire.send(format!("{}Content-Length: 2\r\n\r\n{{}}", head(&format!("GET /v1.0/{PROJECT}/queues")))).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn chunked_bodies_are_taken_on_a_connection_that_is_kept() {
    let (service, rest, queue, group) = start().await;
    let mut wire = Wire::open(&service.replica).await;
    let head = format!(
        "POST /v1.0/{PROJECT}/queues/{queue}/messages HTTP/1.1\r\nHost: dms\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for number in 1..=3 {
        wire.send(&head).await;
        // Cut in the middle of the JSON, with an extension and a trailer.
        wire.send(format!("0D;x=y\r\n{{\"messages\":[\r\nA\r\n{{\"body\":{number}}}\r\n")).await;
        wire.send("2\r\n]}\r\n0\r\nTrailer: x\r\n\r\n").await;
        let sent = wire.answer().await.unwrap();
        assert_eq!(sent.status, 201, "{}", sent.text());
    }
    assert_eq!(rest.consume(&group).await.0, [json!(1), json!(2), json!(3)]);
}

#[tokio::test]
async fn any_content_type_will_do() {
    let (_service, rest, queue, _) = start().await;
    for kind in ["application/json;charset=utf-8", "text/plain", "application/octet-stream", "nonsense"] {
        let request = rest.request(Method::POST, &format!("/queues/{queue}/messages"));
        let request = request.header("content-type", kind).body(r#"{"messages":[{"body":1}]}"#);
        assert_eq!(rest.send(request).await.status, 201, "{kind}");
    }
}

#[tokio::test]
async fn what_was_written_is_read_at_once() {
    let (_service, rest, ..) = start().await;
    for number in 0..10 {
        let (queue, group) = rest.queue_and_group(&json!({ "name": format!("q{number}") })).await;
        assert_eq!(rest.get(&format!("/queues/{queue}")).await.ok(200)["group_count"], json!(1));
        rest.send_bodies(&queue, &[json!(number)]).await;
        let listed = rest.get(&format!("/queues/{queue}/groups")).await.ok(200);
        assert_eq!(listed["groups"][0]["available_messages"], json!(1));
        let (bodies, handlers) = rest.consume(&group).await;
        assert_eq!(bodies, [json!(number)]);
        rest.ack(&group, &all(&handlers, "success")).await.ok(200);
        let listed = rest.get(&format!("/queues/{queue}/groups")).await.ok(200);
        assert_eq!(listed["groups"][0]["consumed_messages"], json!(1));
    }
}
