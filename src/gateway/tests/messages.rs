use std::time::Duration;

use dms_client::v1 as pb;
use http::StatusCode;
use prost_types::Duration as Wait;
use serde_json::json;

use super::fake::Fake;
use super::{GROUP, QUEUE, call, get};

fn results(ids: &[&str]) -> Fake {
    let result = |id: &&str| pb::SendResult { message_id: (*id).into() };
    Fake::answering(pb::SendMessagesResponse { results: ids.iter().map(result).collect() })
}

async fn send(fake: &Fake, body: impl Into<axum::body::Body>) -> super::Reply {
    call(fake, "POST", &format!("{QUEUE}/messages"), body).await
}

#[tokio::test]
async fn bodies_and_attributes_go_byte_for_byte() {
    let bodies = [
        r#""\u0000 \ud800""#,
        "1e400",
        "12345678901234567890.10",
        r#"{ "b" : 1,  "a":2, "b":3 }"#,
        "null",
        "[ ]",
        &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
    ];
    let fake = results(&[]);
    for body in bodies {
        let attributes = r#"{"a" : 1.10, "a":true}"#;
        let json = format!("{{\"messages\" : [ {{\"attributes\": {attributes} ,\"body\":\t{body} , \"x\":{body}}} ]}}");
        let reply = send(&fake, json).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
        let sent = fake.request::<pb::SendMessagesRequest>().messages.remove(0);
        assert_eq!((&sent.body[..], &sent.attributes[..]), (body.as_bytes(), attributes.as_bytes()));
    }
}

#[tokio::test]
async fn both_spellings_work_on_both_versions() {
    for (version, ids, delay) in [("v1.0", "return_id", "delay_time"), ("v2", "returnId", "delayTime")] {
        let fake = results(&["id1"]);
        let body = format!(r#"{{"messages":[{{"body":1,"tags":["a","b"],"{delay}":1500.9}}],"{ids}":true}}"#);
        let path = QUEUE.replace("v1.0", version);
        let reply = call(&fake, "POST", &format!("{path}/messages"), body).await;
        assert_eq!(reply.json(), json!({"messages": [{"error": null, "error_code": null, "state": 0, "id": "id1"}]}));
        let request = fake.request::<pb::SendMessagesRequest>();
        assert!(request.return_ids);
        assert_eq!(request.messages[0].tags, ["a", "b"]);
        assert_eq!(request.messages[0].delay, Some(Wait { seconds: 1, nanos: 500_000_000 }));
    }
}

#[tokio::test]
async fn ids_are_left_out_unless_asked_for() {
    let fake = results(&["", ""]);
    let reply =
        send(&fake, r#"{"messages":[{"body":1,"attributes":null,"tags":null,"delayTime":null},{"body":2}]}"#).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let result = json!({"error": null, "error_code": null, "state": 0});
    assert_eq!(reply.json(), json!({"messages": [result, result]}));
    let request = fake.request::<pb::SendMessagesRequest>();
    assert!(!request.return_ids);
    assert_eq!(request.messages[0].delay, None);
}

#[tokio::test]
async fn bad_sends_are_refused_with_the_documented_code() {
    let cases = [
        ("{}", "DMS.10540001"),
        ("7", "DMS.10540001"),
        (r#"{"messages":{}}"#, "DMS.10540001"),
        (r#"{"messages":["a"]}"#, "DMS.10540001"),
        (r#"{"messages":[{}]}"#, "DMS.10540001"),
        (r#"{"messages":[{"body":1,"attributes":[]}]}"#, "DMS.10540001"),
        (r#"{"messages":[{"body":1,"tags":{"a":1}}]}"#, "DMS.10540001"),
        (r#"{"messages":[{"body":1,"tags":[1]}]}"#, "DMS.10540001"),
        (r#"{"messages":[{"body":1}],"returnId":"true"}"#, "DMS.10540001"),
        (r#"{"messages":[{"body":1,"delayTime":-1}]}"#, "DMS.10540010"),
        (r#"{"messages":[{"body":1,"delayTime":604800001}]}"#, "DMS.10540010"),
        (r#"{"messages":[{"body":1,"delayTime":1e400}]}"#, "DMS.10540010"),
        (r#"{"messages":[{"body":1,"delay_time":"10"}]}"#, "DMS.10540010"),
        (r#"{"messages":[{"body":01}]}"#, "DMS.10540012"),
        (r#"{"messages":[{"body":1},]}"#, "DMS.10540012"),
        ("[1,", "DMS.10540012"),
        ("", "DMS.10540012"),
    ];
    let fake = results(&[]);
    for (body, code) in cases {
        let reply = send(&fake, body).await;
        assert_eq!((reply.status, reply.code()), (StatusCode::BAD_REQUEST, code.to_owned()), "{body}");
    }
    assert_eq!(send(&fake, &b"{\"messages\":[{\"body\":\"\xff\"}]}"[..]).await.code(), "DMS.10540012");
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn errors_name_the_field_the_value_and_what_is_allowed() {
    let cases = [
        (r#"{"messages":[{"body":1},{}]}"#, "messages[1].body: missing; give any JSON value"),
        (r#"{"messages":[{"body":1,"attributes":7}]}"#, "messages[0].attributes: '7' is not a JSON object"),
        (r#"{"messages":[{"body":1,"delayTime":-1}]}"#, "messages[0].delayTime: '-1' is not 0-604800000 ms (7 days)"),
        (r#"{"messages":[{"body":1}],"return_id":0}"#, "return_id: '0' is not true or false"),
    ];
    for (body, message) in cases {
        assert_eq!(send(&results(&[]), body).await.message(), message);
    }
}

#[tokio::test]
async fn delays_have_inclusive_ends() {
    let fake = results(&[]);
    for (delay, expected) in [("-0.5", (0, 0)), ("0", (0, 0)), ("6048e5", (604_800, 0)), ("604800000.9", (604_800, 0))]
    {
        send(&fake, format!(r#"{{"messages":[{{"body":1,"delayTime":{delay}}}]}}"#)).await;
        let sent = fake.request::<pb::SendMessagesRequest>().messages.remove(0).delay.unwrap();
        assert_eq!((sent.seconds, sent.nanos), expected, "{delay}");
    }
}

fn leased(body: &'static str, attributes: &'static str, tags: &[&str]) -> pb::LeasedMessage {
    let message = pb::Message {
        id: "m1".into(),
        body: body.into(),
        attributes: attributes.into(),
        tags: tags.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    pb::LeasedMessage { message: Some(message), handler: "h".into(), ..Default::default() }
}

#[tokio::test]
async fn messages_come_back_as_they_were_sent() {
    let messages =
        vec![leased(r#"{ "b":1e400, "\u0000":"\ud800" }"#, "", &[]), leased("1.10", r#"{"a" : 1}"#, &["x", "y"])];
    let fake = Fake::answering(pb::ConsumeMessagesResponse { messages });
    let reply = get(&fake, &format!("{GROUP}/messages")).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(reply.headers["content-type"], "application/json");
    let first = r#"{"message":{"body":{ "b":1e400, "\u0000":"\ud800" },"attributes":{}},"handler":"h"}"#;
    let second = r#"{"message":{"body":1.10,"attributes":{"a" : 1},"tags":["x","y"]},"handler":"h"}"#;
    assert_eq!(reply.text, format!("[{first},{second}]"));
}

#[tokio::test]
async fn nothing_to_consume_is_an_empty_array() {
    for path in ["messages", "deadletters"] {
        let reply = get(&Fake::silent(), &format!("{GROUP}/{path}")).await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, "[]"));
    }
}

#[tokio::test]
async fn consume_options_and_deadline_follow_the_query() {
    let fake = Fake::silent();
    let query = "tag=a&max_msgs=5&time_wait=60&tag=&tag=b%5F&ack_wait=300&tag_type=and&x=1";
    get(&fake, &format!("{GROUP}/messages?{query}")).await;
    let wait = |seconds| Some(Wait { seconds, nanos: 0 });
    let options = pb::ConsumeOptions { max_messages: Some(5), wait: wait(60), lease: wait(300) };
    let request = fake.request::<pb::ConsumeMessagesRequest>();
    assert_eq!((request.options, request.tags), (Some(options), vec!["a".into(), "b_".into()]));
    assert_eq!(request.tag_match, i32::from(pb::TagMatch::All));
    assert_eq!(request.group_id, "g-02fb1974-9be1-4eee-8448-ed2d3e89884a");
    assert_eq!(fake.seen().headers["grpc-timeout"], timeout(75));

    get(&fake, &format!("{GROUP}/deadletters?max_msgs=&time_wait=&ack_wait=&tag_type=none&tag=a")).await;
    assert_eq!(fake.request::<pb::ConsumeDeadLettersRequest>().options, Some(pb::ConsumeOptions::default()));
    assert_eq!(fake.seen().headers["grpc-timeout"], timeout(18));
}

/// As tonic writes it.
fn timeout(seconds: u64) -> String {
    let mut request = tonic::Request::new(());
    request.set_timeout(Duration::from_secs(seconds));
    request.metadata().get("grpc-timeout").unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn options_out_of_range_have_their_own_codes() {
    let huge = "99999999999999999999";
    let cases = [
        ("max_msgs", vec!["0", "11", "-1", "ten", "1.5", huge], "DMS.10240014"),
        ("time_wait", vec!["0", "61", "-1", "3s", huge], "DMS.10240021"),
        ("ack_wait", vec!["14", "301", "+", huge], "DMS.10542206"),
    ];
    let fake = Fake::silent();
    for (key, values, code) in cases {
        for value in values {
            for path in ["messages", "deadletters"] {
                let reply = get(&fake, &format!("{GROUP}/{path}?{key}={value}")).await;
                assert_eq!((reply.status, reply.code().as_str()), (StatusCode::BAD_REQUEST, code), "{key}={value}");
            }
        }
    }
    let reply = get(&fake, &format!("{GROUP}/messages?time_wait=61")).await;
    assert_eq!(reply.message(), "time_wait: '61' is not an integer from 1 to 60");
    let reply = get(&fake, &format!("{GROUP}/messages?tag_type=xor")).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (500, "DMS.10550035"));
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn acks_keep_their_order_and_default_to_success() {
    let result = Some(pb::AckResult { success_count: 1, fail_count: 3, ..pb::AckResult::default() });
    let fake = Fake::answering(pb::AckMessagesResponse { result: result.clone() });
    let body = r#"{"message":[{"handler":"a","status":"success"},{"handler":"b","status":"fail"},
        {"handler":"c"},{"handler":"d","status":null}]}"#;
    let reply = call(&fake, "POST", &format!("{GROUP}/ack"), body).await;
    assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({"success": 1, "fail": 3})));
    let (success, fail) = (pb::AckStatus::Success, pb::AckStatus::Fail);
    let entry = |handler: &str, status: pb::AckStatus| pb::AckEntry { handler: handler.into(), status: status.into() };
    let expected = [entry("a", success), entry("b", fail), entry("c", success), entry("d", success)];
    assert_eq!(fake.request::<pb::AckMessagesRequest>().entries, expected);

    let fake = Fake::answering(pb::AckDeadLettersResponse { result });
    call(&fake, "POST", &format!("{GROUP}/deadletters/ack"), body).await;
    assert_eq!(fake.seen().path, "/dms.v1.DeadLetterService/AckDeadLetters");
    assert_eq!(fake.request::<pb::AckDeadLettersRequest>().entries, expected);
}

#[tokio::test]
async fn bad_acks_are_refused_with_the_documented_code() {
    let cases = [
        ("{}", "DMS.10540001"),
        (r#"{"message":{"handler":"a"}}"#, "DMS.10540001"),
        (r#"{"message":[{"status":"success"}]}"#, "DMS.10540001"),
        (r#"{"message":[{"handler":1}]}"#, "DMS.10540001"),
        (r#"{"message":[{"handler":"a","status":"done"}]}"#, "DMS.10540003"),
        (r#"{"message":[{"handler":"a","status":true}]}"#, "DMS.10540003"),
        (r#"{"message":"#, "DMS.10540012"),
    ];
    let fake = Fake::silent();
    for (body, code) in cases {
        for path in ["ack", "deadletters/ack"] {
            let reply = call(&fake, "POST", &format!("{GROUP}/{path}"), body).await;
            assert_eq!((reply.status, reply.code().as_str()), (StatusCode::BAD_REQUEST, code), "{body}");
        }
    }
    assert_eq!(fake.calls(), 0);
}
