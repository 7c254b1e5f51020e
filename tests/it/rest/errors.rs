//! Section 2 of the contract: the table of errors. Every code that this service produces, produced by a real request.

use std::collections::BTreeSet;

use dms::broker::Settings;
use dms::domain::ErrorKind;
use serde_json::{Value, json};

use crate::support::rest::{Rest, all};
use crate::support::service::TestService;

/// Status and code, method, path, body. Names in braces stand for what [`Scene`] has made.
type Case = (u16, &'static str, &'static str, &'static str, &'static str);

const TABLE: &[Case] = &[
    (400, "10240004", "POST", "{queue}/messages", r#"{"messages":[{"body":1,"tags":["a b"]}]}"#),
    (400, "10240004", "POST", "{queue}/messages", r#"{"messages":[{"body":1,"tags":["a","b","c","d"]}]}"#),
    (400, "10240004", "GET", "{group}/messages?tag=a%2Fb", ""),
    (400, "10240004", "GET", "{group}/messages?tag=a&tag=b&tag=c&tag=d", ""),
    (400, "10240007", "POST", "/queues", r#"{"name":"a b"}"#),
    (400, "10240007", "POST", "/queues", r#"{"name":5}"#),
    (400, "10240007", "POST", "{queue}/groups", r#"{"groups":[{"name":"ä"}]}"#),
    (400, "10240009", "POST", "/queues", "{"),
    (400, "10240009", "POST", "/queues", ""),
    (400, "10240009", "POST", "/queues", "[]"),
    (400, "10240009", "POST", "{queue}/groups", r#"{"groups":{}}"#),
    (400, "10240010", "POST", "/queues", r#"{"name":"n","description":"a<b"}"#),
    (400, "10240011", "POST", "/queues", r#"{"name":""}"#),
    (400, "10240011", "POST", "/queues", r#"{}"#),
    (400, "10240011", "POST", "/queues", r#"{"name":"{65}"}"#),
    (400, "10240012", "POST", "{queue}/groups", r#"{"groups":[{"name":"{33}"}]}"#),
    (400, "10240013", "POST", "/queues", r#"{"name":"n","description":"{161}"}"#),
    (400, "10240014", "GET", "{group}/messages?max_msgs=0", ""),
    (400, "10240014", "GET", "{group}/messages?max_msgs=11", ""),
    (400, "10240014", "GET", "{group}/deadletters?max_msgs=ten", ""),
    (400, "10240015", "GET", "/queues/not-a-uuid", ""),
    (400, "10240016", "DELETE", "{queue}/groups/{unknown}", ""),
    (400, "10240017", "POST", "/queues", r#"{"name":"taken"}"#),
    (400, "10240018", "POST", "{queue}/groups", r#"{"groups":[{"name":"billing"}]}"#),
    (400, "10240019", "POST", "{queue}/groups", r#"{"groups":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#),
    (400, "10240021", "GET", "{group}/messages?time_wait=0", ""),
    (400, "10240021", "GET", "{group}/messages?time_wait=61", ""),
    (400, "10240021", "GET", "{group}/deadletters?time_wait=1.5", ""),
    (400, "10240022", "POST", "/queues", r#"{"name":"n","redrive_policy":"enable"}"#),
    (400, "10240022", "POST", "/queues", r#"{"name":"n","redrive_policy":"enable","max_consume_count":0}"#),
    (400, "10240022", "POST", "/queues", r#"{"name":"n","redrive_policy":"enable","max_consume_count":101}"#),
    (400, "10240022", "POST", "/queues", r#"{"name":"n","redrive_policy":"enable","max_consume_count":"3"}"#),
    (400, "10240027", "POST", "/queues", r#"{"name":"n","queue_mode":"KAFKA_HA","retention_hours":73}"#),
    (400, "10240027", "POST", "/queues", r#"{"name":"n","queue_mode":"KAFKA_HT","retention_hours":0}"#),
    (400, "10240027", "POST", "/queues", r#"{"name":"n","queue_mode":"KAFKA_HT","retention_hours":1.5}"#),
    (400, "10240028", "POST", "/queues", r#"{"name":"n","retention_hours":1}"#),
    (400, "10240035", "POST", "{tags}", r#"{"tag":{"key":"","value":""}}"#),
    (400, "10240035", "POST", "{tags}", r#"{"tag":{"key":"{37}","value":""}}"#),
    (400, "10240036", "POST", "{tags}", r#"{"tag":{"key":"a=b","value":""}}"#),
    (400, "10240038", "POST", "{tags}", r#"{"tag":{"key":"a","value":"{44}"}}"#),
    (400, "10240039", "POST", "{tags}", r#"{"tag":{"key":"a","value":"\u0000"}}"#),
    (400, "10240040", "POST", "{tags}/action", r#"{"action":"update","tags":[{"key":"a"}]}"#),
    (400, "10240041", "POST", "/queue/resource_instances/action", r#"{"action":"list"}"#),
    (400, "10240042", "POST", "/queue/resource_instances/action", r#"{"action":"filter","limit":"1001"}"#),
    (400, "10240043", "POST", "/queue/resource_instances/action", r#"{"action":"filter","offset":"-1"}"#),
    (400, "10240044", "POST", "{tags}/action", r#"{"action":"create","tags":[{eleven}]}"#),
    (400, "10240045", "POST", "{tags}/action", r#"{"action":"create","tags":[{"key":"a"},{"key":"a"}]}"#),
    (400, "10540001", "POST", "{queue}/messages", r#"{"messages":[{}]}"#),
    (400, "10540001", "POST", "{queue}/messages", r#"{"messages":5}"#),
    (400, "10540001", "POST", "{group}/ack", r#"{"message":[{"status":"success"}]}"#),
    (400, "10540003", "POST", "{group}/ack", r#"{"message":[{"handler":"{handler}","status":"done"}]}"#),
    (400, "10540004", "POST", "{group}/ack", r#"{"message":[{"handler":"{foreign}"}]}"#),
    (400, "10540010", "POST", "{queue}/messages", r#"{"messages":[]}"#),
    (400, "10540010", "POST", "{queue}/messages", r#"{"messages":[{"body":1,"delayTime":604800001}]}"#),
    (400, "10540010", "POST", "{kafka}/messages", r#"{"messages":[{"body":1,"delayTime":1}]}"#),
    (400, "10540010", "POST", "/queues", r#"{"name":"n","queue_mode":"AMQP"}"#),
    (400, "10540011", "POST", "{queue}/messages", r#"{"messages":[{"body":"{524288}"}]}"#),
    (400, "10540012", "POST", "{queue}/messages", r#"{"messages":[{"body":1},]}"#),
    (400, "10540012", "POST", "{group}/ack", "handler=1"),
    (400, "10540014", "GET", "/queues?include_deadletter=yes", ""),
    (400, "10540014", "GET", "/queues?include_messages_num=1", ""),
    (400, "10542204", "GET", "{bound}/messages?tag=b", ""),
    (400, "10542204", "GET", "{bound}/messages", ""),
    (400, "10542206", "GET", "{group}/messages?ack_wait=14", ""),
    (400, "10542206", "GET", "{group}/deadletters?ack_wait=301", ""),
    (400, "10542209", "POST", "{group}/ack", r#"{"message":[{"handler":"eyJjZyI6"}]}"#),
    (400, "10542209", "POST", "{group}/ack", r#"{"message":[{"handler":"{settled}"}]}"#),
    (404, "10240401", "GET", "/queues/{unknown}", ""),
    (404, "10240401", "POST", "/queues/{unknown}/messages", r#"{"messages":[{"body":1}]}"#),
    (404, "10240401", "GET", "/queue/{unknown}/tags", ""),
    (404, "10240405", "GET", "{queue}/groups/g-{unknown}/messages", ""),
    (404, "10240405", "DELETE", "{queue}/groups/g-{unknown}", ""),
    (404, "10240406", "GET", "/nothing", ""),
    (404, "10240426", "DELETE", "{tags}/key", ""),
    (405, "00405001", "PUT", "/queues", ""),
    (500, "10550035", "GET", "{group}/messages?tag_type=xor", ""),
];

/// Codes of the table that need a scene of their own, each with the test that has it.
const ELSEWHERE: [&str; 8] = [
    "10240005", // a_malformed_project_is_refused_everywhere
    "10240020", // the_queue_after_the_last_of_the_quota_is_refused
    "10240407", // more_than_a_lane_may_hold_is_refused_with_a_hint
    "10250003", // outage::a_stopped_database_...
    "10250005", // outage::a_gateway_without_its_service_...
    "00413001", // rest_doors::limits_hold_for_what_a_compressed_body_was
    "00415001", // rest_doors::bodies_may_be_compressed_with_gzip
    "00421001", // wrong_ports::the_grpc_port_tells_http_where_rest_is
];

/// Codes that stand for a fault of ours, which no request can cause.
const FAULTS: [&str; 3] = ["10250002", "10250004", "10250006"];

/// Codes of parts of the original that are not here: accounts, quotas by administrators, creation that takes seconds.
const NEVER: [&str; 18] = [
    "10240002", "10240032", "10540202", "10542214", "10542205", "10240101", "10240102", "10240103", "10240104",
    "10240304", "10240306", "10240307", "10240308", "10240309", "10240310", "10240311", "10240312", "10540401",
];

#[test]
fn section_2_every_code_has_its_test() {
    let tested: BTreeSet<&str> = TABLE.iter().map(|case| case.1).chain(ELSEWHERE).chain(FAULTS).chain(NEVER).collect();
    let documented: BTreeSet<&str> = ErrorKind::ALL.iter().map(|kind| kind.row().code).collect();
    assert_eq!(tested, documented);
}

/// Queues, groups and handlers in every state that an error needs.
struct Scene(Vec<(&'static str, String)>);

impl Scene {
    async fn make(rest: &Rest) -> Self {
        let (queue, group) = rest.queue_and_group(&json!({ "name": "taken" })).await;
        let (other, foreign_group) = rest.queue_and_group(&json!({ "name": "other" })).await;
        let kafka = rest.queue(&json!({ "name": "kafka", "queue_mode": "KAFKA_HA" })).await;
        let bound = rest.group(&other, "bound").await;
        for to in [&queue, &other] {
            rest.send_messages(to, &json!([{ "body": 1, "tags": ["a"] }, { "body": 2, "tags": ["a"] }])).await;
        }
        let (_, handlers) = rest.consume(&group).await;
        rest.ack(&group, &all(&handlers[..1], "success")).await.ok(200);
        let (_, foreign) = rest.consume(&foreign_group).await;
        rest.get(&format!("{bound}/messages?tag=a")).await.ok(200);
        Self(vec![
            ("tags", format!("/queue/{queue}/tags")),
            ("queue", format!("/queues/{queue}")),
            ("group", group),
            ("kafka", format!("/queues/{kafka}")),
            ("bound", bound),
            ("settled", handlers[0].clone()),
            ("handler", handlers[1].clone()),
            ("foreign", foreign[0].clone()),
            ("unknown", "9bf46390-38a2-462d-b392-4d5b2d519c55".into()),
            ("eleven", (0..11).map(|key| format!(r#"{{"key":"{key}"}}"#)).collect::<Vec<_>>().join(",")),
        ])
    }

    fn fill(&self, text: &str) -> String {
        let named =
            self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
        // A number in braces is so many letters.
        [33, 37, 44, 65, 161, 524_288]
            .iter()
            .fold(named, |text, len| text.replace(&format!("{{{len}}}"), &"x".repeat(*len)))
    }
}

#[tokio::test]
async fn section_2_every_code_is_produced_by_a_request() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let scene = Scene::make(&rest).await;
    for (status, code, method, path, body) in TABLE {
        let (path, filled) = (scene.fill(path), scene.fill(body));
        let body = (!body.is_empty() || *method == "POST").then(|| filled.into_bytes());
        let answer = rest.call(method.parse().unwrap(), &path, body).await;
        assert_eq!(answer.code(), (*status, format!("DMS.{code}")), "{method} {path}: {}", answer.text);
    }
    // Nothing of all that has changed anything.
    assert_eq!(rest.get("/queues").await.ok(200)["total"], json!(3));
    let acked = rest.ack(scene.0[2].1.as_str(), &[(&scene.0[6].1, "success")]).await.ok(200);
    assert_eq!(acked, json!({ "success": 1, "fail": 0 }));
}

#[tokio::test]
async fn a_malformed_project_is_refused_everywhere() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    for project in ["", "a%20b", "a.b", "%C3%A9", "%00", &"p".repeat(65), "%2F"] {
        let at = rest.at("v1.0", project);
        for path in ["/queues", "/quotas/dms", "/queue/tags"] {
            assert_eq!(at.get(path).await.code(), (400, "DMS.10240005".into()), "{project} {path}");
        }
        assert_eq!(at.post("/queues", &json!({ "name": "q" })).await.code(), (400, "DMS.10240005".into()), "{project}");
    }
}

#[tokio::test]
async fn the_queue_after_the_last_of_the_quota_is_refused() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    for number in 0..30 {
        rest.queue(&json!({ "name": format!("q{number}") })).await;
    }
    let refused = rest.post("/queues", &json!({ "name": "one-more" })).await;
    assert_eq!(refused.code(), (400, "DMS.10240020".into()));
    // Another project has its own.
    rest.at("v1.0", "another").queue(&json!({ "name": "q" })).await;
}

#[tokio::test]
async fn more_than_a_lane_may_hold_is_refused_with_a_hint() {
    let service = TestService::with(Settings { lane_bytes_max: 4096, ..Settings::default() }).await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&json!({ "name": "q" })).await;
    let path = format!("/queues/{queue}/messages");
    let body = json!({ "messages": [{ "body": "x".repeat(8192) }] });
    let refused = rest.post(&path, &body).await;
    assert_eq!(refused.code(), (404, "DMS.10240407".into()));
    assert_eq!(refused.headers["retry-after"], "1");
    rest.post(&path, &json!({ "messages": [{ "body": Value::Null }] })).await.ok(201);
}
