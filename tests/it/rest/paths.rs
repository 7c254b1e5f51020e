//! Section 1 of the contract: the table of endpoints, under `/v1.0` and its `/v2` twin.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService};

/// A row of the table: its number, method and path, a body to send, the status of success.
pub(crate) type Row = (u8, &'static str, &'static str, &'static str, u16);

/// In an order in which each row works on what the ones before have left. `{quotas}` is where the versions differ.
pub(crate) const TABLE: [Row; 19] = [
    (1, "POST", "/queues", r#"{"name":"orders","redrive_policy":"enable","max_consume_count":1}"#, 201),
    (2, "GET", "/queues?include_deadletter=true&include_messages_num=true", "", 200),
    (3, "GET", "/queues/{queue}?include_deadletter=true", "", 200),
    (5, "POST", "/queues/{queue}/groups", r#"{"groups":[{"name":"billing"}]}"#, 201),
    (6, "GET", "/queues/{queue}/groups?include_deadletter=true&page_size=10&current_page=1", "", 200),
    (8, "POST", "/queues/{queue}/messages", r#"{"messages":[{"body":1}]}"#, 201),
    (9, "GET", "/queues/{queue}/groups/{group}/messages?max_msgs=10&time_wait=60&ack_wait=300", "", 200),
    (10, "POST", "/queues/{queue}/groups/{group}/ack", r#"{"message":[{"handler":"{handler}","status":"fail"}]}"#, 200),
    (11, "GET", "{quotas}", "", 200),
    (12, "GET", "/queues/{queue}/groups/{group}/deadletters?max_msgs=10&time_wait=60&ack_wait=300", "", 200),
    (13, "POST", "/queues/{queue}/groups/{group}/deadletters/ack", r#"{"message":[{"handler":"{handler}"}]}"#, 200),
    (14, "POST", "/queue/{queue}/tags", r#"{"tag":{"key":"a","value":"b"}}"#, 204),
    (15, "DELETE", "/queue/{queue}/tags/a", "", 204),
    (16, "POST", "/queue/{queue}/tags/action", r#"{"action":"create","tags":[{"key":"c","value":"d"}]}"#, 204),
    (17, "GET", "/queue/{queue}/tags", "", 200),
    (18, "GET", "/queue/tags", "", 200),
    (19, "POST", "/queue/resource_instances/action", r#"{"action":"count","tags":[{"key":"c","values":["d"]}]}"#, 200),
    (7, "DELETE", "/queues/{queue}/groups/{group}", "", 204),
    (4, "DELETE", "/queues/{queue}", "", 204),
];

/// What the bodies of the table answer, by row, with ids left out.
fn essence(row: u8, answer: &Value) -> Value {
    match row {
        1 => answer["name"].clone(),
        2 => answer["total"].clone(),
        3 => answer["max_consume_count"].clone(),
        5 | 6 => answer["groups"][0]["name"].clone(),
        8 => answer["messages"][0]["state"].clone(),
        9 | 12 => answer[0]["message"]["body"].clone(),
        11 => answer["quotas"]["resources"][0]["used"].clone(),
        _ => answer.clone(),
    }
}

fn expected(row: u8) -> Value {
    match row {
        1 => json!("orders"),
        2 | 3 | 9 | 11 | 12 => json!(1),
        5 | 6 => json!("billing"),
        8 => json!(0),
        10 => json!({ "success": 0, "fail": 1 }),
        13 => json!({ "success": 1, "fail": 0 }),
        17 => json!({ "tags": [{ "key": "c", "value": "d" }] }),
        18 => json!({ "tags": [{ "key": "c", "values": ["d"] }] }),
        19 => json!({ "total_count": 1 }),
        _ => Value::Null,
    }
}

fn filled(text: &str, known: &BTreeMap<&str, String>) -> String {
    known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Sends every row; checks its status and the essence of its body.
pub(crate) async fn walk(rest: &Rest, quotas: &str) {
    let mut known = BTreeMap::from([("quotas", quotas.to_owned())]);
    for (row, method, path, body, status) in TABLE {
        let path = filled(path, &known);
        let body = (!body.is_empty()).then(|| filled(body, &known).into_bytes());
        let answer = rest.call(method.parse().unwrap(), &path, body).await;
        assert_eq!(answer.status, status, "row {row}: {method} {path}: {}", answer.text);
        let answer = answer.ok(status);
        assert_eq!(essence(row, &answer), expected(row), "row {row}: {answer}");
        let learned = match row {
            1 => ("queue", &answer["id"]),
            5 => ("group", &answer["groups"][0]["id"]),
            9 | 12 => ("handler", &answer[0]["handler"]),
            _ => continue,
        };
        known.insert(learned.0, learned.1.as_str().unwrap().to_owned());
    }
}

#[test]
fn the_table_has_every_row_once() {
    let rows: std::collections::BTreeSet<u8> = TABLE.iter().map(|row| row.0).collect();
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), (1..=19).collect::<Vec<_>>());
}

#[tokio::test]
async fn section_1_every_endpoint_answers_as_documented() {
    let service = TestService::start().await;
    walk(&Rest::new(&service.replica), "/quotas/dms").await;
}

#[tokio::test]
async fn section_1_every_endpoint_has_a_twin_under_v2() {
    let service = TestService::start().await;
    walk(&Rest::new(&service.replica).at("v2", PROJECT), "/quotas").await;
}

#[tokio::test]
async fn both_versions_show_the_same_queues() {
    let service = TestService::start().await;
    let first = Rest::new(&service.replica);
    let queue = first.queue(&json!({ "name": "orders" })).await;
    let second = first.at("v2", PROJECT);
    assert_eq!(
        second.get(&format!("/queues/{queue}")).await.ok(200),
        first.get(&format!("/queues/{queue}")).await.ok(200)
    );
    assert_eq!(second.get("/quotas/dms").await.ok(200), first.get("/quotas").await.ok(200));
}

#[tokio::test]
async fn paths_outside_the_table_are_not_found() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "orders" })).await;
    for path in ["", "/", "/queue", "/nothing", "/queues/a/b", "/queues/a/groups/b/messages/c", "/quotas/x"] {
        let path = path.replace('a', &queue);
        assert_eq!(rest.get(&path).await.code(), (404, "DMS.10240406".into()), "{path}");
    }
    for (version, project) in [("v1", PROJECT), ("v3", PROJECT), ("V2", PROJECT), ("", PROJECT)] {
        let (status, code, message) = rest.at(version, project).get("/queues").await.error();
        assert_eq!((status, code.as_str()), (404, "DMS.10240406"), "{version}");
        assert_eq!(message, format!("url: '/{version}/{project}/queues' is not a path of this API"));
    }
}

#[tokio::test]
async fn methods_outside_the_table_are_not_allowed_and_do_nothing() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "orders" })).await;
    rest.send_bodies(&queue, &[json!(1)]).await;
    let cases = [
        ("PUT", "/queues".to_owned(), "GET,HEAD,POST"),
        ("PATCH", format!("/queues/{queue}"), "GET,HEAD,DELETE"),
        ("DELETE", "/queues".to_owned(), "GET,HEAD,POST"),
        ("GET", group.clone(), "DELETE"),
        ("GET", format!("/queues/{queue}/messages"), "POST"),
        ("POST", format!("{group}/messages"), "GET"),
        ("DELETE", format!("{group}/messages"), "GET"),
        ("GET", format!("{group}/ack"), "POST"),
        ("POST", format!("{group}/deadletters"), "GET"),
        ("GET", format!("{group}/deadletters/ack"), "POST"),
        ("POST", "/quotas/dms".to_owned(), "GET,HEAD"),
        ("POST", "/queue/tags".to_owned(), "GET,HEAD"),
        ("GET", "/queue/resource_instances/action".to_owned(), "POST"),
        ("PUT", format!("/queue/{queue}/tags"), "GET,HEAD,POST"),
        ("GET", format!("/queue/{queue}/tags/key"), "DELETE"),
    ];
    for (method, path, allowed) in cases {
        let answer = rest.call(method.parse().unwrap(), &path, None).await;
        assert_eq!(answer.code(), (405, "DMS.00405001".into()), "{method} {path}");
        let mut methods: Vec<&str> = answer.headers["allow"].to_str().unwrap().split(',').collect();
        let mut expected: Vec<&str> = allowed.split(',').collect();
        methods.sort_unstable();
        expected.sort_unstable();
        assert_eq!(methods, expected, "{method} {path}");
    }
    // A HEAD that took messages would lose them: nobody gets their handlers.
    let head = rest.call(Method::HEAD, &format!("{group}/messages"), None).await;
    assert_eq!((head.status, head.text.as_str()), (405, ""));
    assert_eq!(rest.consume(&group).await.0, [json!(1)]);
}
