//! What REST takes of clients that do things in their own way: compressed bodies, byte order marks, slashes, half-closed connections,
//! pages of other sites, misspelled names.

use std::time::Duration;

use dms::net::compression::Encoding;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::rest::{Rest, all, is_well, start};
use crate::support::service::PROJECT;
use crate::support::wire::Wire;

fn gzip(text: &str) -> Vec<u8> {
    Encoding::Gzip.compress(text.as_bytes(), Vec::new()).unwrap()
}

/// Status, code and message of a send whose body is encoded so.
async fn send_encoded(rest: &Rest, queue: &str, encoding: &str, body: Vec<u8>) -> (u16, String) {
    let request = rest.request(Method::POST, &format!("/queues/{queue}/messages"));
    let answer = rest.send(request.header("content-encoding", encoding).body(body)).await;
    let message = if answer.status == 201 { String::new() } else { answer.error().2 };
    if answer.status == 415 {
        assert_eq!(answer.headers["accept-encoding"], "gzip, identity");
    }
    (answer.status, message)
}

#[tokio::test]
async fn bodies_may_be_compressed_with_gzip() {
    let (_service, rest, queue, group) = start().await;
    let text = r#"{"messages":[{"body":"compressed"}]}"#;
    for (encoding, body) in [("gzip", gzip(text)), ("GZIP", gzip(text)), ("identity", text.into())] {
        assert_eq!(send_encoded(&rest, &queue, encoding, body).await, (201, String::new()), "{encoding}");
        let (bodies, handlers) = rest.consume(&group).await;
        assert_eq!(bodies, [json!("compressed")]);
        rest.ack(&group, &all(&handlers, "success")).await.ok(200);
    }
    for encoding in ["br", "zstd", "gzip, gzip"] {
        let refused = (415, format!("Content-Encoding: '{encoding}' is not gzip or identity"));
        assert_eq!(send_encoded(&rest, &queue, encoding, text.into()).await, refused);
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn limits_hold_for_what_a_compressed_body_was() {
    let (_service, rest, queue, group) = start().await;
    let bomb = Encoding::Gzip.compress(&vec![b' '; 16 << 20], Vec::new()).unwrap();
    let (status, message) = send_encoded(&rest, &queue, "gzip", bomb).await;
    assert_eq!(
        (status, message.as_str()),
        (413, "body: size once decompressed is larger than the limit of 1048576 bytes")
    );
    let whole = gzip(r#"{"messages":[{"body":1}]}"#);
    for body in [&whole[..whole.len() - 1], &whole[..10], b"", b"{}"] {
        let (status, message) = send_encoded(&rest, &queue, "gzip", body.to_vec()).await;
        assert!(status == 400 && message.starts_with("body: not gzip: "), "{status} {message}");
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn a_byte_order_mark_and_a_slash_at_the_end_are_taken() {
    let (_service, rest, queue, group) = start().await;
    let text = "\u{feff}{\"messages\":[{\"body\":\"marked\"}]}";
    rest.post_bytes(&format!("/queues/{queue}/messages/"), text).await.ok(201);
    let taken = rest.get(&format!("{group}/messages/?time_wait=1")).await.ok(200);
    assert_eq!(taken[0]["message"]["body"], json!("marked"));
    let handlers = [taken[0]["handler"].as_str().unwrap().to_owned()];
    rest.ack(&group, &all(&handlers, "success")).await.ok(200);
    for path in ["/queues/", &format!("/queues/{queue}/"), &format!("/queue/{queue}/tags/"), "/quotas/dms/"] {
        rest.get(path).await.ok(200);
    }
    for path in [format!("/queues/{queue}//"), "/nothing/".to_owned()] {
        assert_eq!(rest.get(&path).await.code(), (404, "DMS.10240406".to_owned()), "{path}");
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn who_asks_before_a_body_that_is_too_large_need_not_send_it() {
    let (service, rest, queue, group) = start().await;
    let head = |length: usize| {
        let path = format!("/v1.0/{PROJECT}/queues/{queue}/messages");
        format!("POST {path} HTTP/1.1\r\nHost: dms\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let refused = Wire::open(&service.replica).await.ask(head(1_048_577)).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("Content-Length: 1048577 bytes is larger than the limit of 1048576 bytes"));
    let body = r#"{"messages":[{"body":1}]}"#;
    let mut wire = Wire::open(&service.replica).await;
    assert_eq!(wire.ask(head(body.len())).await.status, 100);
    assert_eq!(wire.ask(body).await.status, 201);
    rest.ack(&group, &all(&rest.consume(&group).await.1, "success")).await.ok(200);
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn a_client_that_ends_its_side_gets_its_answer() {
    let (service, rest, queue, group) = start().await;
    let body = r#"{"messages":[{"body":"half"}]}"#;
    let send = format!(
        "POST /v1.0/{PROJECT}/queues/{queue}/messages HTTP/1.1\r\nHost: dms\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunked = format!(
        "POST /v1.0/{PROJECT}/queues/{queue}/messages HTTP/1.1\r\nHost: dms\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for _ in 0..10 {
        for request in [&send, &chunked] {
            let answers = Wire::open(&service.replica).await.exchange(request).await;
            assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [201]);
        }
    }
    // What is there is given, what is not is not waited for.
    let consume = format!("GET /v1.0/{PROJECT}{group}/messages?time_wait=60&max_msgs=10 HTTP/1.1\r\nHost: dms\r\n\r\n");
    let mut taken = 0;
    while taken < 20 {
        let answers = Wire::open(&service.replica).await.exchange(&consume).await;
        let messages: Vec<Value> = serde_json::from_slice(&answers[0].body).unwrap();
        let handlers: Vec<_> = messages.iter().map(|message| message["handler"].as_str().unwrap().to_owned()).collect();
        // A slow machine may not have had it in time.
        if !messages.is_empty() {
            rest.ack(&group, &all(&handlers, "success")).await.ok(200);
            taken += messages.len();
        }
    }
    let begun = std::time::Instant::now();
    let answers = Wire::open(&service.replica).await.exchange(&consume).await;
    assert_eq!((answers[0].status, answers[0].text().as_str()), (200, "[]"));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn what_is_ignored_is_named() {
    let (_service, rest, queue, group) = start().await;
    let named = |answer: &crate::support::rest::Answer| {
        answer.headers.get("x-dms-ignored").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let created = json!({ "name": "a", "max_consume_cnt": 3, "redrive_policy": "enable", "max_consume_count": 2 });
    let answer = rest.post("/queues?dry_run=1", &created).await;
    assert_eq!((answer.status, named(&answer).as_str()), (201, "max_consume_cnt, ?dry_run"));
    let sent = r#"{"messages":[{"body":1,"bdy":2,"attributes":{"own":1}},{"body":2,"body":3,"a\r\n,b":4}],"more":1}"#;
    let answer = rest.post_bytes(&format!("/queues/{queue}/messages"), sent).await;
    assert_eq!(
        (answer.status, named(&answer).as_str()),
        (201, "more, messages[0].bdy, messages[1].body, messages[1].a%0D%0A%2Cb")
    );
    let answer = rest.get(&format!("{group}/messages?wait=5&max_msgs=2&max_msgs=3&time_wait=1&ack_wait=")).await;
    assert_eq!((answer.status, named(&answer).as_str()), (200, "?wait, ?max_msgs"));
    let handlers: Vec<_> =
        answer.ok(200).as_array().unwrap().iter().map(|taken| taken["handler"].as_str().unwrap().to_owned()).collect();
    let answer = rest.ack(&group, &all(&handlers, "success")).await;
    assert_eq!(named(&answer), "");
    let answer = rest.get(&format!("/queues/{queue}/groups?page_size=x&current_page=1")).await;
    assert_eq!((answer.status, named(&answer).as_str()), (200, "?page_size, ?current_page"));
    let answer = rest.get(&format!("{group}/messages?max_msgs=11&time_wait=1")).await;
    assert_eq!(
        (answer.status, named(&answer).as_str()),
        (400, ""),
        "nobody knows whether time_wait would have been read"
    );
    let tag = json!({ "tag": { "key": "k", "value": "v", "vlaue": "w" } });
    assert_eq!(named(&rest.post(&format!("/queue/{queue}/tags"), &tag).await), "tag.vlaue");
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn a_count_without_a_redrive_policy_is_shown_to_have_no_effect() {
    let (_service, rest, queue, group) = start().await;
    for (settings, taken, ignored) in [
        (json!({ "max_consume_count": 3 }), json!({ "redrive_policy": "disable" }), Some("max_consume_count")),
        (json!({ "max_consume_count": 3, "redrive_policy": "enable" }), json!({}), None),
        (
            json!({ "max_consume_count": 3, "redrive_policy": "enable", "queue_mode": "KAFKA_HA" }),
            json!({}),
            Some("redrive_policy, max_consume_count"),
        ),
    ] {
        let mut settings = settings;
        settings["name"] = json!(format!("q{}", uuid::Uuid::new_v4().simple()));
        let answer = rest.post("/queues", &settings).await;
        let created = answer.ok(201);
        for field in ["redrive_policy", "max_consume_count"] {
            assert_eq!(created.get(field), taken.get(field), "{settings}");
        }
        let named = answer.headers.get("x-dms-ignored").map(|value| value.to_str().unwrap());
        let sorted = |text: Option<&str>| {
            let mut names: Vec<_> = text.unwrap_or_default().split(", ").map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(named), sorted(ignored), "{settings}");
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn errors_escape_a_value_once() {
    let (_service, rest, queue, group) = start().await;
    let answer = rest.post_bytes("/queues", r#"{"name":"a","max_consume_count":"3\n\"\u202e"}"#).await;
    let (_, _, message) = answer.error();
    assert_eq!(message, r#"max_consume_count: '"3\n"\u{202e}"' is not an integer from 1 to 100"#);
    is_well(&rest, &queue, &group).await;
}
