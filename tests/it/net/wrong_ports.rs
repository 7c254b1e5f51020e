//! Callers who came to the wrong port are told where to go, in the protocol that they speak; and pages of other sites, where they may call.

use dms::app::server::{Server, ServerOptions};
use dms::gateway::RestOptions;
use dms_client::v1 as pb;
use dms_client::v1::queue_service_client::QueueServiceClient;
use reqwest::Method;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::attacker::{Streams, address};
use crate::support::postgres::TestDatabase;
use crate::support::rest::{Rest, is_well, start};
use crate::support::service::{Door, PROJECT, TestService};
use crate::support::wire::Wire;

#[tokio::test]
async fn the_grpc_port_tells_http_where_rest_is() {
    let (service, rest, queue, group) = start().await;
    let (grpc, rest_address) = (service.replica.grpc(), address(service.replica.rest()));
    let expected = format!("this port speaks gRPC, over HTTP/2; REST is at {rest_address}");
    let mut wire = Wire::open_at(&grpc).await;
    let answer = wire.ask(format!("GET /v1.0/{PROJECT}/queues HTTP/1.1\r\nHost: dms\r\n\r\n")).await;
    assert_eq!((answer.status, answer.header("connection")), (421, Some("close")));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((body["error_code"].as_str(), body["error_msg"].as_str()), (Some("DMS.00421001"), Some(&*expected)));
    assert!(wire.answer().await.is_none());
    let mut over_http2 = Streams::open(&grpc, 65_535).await;
    assert!(over_http2.begin("GET", &format!("/v1.0/{PROJECT}/queues"), &[], true).await);
    assert_eq!(over_http2.status().await, 421);
    // Who speaks TLS gets an answer, too, if none that it understands.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    assert_eq!(Wire::open_at(&grpc).await.ask(hello).await.status, 400);
    is_well(&rest, &queue, &group).await;
}

#[tokio::test]
async fn other_ports_tell_grpc_where_it_is() {
    let (service, rest, queue, group) = start().await;
    let grpc = service.replica.grpc();
    for (url, here) in [(service.replica.rest(), "REST"), (service.replica.admin(), "HTTP to operators")] {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        let request = pb::ListQueuesRequest { project_id: PROJECT.into(), ..Default::default() };
        let status = QueueServiceClient::new(channel).list_queues(request).await.unwrap_err();
        let expected = format!("this port speaks {here}; gRPC is at {}", address(&grpc));
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, expected.as_str()));
    }
    let (status, text) = Rest::on(service.replica.admin()).probe("/v1.0/p/queues").await;
    assert!(status == 404 && text.contains(&format!("REST is at {}", address(service.replica.rest()))), "{text}");
    is_well(&rest, &queue, &group).await;
}

/// A replica whose REST listener has these options, and the root of that listener.
async fn replica_with(rest: RestOptions) -> (Server, TestDatabase, String) {
    let database = TestDatabase::create().await;
    let any = "127.0.0.1:0".parse().unwrap();
    let door = Door::open();
    let broker = dms::broker::BrokerOptions {
        database: database.url().into(),
        settings: dms::broker::Settings { pool_connections: 4, ..Default::default() },
        clock: None,
    };
    let server = Server::start(ServerOptions {
        broker,
        auth: door.auth,
        limits: door.limits,
        grpc_addr: any,
        grpc_tls: None,
        grpc_connection_age: None,
        rest_addr: Some(any),
        rest_tls: None,
        rest,
        admin_addr: None,
        metrics_groups_max: 0,
        allowed_hosts: Vec::new(),
        net: door.net,
        shutdown_limit: std::time::Duration::from_secs(5),
    })
    .await
    .unwrap();
    let root = format!("http://{}", server.rest_addr().unwrap());
    (server, database, root)
}

#[tokio::test]
async fn pages_of_the_origins_in_the_setting_may_call() {
    let origin = "https://app.example";
    let options = RestOptions { origins: vec![origin.parse().unwrap()], ..RestOptions::default() };
    let (server, _database, root) = replica_with(options).await;
    let (url, client) = (format!("{root}/v1.0/{PROJECT}/queues"), reqwest::Client::new());
    let preflight = |from: &'static str| {
        let request = client.request(Method::OPTIONS, &url).header("origin", from);
        request.header("access-control-request-method", "POST").header("access-control-request-headers", "content-type")
    };
    let answer = preflight(origin).send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    assert_eq!((answer.status().as_u16(), header("access-control-allow-origin").as_str()), (200, origin));
    assert!(header("access-control-allow-methods").contains("DELETE"));
    assert!(header("access-control-allow-headers").contains("x-auth-token"));
    let answer = client.get(&url).header("origin", origin).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], origin);
    assert!(answer.headers()["access-control-expose-headers"].to_str().unwrap().contains("x-dms-ignored"));
    // Nobody has to show credentials here, so others may not even ask.
    let other = preflight("https://evil.example").send().await.unwrap();
    assert!(other.status().as_u16() == 403 && !other.headers().contains_key("access-control-allow-origin"));
    server.shutdown().await;
}

#[tokio::test]
async fn pages_may_not_call_without_the_setting() {
    let service = TestService::start().await;
    let request = reqwest::Client::new().request(Method::OPTIONS, service.replica.url("/queues"));
    let answer = request.header("origin", "http://localhost:3000").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 405);
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}
