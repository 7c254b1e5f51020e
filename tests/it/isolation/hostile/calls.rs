//! Calls that are begun and not ended: of nobody, and of somebody with one token that may only read. Others are served meanwhile.

use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms::net::NetLimits;
use serde_json::json;

use crate::rest::gateway_alone::in_front_of;
use crate::support::attacker::Streams;
use crate::support::calls::eventually;
use crate::support::credentials::by_token;
use crate::support::probe::Probe;
use crate::support::rest::Rest;
use crate::support::service::{Door, PROJECT, TestService};
use crate::support::wire::Wire;

const OTHER: &str = "0123456789abcdef0123456789abcdef";
const LIST: &str = "/dms.v1.QueueService/ListQueues";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const GRPC: (&str, &str) = ("content-type", "application/grpc");
const ATTACKER: (&str, &str) = ("authorization", "Bearer attacker");
/// An unknown caller may have 40 calls, and a known one 320.
const NET: NetLimits = NetLimits { connections_max: 1_000, calls_max: 400 };

/// A service with two callers: one with all rights, and one who may only read somewhere else.
pub(super) async fn guarded(net: NetLimits) -> (TestService, Rest) {
    let auth = by_token(&[("owner", &[PROJECT], &["admin"]), ("attacker", &[OTHER], &["read-only"])]);
    let settings = Settings { pool_connections: 4, ..Settings::default() };
    let service = TestService::guarded_with(settings, Door { auth, net, ..Door::open() }).await;
    let rest = Rest::new(&service.replica).showing("authorization", "Bearer owner");
    (service, rest)
}

async fn in_flight(service: &TestService) -> u64 {
    let text = reqwest::get(format!("{}/metrics", service.replica.admin())).await.unwrap().text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix("dms_calls_in_flight ")?.parse().ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_credentials_are_answered_before_the_body_comes() {
    let (service, _) = guarded(NetLimits::default()).await;
    let path = format!("/v1.0/{PROJECT}/queues");
    for shown in ["", "X-Auth-Token: wrong\r\n", "Authorization: Bearer wrong\r\n"] {
        let begun = Instant::now();
        let head = format!("POST {path} HTTP/1.1\r\nHost: dms\r\nContent-Length: 1000\r\n{shown}\r\n");
        let answer = Wire::open(&service.replica).await.ask(head).await;
        assert_eq!(answer.status, 401, "{shown}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{shown} {:?}", begun.elapsed());
    }
    let mut streams = Streams::open(service.replica.rest(), 65_535).await;
    for headers in [&[][..], &[("x-auth-token", "wrong")]] {
        assert!(streams.begin("POST", &path, headers, false).await);
        assert_eq!(streams.status().await, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_good_waits_for_its_body() {
    let (service, _) = guarded(NetLimits::default()).await;
    let body = r#"{"name":"q"}"#;
    let head = format!(
        "POST /v1.0/{PROJECT}/queues HTTP/1.1\r\nHost: dms\r\nX-Auth-Token: owner\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut wire = Wire::open(&service.replica).await;
    wire.send(head).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(wire.ask(body).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_never_has_all_calls() {
    let (service, rest) = guarded(NET).await;
    let probe = Probe::start(&rest).await;
    let mut attackers = Vec::new();
    for _ in 0..3 {
        let mut streams = Streams::open(&service.replica.grpc(), 65_535).await;
        streams.fill(400, "POST", LIST, &[GRPC, ATTACKER], false).await;
        attackers.push(streams);
    }
    eventually("the attacker has its share", async || in_flight(&service).await >= 300).await;
    assert!(in_flight(&service).await <= 340);
    let mut refused = 0;
    for streams in &mut attackers {
        refused += streams.grpc_statuses().await.iter().filter(|status| *status == "8").count();
    }
    // Of 1,200, less its share. On a slow machine the first of them have been given up for sending nothing, which lets in some more.
    assert!(refused > 500, "{refused} were refused");
    probe.is_served(5).await;
    drop(attackers);
    eventually("all are given back", async || in_flight(&service).await <= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_the_health_hinder_no_call_and_no_probe() {
    let (service, rest) = guarded(NET).await;
    let probe = Probe::start(&rest).await;
    let mut watchers = Vec::new();
    for _ in 0..3 {
        let mut streams = Streams::open(&service.replica.grpc(), 65_535).await;
        streams.fill(400, "POST", WATCH, &[GRPC], false).await;
        watchers.push(streams);
    }
    let mut other = Streams::open(service.replica.rest(), 65_535).await;
    for _ in 0..20 {
        assert!(other.begin("GET", "/readyz", &[], true).await);
        assert_eq!(other.status().await, 200);
    }
    probe.is_served(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_nobody_to_a_gateway_hinder_no_call() {
    let (service, _) = guarded(NetLimits::default()).await;
    let (gateway, rest) = in_front_of(service.replica.grpc()).await;
    eventually("it is ready", async || rest.probe("/readyz").await.0 == 200).await;
    let probe = Probe::start(&rest.showing("authorization", "Bearer owner")).await;
    let url = format!("http://{}", gateway.rest_addr());
    let mut attackers = Vec::new();
    for _ in 0..3 {
        let mut streams = Streams::open(&url, 65_535).await;
        assert!(streams.fill(1_000, "POST", &format!("/v1.0/{PROJECT}/queues"), &[], false).await >= 900);
        attackers.push(streams);
    }
    probe.is_served(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_headers_end_no_connection_that_others_share() {
    let (service, _) = guarded(NetLimits::default()).await;
    let (_gateway, rest) = in_front_of(service.replica.grpc()).await;
    eventually("it is ready", async || rest.probe("/readyz").await.0 == 200).await;
    let owner = rest.showing("authorization", "Bearer owner");
    let (queue, group) = owner.queue_and_group(&json!({ "name": "q" })).await;
    let polls: Vec<_> = (0..8)
        .map(|_| {
            let (owner, group) = (owner.clone(), group.clone());
            tokio::spawn(async move { owner.get(&format!("{group}/messages?time_wait=20&max_msgs=1")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for name in ["authorization", "x-auth-token", "x-request-id", "traceparent", "tracestate", "grpc-timeout", "te"] {
        for bytes in [8_100, 8_200, 16_000, 30_000, 60_000, 100_000] {
            let request = rest.request(reqwest::Method::GET, "/queues").header(name, "x".repeat(bytes));
            // Above 64 KiB the listener refuses it, and closes.
            let Ok(answer) = request.send().await else { continue };
            let status = answer.status().as_u16();
            assert!([400, 401, 431].contains(&status), "{name} {bytes}: {status}");
        }
    }
    let many = rest.request(reqwest::Method::GET, "/queues");
    let many = (0..50).fold(many, |request, _| request.header("x-auth-token", "x".repeat(1_000)));
    let (status, code, message) = rest.send(many).await.error();
    assert_eq!((status, code.as_str()), (400, "DMS.10540010"));
    assert!(message.starts_with("x-auth-token: ") && message.ends_with("8192 bytes"), "{message}");
    assert!(polls.iter().all(|poll| !poll.is_finished()));
    owner.send_bodies(&queue, &(0..8).map(|n| json!(n)).collect::<Vec<_>>()).await;
    for poll in polls {
        assert_eq!(poll.await.unwrap().ok(200).as_array().unwrap().len(), 1);
    }
}
