//! Bad input on the wire: broken HTTP, half requests, connections that end at any moment, oversize, odd versions.

use std::time::Duration;

use serde_json::json;

use crate::support::panics;
use crate::support::rest::{all, is_well, start};
use crate::support::service::PROJECT;
use crate::support::wire::Wire;

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /v1.0/{PROJECT}{path} HTTP/1.1\r\nHost: dms\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn half_requests_are_dropped_at_every_byte() {
    let (service, rest, queue, group) = start().await;
    let whole = post(&format!("/queues/{queue}/messages"), r#"{"messages":[{"body":1}]}"#);
    for end in (1..whole.len()).step_by(7) {
        let answers = Wire::open(&service.replica).await.exchange(&whole[..end]).await;
        // An answer is an error; most get none.
        assert!(answers.iter().all(|answer| answer.status == 400), "{end}: {answers:?}");
    }
    assert_eq!(rest.get(&format!("/queues/{queue}")).await.ok(200)["produced_messages"], json!(0));
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn a_consumer_that_goes_away_takes_no_message_with_it() {
    let (service, rest, queue, group) = start().await;
    for number in 0..5 {
        let mut wire = Wire::open(&service.replica).await;
        wire.send(format!("GET /v1.0/{PROJECT}{group}/messages?time_wait=60 HTTP/1.1\r\nHost: dms\r\n\r\n")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(wire);
        tokio::time::sleep(Duration::from_millis(100)).await;
        rest.send_bodies(&queue, &[json!(number)]).await;
        let (bodies, handlers) = rest.consume(&group).await;
        assert_eq!(bodies, [json!(number)]);
        rest.ack(&group, &all(&handlers, "success")).await.ok(200);
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn a_sender_that_goes_away_before_its_answer_loses_nothing_of_others() {
    let (service, rest, queue, group) = start().await;
    let whole = post(&format!("/queues/{queue}/messages"), r#"{"messages":[{"body":"maybe"}]}"#);
    for _ in 0..20 {
        let mut wire = Wire::open(&service.replica).await;
        wire.send(&whole).await;
        drop(wire);
    }
    rest.send_bodies(&queue, &[json!("sure")]).await;
    let mut seen = Vec::new();
    // A send whose sender is gone may be stored before or after that.
    while !seen.contains(&json!("sure")) {
        let (bodies, handlers) = rest.consume(&group).await;
        assert!(!handlers.is_empty(), "{seen:?}");
        rest.ack(&group, &all(&handlers, "success")).await.ok(200);
        seen.extend(bodies);
    }
    let counted = rest.get(&format!("/queues/{queue}/groups")).await.ok(200);
    assert_eq!(counted["groups"][0]["consumed_messages"], json!(seen.len()));
    panics::none_seen();
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (service, _, queue, group) = start().await;
    let send =
        |body: i32| post(&format!("/queues/{queue}/messages"), &format!(r#"{{"messages":[{{"body":{body}}}]}}"#));
    let get = |path: &str| format!("GET /v1.0/{PROJECT}{path} HTTP/1.1\r\nHost: dms\r\n\r\n");
    let requests =
        send(1) + &get("/nothing") + &send(2) + &get(&format!("{group}/messages?time_wait=1")) + &get("/quotas/dms");
    let mut wire = Wire::open(&service.replica).await;
    wire.send(requests).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(wire.answer().await.unwrap());
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201, 404, 201, 200, 200]);
    let taken: serde_json::Value = serde_json::from_slice(&answers[3].body).unwrap();
    let bodies: Vec<i64> =
        taken.as_array().unwrap().iter().map(|taken| taken["message"]["body"].as_i64().unwrap()).collect();
    assert_eq!(bodies, [1, 2]);
    assert!(answers.iter().all(|answer| answer.header("x-request-id").is_some()));
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let (service, ..) = start().await;
    let mut wire = Wire::open(&service.replica).await;
    let answer = wire.ask(format!("GET /v1.0/{PROJECT}/queues HTTP/1.0\r\n\r\n")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with(r#"{"queues":[{"#), "{}", answer.text());
    assert!(wire.answer().await.is_none());
    let mut wire = Wire::open(&service.replica).await;
    wire.send(format!("GET /v1.0/{PROJECT}/queues HTTP/1.1\r\nHost: dms\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert!(wire.answer().await.is_none());
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let (service, rest, queue, group) = start().await;
    let cases: [&[u8]; 10] = [
        b"\r\n\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: a\r\n bad\x01: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for case in cases {
        for answer in Wire::open(&service.replica).await.exchange(case).await {
            assert!((400..500).contains(&answer.status), "{case:?}: {answer:?}");
        }
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn contradictory_lengths_do_not_smuggle_a_request() {
    let (service, rest, queue, group) = start().await;
    let hidden = format!("DELETE /v1.0/{PROJECT}/queues/{queue} HTTP/1.1\r\nHost: dms\r\n\r\n");
    let line = format!("POST /v1.0/{PROJECT}/queues/{queue}/messages HTTP/1.1\r\nHost: dms\r\n");
    let lengths = [
        "Content-Length: 0\r\nContent-Length: 500\r\n".to_owned(),
        "Content-Length: 5x\r\n".to_owned(),
        "Content-Length: 99999999999999999999\r\n".to_owned(),
        "Transfer-Encoding: identity\r\n".to_owned(),
    ];
    for length in lengths {
        let answers = Wire::open(&service.replica).await.exchange(format!("{line}{length}\r\n{hidden}")).await;
        assert!(answers.iter().all(|answer| answer.status >= 400), "{length}: {answers:?}");
    }
    rest.get(&format!("/queues/{queue}")).await.ok(200);
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn oversize_is_refused_with_an_answer() {
    let (service, rest, queue, group) = start().await;
    let padded = |bytes: usize| format!(r#"{{"messages":[{{"body":1}}],"padding":"{}"}}"#, "x".repeat(bytes));
    let path = format!("/queues/{queue}/messages");
    let (status, code, message) = rest.post_bytes(&path, padded(1024 * 1024)).await.error();
    assert_eq!((status, code.as_str()), (400, "DMS.10540011"));
    assert_eq!(message, "body: size is larger than the limit of 1048576 bytes");
    assert_eq!(rest.post_bytes(&path, padded(10_000_000)).await.code(), (400, "DMS.10540011".into()));
    assert_eq!(rest.post_bytes("/queues", padded(1024 * 1024)).await.code(), (400, "DMS.10240009".into()));
    rest.post_bytes(&path, padded(900_000)).await.ok(201);
    let (_, handlers) = rest.consume(&group).await;
    rest.ack(&group, &all(&handlers, "success")).await.ok(200);
    let head = format!("GET /v1.0/{PROJECT}/queues HTTP/1.1\r\nHost: dms\r\n");
    let cases = [
        (431, head.replace("queues", &format!("queues?x={}", "x".repeat(70_000))) + "\r\n"),
        (400, format!("{head}X-Auth-Token: {}\r\n\r\n", "x".repeat(8_200))),
        (431, format!("{head}X-Auth-Token: {}\r\n\r\n", "x".repeat(1_000_000))),
        (431, format!("{head}{}\r\n", "A: b\r\n".repeat(2000))),
    ];
    for (status, case) in cases {
        let answer = Wire::open(&service.replica).await.ask(&case).await;
        assert_eq!(answer.status, status, "{case:.80}");
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn a_long_token_and_a_long_query_are_fine() {
    let (service, ..) = start().await;
    // Tokens of the original are several kilobytes long; 8 KiB are the limit.
    let token = "M".repeat(8_000);
    let query = "x".repeat(16_000);
    let request =
        format!("GET /v1.0/{PROJECT}/queues?x={query} HTTP/1.1\r\nHost: dms\r\nX-Auth-Token: {token}\r\n\r\n");
    assert_eq!(Wire::open(&service.replica).await.ask(request).await.status, 200);
}

#[tokio::test]
async fn paths_with_broken_escapes_are_refused() {
    let (service, rest, queue, group) = start().await;
    let cases = [
        (format!("/v1.0/{PROJECT}/queues/%"), 404, "DMS.10240406"),
        (format!("/v1.0/{PROJECT}/queues/%G0"), 404, "DMS.10240406"),
        (format!("/v1.0/{PROJECT}/queues/%f"), 404, "DMS.10240406"),
        (format!("/v1.0/{PROJECT}/queues/%FF"), 404, "DMS.10240406"),
        (format!("/v1.0/{PROJECT}/queues/{queue}%00"), 400, "DMS.10240015"),
        (format!("/v1.0/{PROJECT}/queues/..%2f..%2f"), 400, "DMS.10240015"),
        (format!("/v1.0/{PROJECT}/queues/../queues"), 404, "DMS.10240406"),
        (format!("//v1.0/{PROJECT}/queues"), 404, "DMS.10240406"),
        (format!("/v1.0/{PROJECT}/queues/'%20OR%201=1--"), 400, "DMS.10240015"),
        ("/v1.0/%/queues".to_owned(), 400, "DMS.10240005"),
        (format!("/v1.0/{PROJECT}/queues?include_deadletter=%"), 400, "DMS.10540014"),
        (format!("/v1.0/{PROJECT}/queues?include_deadletter=%ff"), 400, "DMS.10540014"),
    ];
    for (path, status, code) in cases {
        let request = format!("GET {path} HTTP/1.1\r\nHost: dms\r\n\r\n");
        let answer = Wire::open(&service.replica).await.ask(request).await;
        let start = format!(r#"{{"error_code":"{code}","error_msg":""#);
        assert!(answer.status == status && answer.text().starts_with(&start), "{path}: {}", answer.text());
    }
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn many_idle_and_half_open_connections_hinder_nobody() {
    let (service, rest, queue, group) = start().await;
    let mut held = Vec::new();
    for number in 0..200 {
        let mut wire = Wire::open(&service.replica).await;
        if number % 2 == 0 {
            wire.send(format!("POST /v1.0/{PROJECT}/queues HTTP/1.1\r\nHost: dms\r\nContent-Length: 100\r\n\r\n{{"))
                .await;
        }
        held.push(wire);
    }
    is_well(&rest, &queue, &group).await;
}
