//! Bad input in the bodies of REST requests: the documented error, exact words for some, and nothing changed.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::rest::{Rest, is_well, start};

const NOTHING: [Value; 0] = [];

/// Values of every JSON type, and numbers of every size.
fn values() -> Vec<&'static str> {
    vec![
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1",
        "1.5",
        "-0",
        "1e400",
        "-1e400",
        "9223372036854775808",
        "123456789012345678901234567890",
        "\"\"",
        "\"x\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "[]",
        "[null]",
        "[[]]",
        "[{}]",
        "{}",
        "{\"a\":1}",
    ]
}

#[tokio::test]
async fn text_that_is_no_json_object_is_refused_on_every_path() {
    let (_service, rest, queue, group) = start().await;
    let control = [
        "/queues".to_owned(),
        format!("/queues/{queue}/groups"),
        format!("/queue/{queue}/tags"),
        format!("/queue/{queue}/tags/action"),
        "/queue/resource_instances/action".to_owned(),
    ];
    let data = [format!("/queues/{queue}/messages"), format!("{group}/ack"), format!("{group}/deadletters/ack")];
    let texts: [&[u8]; 14] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"{\"a\":1}x",
        b"{\"a\":\"\n\"}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"\0",
        b"{\"a\":\"\xff\"}",
        b"\xc0\x80",
        b"NaN",
        b"{\"a\":01}",
    ];
    for (paths, code) in [(&control[..], "DMS.10240009"), (&data[..], "DMS.10540012")] {
        for path in paths {
            for text in texts {
                let (status, found, message) = rest.post_bytes(path, text).await.error();
                let shown = String::from_utf8_lossy(text);
                assert_eq!((status, found.as_str()), (400, code), "{path} {shown}: {message}");
                assert!(message.starts_with("body: not JSON: "), "{path} {shown}: {message}");
            }
        }
    }
    for (path, code) in [(&control[0], "DMS.10240009"), (&data[0], "DMS.10540001")] {
        for (text, shown) in
            [("[]", "[...]"), ("[{\"name\":1}]", "[...]"), ("null", "null"), ("5", "5"), ("true", "true")]
        {
            let expected = (400, code.to_owned(), format!("body: '{shown}' is not a JSON object"));
            assert_eq!(rest.post_bytes(path, text).await.error(), expected, "{path}");
        }
    }
    is_well(&rest, &queue, &group).await;
}

/// Puts every value into every field; the answer is an error of the request, or success where the value is fine.
async fn probe(rest: &Rest, path: &str, template: &str, success: u16) {
    for value in values() {
        let body = template.replace('@', value);
        let answer = rest.post_bytes(path, body.clone()).await;
        if answer.status == success {
            continue;
        }
        let (status, code, message) = answer.error();
        let documented = status == 400 || (status, code.as_str()) == (404, "DMS.10240426");
        assert!(documented, "{path} {body}: {status} {code} {message}");
        assert!(message.contains(": "), "no field is named: {path} {body}: {message}");
    }
}

#[tokio::test]
async fn a_value_of_any_type_in_any_field_has_a_documented_answer() {
    let (_service, rest, queue, group) = start().await;
    for field in ["description", "queue_mode", "redrive_policy", "max_consume_count", "retention_hours"] {
        // The name is taken: none of these makes a queue.
        probe(&rest, "/queues", &format!(r#"{{"name":"q","{field}":@}}"#), 400).await;
    }
    probe(&rest, "/queues", r#"{"name":@,"description":"<"}"#, 400).await;
    probe(&rest, "/queues", r#"{"name":"q","queue_mode":"KAFKA_HA","retention_hours":@}"#, 400).await;
    probe(&rest, "/queues", r#"{"name":"q","redrive_policy":"enable","max_consume_count":@}"#, 400).await;
    let path = format!("/queues/{queue}/groups");
    probe(&rest, &path, r#"{"groups":@}"#, 400).await;
    probe(&rest, &path, r#"{"groups":[{"name":"billing"},@]}"#, 400).await;
    probe(&rest, &path, r#"{"groups":[{"name":"billing"},{"name":@}]}"#, 400).await;
    let path = format!("/queues/{queue}/messages");
    probe(&rest, &path, r#"{"messages":@}"#, 400).await;
    probe(&rest, &path, r#"{"messages":[@]}"#, 400).await;
    for field in ["attributes", "tags", "delayTime", "delay_time"] {
        probe(&rest, &path, &format!(r#"{{"messages":[{{"body":1,"{field}":@}},{{}}]}}"#), 400).await;
    }
    probe(&rest, &path, r#"{"returnId":@,"messages":[]}"#, 400).await;
    for path in [format!("{group}/ack"), format!("{group}/deadletters/ack")] {
        probe(&rest, &path, r#"{"message":@}"#, 400).await;
        probe(&rest, &path, r#"{"message":[{"handler":@}]}"#, 400).await;
        probe(&rest, &path, r#"{"message":[{"handler":"x","status":@}]}"#, 400).await;
    }
    let path = format!("/queue/{queue}/tags");
    probe(&rest, &path, r#"{"tag":@}"#, 400).await;
    probe(&rest, &path, r#"{"tag":{"key":@,"value":""}}"#, 204).await;
    probe(&rest, &path, r#"{"tag":{"key":"k","value":@}}"#, 204).await;
    let path = format!("/queue/{queue}/tags/action");
    probe(&rest, &path, r#"{"action":@,"tags":[{"key":"k"}]}"#, 204).await;
    probe(&rest, &path, r#"{"action":"delete","tags":@}"#, 204).await;
    probe(&rest, &path, r#"{"action":"delete","tags":[{"key":@}]}"#, 204).await;
    let path = "/queue/resource_instances/action";
    probe(&rest, path, r#"{"action":@}"#, 200).await;
    for field in ["tags", "tags_any", "not_tags", "not_tags_any", "matches", "limit", "offset"] {
        probe(&rest, path, &format!(r#"{{"action":"filter","{field}":@}}"#), 200).await;
        probe(&rest, path, &format!(r#"{{"action":"filter","{field}":[{{"key":@,"values":@,"value":@}}]}}"#), 200)
            .await;
    }
    assert_eq!(rest.get("/queues").await.ok(200)["total"], json!(1));
    assert_eq!(rest.consume(&group).await.0, NOTHING);
    is_well(&rest, &queue, &group).await;
}

/// Path, body, code, the exact message. `{long}` is a text of 200 letters.
const WORDS: [(&str, &str, &str, &str); 17] = [
    ("/queues", r#"{"name":"q"}"#, "10240017", "name: 'q' is not free: a queue of the project has this name"),
    ("/queues", r#"{"name":"a b"}"#, "10240007", "name: 'a b' is not 1-64 characters of A-Z a-z 0-9 _ -"),
    (
        "/queues",
        r#"{"name":"n","queue_mode":"normal"}"#,
        "10540010",
        "queue_mode: 'normal' is not NORMAL, FIFO, KAFKA_HA or KAFKA_HT",
    ),
    ("/queues", r#"{"name":"n","redrive_policy":true}"#, "10540010", "redrive_policy: 'true' is not enable or disable"),
    (
        "/queues",
        r#"{"name":"n","description":"{long}"}"#,
        "10240013",
        "description: '{cut}...' is not at most 160 characters",
    ),
    (
        "/queues",
        r#"{"name":"\u001b[31m\n"}"#,
        "10240007",
        r"name: '\u{1b}[31m\n' is not 1-64 characters of A-Z a-z 0-9 _ -",
    ),
    (
        "{groups}",
        r#"{"groups":[{"name":"g"},{"name":"billing"}]}"#,
        "10240018",
        "groups[1].name: 'billing' is not free: a group of the queue has this name",
    ),
    (
        "{groups}",
        r#"{"groups":[{"name":"g"},{"name":"b b"}]}"#,
        "10240007",
        "groups[1].name: 'b b' is not 1-32 characters of A-Z a-z 0-9 _ -",
    ),
    (
        "{groups}",
        r#"{"groups":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#,
        "10240019",
        "groups: 3 groups asked for, the queue has 1, at most 3 are allowed",
    ),
    ("{send}", r#"{"messages":[{"body":1},{}]}"#, "10540001", "messages[1].body: missing; give any JSON value"),
    (
        "{send}",
        r#"{"messages":[{"body":1,"attributes":[1]}]}"#,
        "10540001",
        "messages[0].attributes: '[...]' is not a JSON object",
    ),
    (
        "{send}",
        r#"{"messages":[{"body":1,"delayTime":-1}]}"#,
        "10540010",
        "messages[0].delayTime: '-1' is not 0-604800000 ms (7 days)",
    ),
    (
        "{send}",
        r#"{"messages":[{"body":1,"delay_time":"5"}]}"#,
        "10540010",
        r#"messages[0].delay_time: '"5"' is not 0-604800000 ms (7 days)"#,
    ),
    ("{send}", "{}", "10540001", "messages: missing; give an array of objects"),
    ("{ack}", "{}", "10540001", "message: missing; give an array of objects with a handler"),
    ("{ack}", r#"{"message":[]}"#, "10540010", "message: '0 entries' is not 1-1000 entries"),
    ("{tags}", r#"{"tag":{"key":"k"}}"#, "10240009", "tag.value: missing; give a string, which may be empty"),
];

#[tokio::test]
async fn messages_name_the_field_the_value_and_what_is_allowed() {
    let (_service, rest, queue, group) = start().await;
    let long = "x".repeat(200);
    let names = [
        ("{groups}", format!("/queues/{queue}/groups")),
        ("{send}", format!("/queues/{queue}/messages")),
        ("{ack}", format!("{group}/ack")),
        ("{tags}", format!("/queue/{queue}/tags")),
        ("{cut}", long[..80].to_owned()),
        ("{long}", long),
    ];
    let fill = |text: &str| names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
    for (path, body, code, message) in WORDS {
        let answer = rest.post_bytes(&fill(path), fill(body)).await;
        assert_eq!(answer.error(), (400, format!("DMS.{code}"), fill(message)), "{path} {body}");
    }
}

#[tokio::test]
async fn messages_name_the_parameter_the_value_and_the_range() {
    let (_service, rest, _, group) = start().await;
    let queries = [
        ("max_msgs=11", "DMS.10240014", "max_msgs: '11' is not an integer from 1 to 10"),
        ("max_msgs=-1", "DMS.10240014", "max_msgs: '-1' is not an integer from 1 to 10"),
        ("max_msgs=1e1", "DMS.10240014", "max_msgs: '1e1' is not an integer from 1 to 10"),
        (
            "max_msgs=99999999999999999999",
            "DMS.10240014",
            "max_msgs: '99999999999999999999' is not an integer from 1 to 10",
        ),
        ("time_wait=61", "DMS.10240021", "time_wait: '61' is not an integer from 1 to 60"),
        ("time_wait=%00", "DMS.10240021", r"time_wait: '\0' is not an integer from 1 to 60"),
        ("ack_wait=14", "DMS.10542206", "ack_wait: '14' is not an integer from 15 to 300"),
        ("tag=a%20b", "DMS.10240004", "tag: 'a b' is not 1-64 characters of A-Z a-z 0-9 _ -"),
        ("tag=1&tag=2&tag=3&tag=4", "DMS.10240004", "tag: '4 labels' is not at most 3 labels"),
    ];
    for (query, code, message) in queries {
        let answer = rest.get(&format!("{group}/messages?{query}")).await;
        assert_eq!(answer.error(), (400, code.into(), message.into()), "{query}");
    }
}

#[tokio::test]
async fn hundreds_of_handlers_are_taken_up_to_the_bound() {
    let (_service, rest, queue, group) = start().await;
    rest.send_bodies(&queue, &[json!(1)]).await;
    let (_, handlers) = rest.consume(&group).await;
    let ack = async |count: usize| {
        let mut body = format!(r#"{{"message":[{{"handler":"{}"}}"#, handlers[0]);
        for number in 1..count {
            write!(body, r#",{{"handler":"no-{number}","status":"success"}}"#).unwrap();
        }
        rest.post_bytes(&format!("{group}/ack"), body + "]}").await
    };
    let expected = (400, "DMS.10540010".to_owned(), "message: '1001 entries' is not 1-1000 entries".to_owned());
    assert_eq!(ack(1001).await.error(), expected);
    assert_eq!(ack(1000).await.ok(200), json!({ "success": 1, "fail": 999 }));
    is_well(&rest, &queue, &group).await;
}
