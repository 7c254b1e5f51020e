use axum::body::Body;
use dms_client::v1 as pb;
use http::{HeaderMap, Request};

use super::fake::Fake;
use super::{GROUP, QUEUE, Reply, ask};
use crate::domain::trace::TraceContext;

const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

async fn get(fake: &Fake, path: &str, headers: &[(&str, &str)]) -> Reply {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    ask(fake, request.body(Body::empty()).unwrap()).await
}

/// What the service is told of the trace, and what the caller is.
async fn told(headers: &[(&str, &str)]) -> (String, Vec<String>, String) {
    let fake = Fake::silent();
    let reply = get(&fake, QUEUE, headers).await;
    let seen = fake.seen().headers;
    let all = |headers: &HeaderMap, name: &str| -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let (asked, answered) = (all(&seen, "traceparent"), all(&reply.headers, "traceparent"));
    assert_eq!((asked.len(), answered.len()), (1, 1));
    (asked[0].clone(), all(&seen, "tracestate"), answered[0].clone())
}

#[tokio::test]
async fn the_trace_of_the_caller_is_passed_on_and_answered() {
    let (asked, states, answered) =
        told(&[("traceparent", GIVEN), ("tracestate", "a=1"), ("tracestate", "b=2,c=3")]).await;
    assert_eq!((asked.as_str(), answered.as_str()), (GIVEN, GIVEN));
    assert_eq!(states, ["a=1", "b=2,c=3"]);
    let later = GIVEN.replacen("00", "01", 1) + "-more";
    assert_eq!(told(&[("traceparent", &later)]).await.0, GIVEN);
}

#[tokio::test]
async fn a_trace_state_is_passed_on_up_to_512_bytes() {
    for (bytes, kept) in [(512, 1), (513, 0)] {
        let state = format!("a={}", "x".repeat(bytes - 2));
        assert_eq!(told(&[("traceparent", GIVEN), ("tracestate", &state)]).await.1.len(), kept, "{bytes}");
    }
}

#[tokio::test]
async fn a_caller_in_no_trace_begins_one() {
    let upper = GIVEN.to_uppercase();
    for headers in [
        vec![("tracestate", "a=1")],
        vec![("traceparent", ""), ("tracestate", "a=1")],
        vec![("traceparent", &*upper)],
        vec![("traceparent", GIVEN), ("traceparent", OTHER)],
    ] {
        let (asked, states, answered) = told(&headers).await;
        assert!(TraceContext::parse(&asked).is_some() && ![GIVEN, OTHER].contains(&&*asked), "{asked}");
        assert_eq!((answered, states), (asked, vec!["dms=gateway".to_owned()]), "{headers:?}");
    }
}

#[tokio::test]
async fn failures_and_unknown_paths_are_in_a_trace_too() {
    let failing = Fake::failing(tonic::Status::unavailable("connection refused"));
    for path in [QUEUE, "/nothing"] {
        let reply = get(&failing, path, &[("traceparent", GIVEN)]).await;
        assert!(reply.status.as_u16() >= 400);
        assert_eq!(reply.headers["traceparent"], GIVEN);
    }
}

#[tokio::test]
async fn only_a_caller_in_a_trace_sees_the_traces_of_messages() {
    let message = |traceparent: &str| pb::LeasedMessage {
        message: Some(pb::Message { body: "1".into(), traceparent: traceparent.into(), ..Default::default() }),
        handler: "h".into(),
        ..Default::default()
    };
    let fake = Fake::answering(pb::ConsumeMessagesResponse { messages: vec![message(OTHER), message("")] });
    let plain = r#"{"message":{"body":1,"attributes":{}},"handler":"h"}"#;
    let traced = format!(r#"{{"message":{{"body":1,"attributes":{{}},"traceparent":"{OTHER}"}},"handler":"h"}}"#);
    for path in ["messages", "deadletters"] {
        let path = format!("{GROUP}/{path}");
        assert_eq!(get(&fake, &path, &[]).await.text, format!("[{plain},{plain}]"));
        assert_eq!(get(&fake, &path, &[("traceparent", "00-1-2-01")]).await.text, format!("[{plain},{plain}]"));
        assert_eq!(get(&fake, &path, &[("traceparent", GIVEN)]).await.text, format!("[{traced},{plain}]"));
    }
}
