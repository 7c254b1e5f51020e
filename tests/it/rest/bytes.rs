//! A body is any valid JSON and comes back byte for byte.

use serde_json::json;

use crate::support::panics;
use crate::support::rest::{Rest, text};
use crate::support::service::{Group, TestService, bodies};

/// JSON texts that a parser which builds values would change or refuse.
fn awkward() -> Vec<String> {
    let mut texts: Vec<String> = [
        r#""\u0000""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\ud83d\ude00""#,
        r#""\/\b\f\n\r\t\"\\""#,
        "\"\u{7f}\u{80}\u{2028}\u{fffe}\u{1f600}\"",
        "1e400",
        "-1E-400",
        "-0",
        "-0.0",
        "1.0",
        "1e2",
        "123456789012345678901234567890.123456789012345678901234567890",
        r#"{"b":1,"a":2,"b":3}"#,
        "{ \"a\" :\t[ 1 ,\n2 ] }",
        r#"{"":{"":""}}"#,
        r#"{"\ud800":1}"#,
        "[]",
        "{}",
        "null",
        "true",
        "\"\"",
        r#"{"__proto__":null,"$ref":"x"}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    for depth in [127, 128, 1000, 100_000] {
        texts.push(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        texts.push(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
    }
    texts.retain(|text| text.len() < 500_000);
    texts
}

#[tokio::test]
async fn bodies_come_back_byte_for_byte() {
    panics::watch();
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let id = group.rsplit('/').next().unwrap().to_owned();
    let other = rest.group(&queue, "grpc").await.rsplit('/').next().unwrap().to_owned();
    for body in awkward() {
        let sent = format!("{{\"messages\" : [ {{ \"body\" : {body} , \"attributes\": {{\"x\" : {body} }} }} ] }}");
        let answer = rest.post_bytes(&format!("/queues/{queue}/messages"), sent).await;
        assert_eq!(answer.status, 201, "{:.80}: {}", body, answer.text);
        let taken = rest.get(&format!("{group}/messages")).await;
        let start = format!(r#"[{{"message":{{"body":{body},"attributes":{{"x" : {body} }}}},"handler":""#);
        assert!(taken.status == 200 && taken.text.starts_with(&start), "{:.80}: {:.300}", body, taken.text);
        let handler = taken.text.rsplit('"').nth(1).unwrap();
        assert_eq!(rest.ack(&group, &[(handler, "success")]).await.ok(200), json!({ "success": 1, "fail": 0 }), "{id}");
        // The other door shows the same bytes.
        let grpc = Group { queue: queue.clone(), id: other.clone() };
        assert_eq!(bodies(&service.consume(&grpc, 10).await), [body]);
    }
    panics::none_seen();
}

#[tokio::test]
async fn keys_are_found_however_they_are_written() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    // Escapes in keys, repeated keys (the last counts), keys that are no text.
    let body = r#"{"messages":5,"\ud800":1,"\u006dessages":[{"body":1,"b\u006fdy":2,"tags":null,"\u0000":{}}]}"#;
    rest.post_bytes(&format!("/queues/{queue}/messages"), body).await.ok(201);
    let taken = rest.get(&format!("{group}/messages")).await.ok(200);
    assert_eq!(taken[0]["message"], json!({ "body": 2, "attributes": {} }));
    let acked = format!(r#"{{"message":[{{"handler":"x","h\u0061ndler":"{}"}}]}}"#, text(&taken[0]["handler"]));
    assert_eq!(rest.post_bytes(&format!("{group}/ack"), acked).await.ok(200), json!({ "success": 1, "fail": 0 }));
}

#[tokio::test]
async fn ten_bodies_keep_their_order_and_their_bytes() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let ten: Vec<String> = (0..10).map(|number| format!("{{\"n\":{number}.{:0<30}}}", "")).collect();
    let messages: Vec<String> = ten.iter().map(|body| format!(r#"{{"body":{body}}}"#)).collect();
    let sent = format!(r#"{{"messages":[{}]}}"#, messages.join(","));
    rest.post_bytes(&format!("/queues/{queue}/messages"), sent).await.ok(201);
    let taken = rest.get(&format!("{group}/messages")).await.text;
    let found: Vec<usize> = ten.iter().map(|body| taken.find(body.as_str()).unwrap()).collect();
    assert!(found.is_sorted(), "{found:?}");
}
