//! The gateway as a program of its own in front of a remote service.

use std::time::{Duration, Instant};

use dms::app::gateway::{Standalone, StandaloneOptions};
use dms::app::upstream::Upstream;
use dms::config::UpstreamTlsArgs;
use serde_json::json;

use crate::rest::paths::walk;
use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService};

/// A gateway with both of its ports.
pub(crate) async fn in_front_of(upstream: String) -> (Standalone, Rest) {
    renewing_in_front_of(upstream, Duration::from_secs(60)).await
}

/// The same with certificates in files; there need not be TLS.
pub(crate) async fn with_tls_in_front_of(upstream: String, tls: &UpstreamTlsArgs) -> (Standalone, Rest) {
    start(Upstream::connect(upstream, 4, Duration::from_secs(60), tls).await.unwrap()).await
}

/// The same with connections that get so old.
pub(crate) async fn renewing_in_front_of(upstream: String, age: Duration) -> (Standalone, Rest) {
    start(Upstream::connect(upstream, 4, age, &UpstreamTlsArgs::default()).await.unwrap()).await
}

async fn start(upstream: Upstream) -> (Standalone, Rest) {
    let any = "127.0.0.1:0".parse().unwrap();
    let options = StandaloneOptions {
        upstream,
        rest_addr: any,
        rest_tls: None,
        rest: dms::gateway::RestOptions::default(),
        admin_addr: Some(any),
        allowed_hosts: Vec::new(),
        net: dms::net::NetLimits::default(),
        memory_max: 256 << 20,
        shutdown_limit: Duration::from_secs(5),
    };
    let gateway = Standalone::start(options).await.unwrap();
    let rest = Rest::on(&format!("http://{}", gateway.rest_addr()));
    (gateway, rest)
}

#[tokio::test]
async fn every_endpoint_answers_through_it() {
    let service = TestService::start().await;
    let (_gateway, rest) = in_front_of(service.replica.grpc()).await;
    walk(&rest, "/quotas/dms").await;
    walk(&rest.at("v2", PROJECT), "/quotas").await;
}

#[tokio::test]
async fn the_largest_batch_passes_both_ways() {
    let service = TestService::start().await;
    let (_gateway, rest) = in_front_of(service.replica.grpc()).await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let body = json!("x".repeat(524_286));
    rest.send_bodies(&queue, std::slice::from_ref(&body)).await;
    assert_eq!(rest.consume(&group).await.0, [body]);
}

#[tokio::test]
async fn a_request_id_reaches_the_service_and_comes_back() {
    let service = TestService::start().await;
    let (_gateway, rest) = in_front_of(service.replica.grpc()).await;
    let request = rest.request(reqwest::Method::GET, "/queues").header("x-request-id", "through-both");
    assert_eq!(rest.send(request).await.headers["x-request-id"], "through-both");
}

#[tokio::test]
async fn the_trace_of_a_producer_passes_both_ways_and_none_is_made_up() {
    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let service = TestService::start().await;
    let (_gateway, rest) = in_front_of(service.replica.grpc()).await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let traced = rest.showing("traceparent", GIVEN);
    rest.send_bodies(&queue, &[json!(1)]).await;
    traced.send_bodies(&queue, &[json!(2)]).await;
    let taken = traced.get(&format!("{group}/messages")).await;
    assert_eq!(taken.headers["traceparent"], GIVEN);
    let taken = taken.ok(200);
    assert_eq!(taken[0]["message"], json!({ "body": 1, "attributes": {} }));
    assert_eq!(taken[1]["message"], json!({ "body": 2, "attributes": {}, "traceparent": GIVEN }));
}

#[tokio::test]
async fn without_its_service_it_says_so_at_once() {
    let service = TestService::start().await;
    let (_gateway, rest) = in_front_of(service.replica.grpc()).await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    service.replica.shutdown().await;
    let asked = Instant::now();
    for path in
        ["/queues".to_owned(), format!("/queues/{queue}"), format!("{group}/messages"), "/quotas/dms".to_owned()]
    {
        let (status, code, message) = rest.get(&path).await.error();
        assert_eq!((status, code.as_str()), (500, "DMS.10250005"), "{path}");
        assert_eq!(message, "internal communication failed: retry later");
    }
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // What needs no service still has its answer.
    assert_eq!(rest.get("/nothing").await.code(), (404, "DMS.10240406".into()));
    assert_eq!(rest.post("/queues", &json!([])).await.code(), (400, "DMS.10240009".into()));
}
