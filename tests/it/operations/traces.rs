//! Traces (W3C): with messages and dead letters, in answers, and in the log from the gateway to the statement.

use dms_client::v1 as pb;
use serde_json::{Value, json};
use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::support::calls::{delayed, eventually};
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;
use crate::support::rest::{Rest, all};
use crate::support::service::{PROJECT, TestService, handlers, message};

const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";
const MALFORMED: [&str; 3] = ["", "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", "00-1-2-01"];

fn trace_id(traceparent: &str) -> &str {
    &traceparent[3..35]
}

/// The traces that messages were sent in, in order.
fn traces(messages: &[pb::LeasedMessage]) -> Vec<&str> {
    messages.iter().map(|leased| leased.message.as_ref().unwrap().traceparent.as_str()).collect()
}

fn called_in<M>(traceparent: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request
}

fn answered(metadata: &MetadataMap) -> String {
    metadata.get("traceparent").unwrap().to_str().unwrap().to_owned()
}

fn send_request(queue: &str, messages: Vec<pb::NewMessage>) -> pb::SendMessagesRequest {
    pb::SendMessagesRequest { project_id: PROJECT.into(), queue_id: queue.into(), messages, return_ids: false }
}

#[tokio::test]
async fn a_message_sent_over_rest_carries_its_trace_into_the_dead_letters() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "billing").await;
    Rest::new(&service.replica).showing("traceparent", GIVEN).send_bodies(&queue, &[json!(1)]).await;
    let live = service.fail_next(&group, 10).await;
    let dead = service.take_dead_letters(&group, 10).await;
    assert_eq!((traces(&live), traces(&dead)), (vec![GIVEN], vec![GIVEN]));
    // Not from the memory of the replica that wrote it.
    service.advance(31);
    let request = pb::ConsumeDeadLettersRequest {
        project_id: PROJECT.into(),
        queue_id: group.queue.clone(),
        group_id: group.id.clone(),
        options: None,
    };
    let other = service.another_replica().await;
    let mut again = Vec::new();
    eventually("it comes again", async || {
        again = other.dead_letters.clone().consume_dead_letters(request.clone()).await.unwrap().into_inner().messages;
        !again.is_empty()
    })
    .await;
    assert_eq!(traces(&again), [GIVEN]);
}

#[tokio::test]
async fn over_grpc_a_message_is_of_its_own_trace_or_of_the_calls() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let own = |traceparent: &str| pb::NewMessage { traceparent: traceparent.into(), ..message("1") };
    let sent = vec![message("1"), own(OTHER), own(MALFORMED[1])];
    let mut client = service.replica.messages.clone();
    client.send_messages(called_in(GIVEN, send_request(&queue, sent))).await.unwrap();
    client.send_messages(send_request(&queue, vec![own(OTHER)])).await.unwrap();
    client.send_messages(called_in(GIVEN, send_request(&queue, vec![delayed("1", 60_000)]))).await.unwrap();
    let other = service.another_replica().await;
    let taken = group.receive_from(&other, 10).await;
    assert_eq!(traces(&taken), [GIVEN, OTHER, GIVEN, OTHER]);
    group.ack_at(&other, &handlers(&taken, true)).await.unwrap();
    service.advance(60);
    assert_eq!(traces(&group.receive_from(&other, 10).await), [GIVEN]);
}

#[tokio::test]
async fn a_message_sent_in_no_trace_takes_no_more_room() {
    const SIZES: [&str; 2] = [
        "SELECT min(octet_length(payload))::bigint FROM segments",
        "SELECT max(octet_length(payload))::bigint FROM segments",
    ];
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    let rest = Rest::new(&service.replica);
    rest.send_bodies(&queue, &[json!(1)]).await;
    for malformed in MALFORMED {
        rest.showing("traceparent", malformed).send_bodies(&queue, &[json!(1)]).await;
    }
    service.send(&queue, &["1"]).await;
    // A length, the id, and the body.
    let bare = 1 + 18 + 3;
    assert_eq!((service.number(SIZES[0]).await, service.number(SIZES[1]).await), (bare, bare));
    assert_eq!(traces(&service.consume(&group, 10).await), [""; 5]);
    rest.showing("traceparent", GIVEN).send_bodies(&queue, &[json!(1)]).await;
    assert_eq!(service.number(SIZES[1]).await, bare + 27);
}

#[tokio::test]
async fn every_answer_names_its_trace() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let in_rest = async |rest: &Rest| rest.get("/queues").await.headers["traceparent"].to_str().unwrap().to_owned();
    assert_eq!(in_rest(&rest.showing("traceparent", GIVEN)).await, GIVEN);
    let (one, two) = (in_rest(&rest).await, in_rest(&rest).await);
    assert_ne!(trace_id(&one), trace_id(&two));
    let request = pb::ListQueuesRequest { project_id: PROJECT.into(), ..Default::default() };
    let mut client = service.replica.queues.clone();
    let good = answered(client.list_queues(called_in(GIVEN, request.clone())).await.unwrap().metadata());
    let refused = pb::GetQueueRequest { project_id: PROJECT.into(), queue_id: "x".into() };
    let bad = answered(client.get_queue(called_in(GIVEN, refused)).await.unwrap_err().metadata());
    for answer in [&good, &bad] {
        assert_eq!(trace_id(answer), trace_id(GIVEN));
        assert_ne!(answer[36..52], GIVEN[36..52], "the span of the call");
    }
    let fresh = answered(client.list_queues(called_in(MALFORMED[2], request)).await.unwrap().metadata());
    assert_eq!(fresh.len(), GIVEN.len());
    for malformed in MALFORMED {
        assert_eq!(in_rest(&rest.showing("traceparent", malformed)).await.len(), GIVEN.len());
    }
}

#[tokio::test]
async fn over_rest_only_a_consumer_in_a_trace_sees_those_of_messages() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    rest.showing("traceparent", GIVEN).send_bodies(&queue, &[json!(1)]).await;
    let path = format!("{group}/messages");
    let plain = rest.get(&path).await.ok(200);
    assert_eq!(plain[0]["message"], json!({ "body": 1, "attributes": {} }));
    let handler = plain[0]["handler"].as_str().unwrap();
    rest.ack(&group, &[(handler, "fail")]).await.ok(200);
    let traced = rest.showing("traceparent", OTHER).get(&path).await.ok(200);
    assert_eq!(traced[0]["message"], json!({ "body": 1, "attributes": {}, "traceparent": GIVEN }));
}

/// The spans that a line was written in, from the outermost one.
fn spans(line: &Value) -> Vec<&str> {
    line["spans"].as_array().into_iter().flatten().map(|span| span["name"].as_str().unwrap()).collect()
}

/// The lines of a log with these words that were written in these spans.
fn said(log: &str, words: &str, within: &[&str]) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == words && spans(line) == within).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_follows_a_call_from_the_gateway_to_the_statement_once_it_is_told_to() {
    let database = TestDatabase::create().await;
    let service = Logged::serve(&database, ["--auth=none", "--log=info", "--log-format=json"]).await;
    let (producer, consumer) = (service.rest.showing("traceparent", GIVEN), service.rest.showing("traceparent", OTHER));
    let (queue, group) = producer.queue_and_group(&json!({ "name": "q" })).await;
    assert!(!service.text().contains(trace_id(GIVEN)));
    let told = reqwest::Client::new().put(format!("{}/log", service.admin)).body("info,dms=debug").send().await;
    assert_eq!(told.unwrap().status(), 200);
    producer.send_bodies(&queue, &[json!("hunter2")]).await;
    let (_, handlers) = consumer.consume(&group).await;
    consumer.ack(&group, &all(&handlers, "success")).await.ok(200);
    let expected: [(&str, &[&str]); 7] = [
        ("request answered", &["request"]),
        ("call answered", &["request", "call"]),
        ("served by a round of a lane", &["request", "call", "send"]),
        ("served by a round of a lane", &["request", "call", "consume"]),
        ("served by a round of a lane", &["request", "call", "ack"]),
        ("statement ended", &["round", "statement"]),
        ("round ended", &["round"]),
    ];
    for (words, within) in expected {
        eventually(words, async || !said(&service.text(), words, within).is_empty()).await;
    }
    let log = service.text();
    let call = &said(&log, "call answered", &["request", "call"])[0]["spans"];
    for span in [&call[0], &call[1]] {
        assert_eq!((&span["trace_id"], &span["request_id"]), (&json!(trace_id(GIVEN)), &call[0]["request_id"]));
    }
    assert_eq!(call[1]["parent_span_id"], json!(&GIVEN[36..52]));
    let link = &said(&log, "delivered what was sent in a trace", &["request", "call"])[0];
    assert_eq!((&link["link"], &link["spans"][1]["trace_id"]), (&json!(GIVEN), &json!(trace_id(OTHER))));
    assert!(!log.contains("hunter2"));
}
