use axum::body::Body;
use http::{Request, StatusCode};
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::fake::Fake;
use super::{GROUP, QUEUE, TAGS, ask, call};
use crate::observe::metrics::RestRequests;

#[tokio::test]
async fn every_documented_path_calls_its_rpc() {
    let batch = r#"{"action":"delete","tags":[]}"#;
    let search = r#"{"action":"filter"}"#;
    let other = r#"{"name":"q","groups":[],"messages":[],"message":[],"tag":{"key":"k","value":"v"}}"#;
    let q = "/queues/9bf46390-38a2-462d-b392-4d5b2d519c55";
    let g = &format!("{q}/groups/g-02fb1974-9be1-4eee-8448-ed2d3e89884a");
    let t = "/queue/9bf46390-38a2-462d-b392-4d5b2d519c55/tags";
    let table = [
        ("POST", "/queues".to_owned(), "QueueService/CreateQueue", 201),
        ("GET", "/queues".to_owned(), "QueueService/ListQueues", 200),
        ("GET", q.to_owned(), "QueueService/GetQueue", 200),
        ("DELETE", q.to_owned(), "QueueService/DeleteQueue", 204),
        ("POST", format!("{q}/groups"), "QueueService/CreateConsumerGroups", 201),
        ("GET", format!("{q}/groups"), "QueueService/ListConsumerGroups", 200),
        ("DELETE", g.to_owned(), "QueueService/DeleteConsumerGroup", 204),
        ("POST", format!("{q}/messages"), "MessageService/SendMessages", 201),
        ("GET", format!("{g}/messages"), "MessageService/ConsumeMessages", 200),
        ("POST", format!("{g}/ack"), "MessageService/AckMessages", 200),
        ("GET", "/quotas/dms".to_owned(), "QueueService/GetQuotas", 200),
        ("GET", format!("{g}/deadletters"), "DeadLetterService/ConsumeDeadLetters", 200),
        ("POST", format!("{g}/deadletters/ack"), "DeadLetterService/AckDeadLetters", 200),
        ("POST", t.to_owned(), "TagService/AddQueueTag", 204),
        ("DELETE", format!("{t}/k"), "TagService/DeleteQueueTag", 204),
        ("POST", format!("{t}/action"), "TagService/BatchQueueTags", 204),
        ("GET", t.to_owned(), "TagService/ListQueueTags", 200),
        ("GET", "/queue/tags".to_owned(), "TagService/ListProjectTags", 200),
        ("POST", "/queue/resource_instances/action".to_owned(), "TagService/SearchQueues", 200),
    ];
    for version in ["/v1.0/p1", "/v2/p1"] {
        for (method, path, rpc, status) in &table {
            let fake = Fake::silent();
            let body = match *rpc {
                "TagService/BatchQueueTags" => batch,
                "TagService/SearchQueues" => search,
                _ => other,
            };
            let reply = call(&fake, method, &format!("{version}{path}"), body).await;
            assert_eq!(reply.status.as_u16(), *status, "{method} {path}: {}", reply.text);
            assert_eq!(fake.seen().path, format!("/dms.v1.{rpc}"));
        }
    }
}

#[tokio::test]
async fn unknown_paths_answer_in_the_same_shape() {
    let not_utf8 = format!("{TAGS}/%ff");
    let broken = format!("{TAGS}/%zz");
    let paths = ["/", "/v1.0/p1", "/v3/p1/queues", "/x%", &not_utf8, &broken];
    for path in paths {
        let reply = call(&Fake::silent(), "DELETE", path, "").await;
        assert_eq!((reply.status, reply.code().as_str()), (StatusCode::NOT_FOUND, "DMS.10240406"), "{path}");
        assert!(reply.headers.contains_key("x-request-id"));
        assert_eq!(reply.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn an_empty_id_is_for_the_service_to_refuse() {
    let fake = Fake::silent();
    call(&fake, "GET", "/v1.0//queues", "").await;
    assert_eq!(fake.request::<dms_client::v1::ListQueuesRequest>().project_id, "");
}

#[tokio::test]
async fn unknown_methods_answer_with_those_allowed() {
    let cases = [
        ("PUT", "/v1.0/p1/queues".to_owned(), "POST,GET,HEAD"),
        ("PATCH", QUEUE.to_owned(), "GET,HEAD,DELETE"),
        ("GET", format!("{QUEUE}/messages"), "POST"),
        ("FOO", format!("{GROUP}/ack"), "POST"),
        ("POST", format!("{GROUP}/messages"), "GET"),
        ("HEAD", format!("{GROUP}/messages"), "GET"),
        ("HEAD", format!("{GROUP}/deadletters"), "GET"),
    ];
    for (method, path, allow) in cases {
        let fake = Fake::silent();
        let reply = call(&fake, method, &path, "").await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(reply.headers["allow"], allow, "{method} {path}");
        assert!(method == "HEAD" || reply.code() == "DMS.00405001");
        assert_eq!(fake.calls(), 0);
    }
}

#[tokio::test]
async fn a_plain_request_id_is_kept_and_passed_on() {
    for (given, kept) in [("my_Request-1", true), ("", false), ("a b", false), (&"x".repeat(65), false)] {
        let fake = Fake::silent();
        let request = Request::get(QUEUE).header("x-request-id", given).body(Body::empty()).unwrap();
        let reply = ask(&fake, request).await;
        let id = reply.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == given, kept, "{given:?}");
        assert!(kept || id.len() == 36);
        assert_eq!(fake.seen().headers["x-request-id"], id);
    }
}

#[tokio::test]
async fn credentials_are_passed_on_and_other_headers_are_not() {
    let fake = Fake::silent();
    let request = Request::get(QUEUE)
        .header("x-auth-token", "token")
        .header("authorization", "SDK-HMAC-SHA256 Access=AK")
        .header("content-type", "text/plain")
        .header("cookie", "c=1");
    ask(&fake, request.body(Body::empty()).unwrap()).await;
    let headers = fake.seen().headers;
    assert_eq!(
        (&headers["x-auth-token"], &headers["content-type"]),
        (&"token".parse().unwrap(), &"application/grpc".parse().unwrap())
    );
    assert_eq!(headers["authorization"], "SDK-HMAC-SHA256 Access=AK");
    assert_eq!(headers.get("cookie"), None);
}

#[tokio::test]
async fn the_routes_of_this_process_are_a_transport() {
    let app = crate::gateway::router(
        Routes::default(),
        super::memory(),
        RestRequests::default(),
        std::sync::Arc::new(crate::net::OpenDoor),
    );
    let response = app.oneshot(Request::get(QUEUE).body(Body::empty()).unwrap());
    assert_eq!(response.await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn an_unreachable_channel_is_an_unreachable_upstream() {
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let app = crate::gateway::router(
        channel,
        super::memory(),
        RestRequests::default(),
        std::sync::Arc::new(crate::net::OpenDoor),
    );
    let response = app.oneshot(Request::get(QUEUE).body(Body::empty()).unwrap());
    assert_eq!(response.await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
}
