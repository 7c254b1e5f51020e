//! The host that a request names: one, and where nobody shows credentials, none that a stranger could lead a browser by.

use crate::rest::gateway_alone::in_front_of;
use crate::support::credentials::by_token;
use crate::support::service::{PROJECT, TestService};
use crate::support::wire::Wire;

async fn status(address: &str, head: &str) -> u16 {
    let mut wire = Wire::open_at(address).await;
    wire.ask(format!("{head}\r\n\r\n")).await.status
}

#[tokio::test]
async fn a_request_without_a_host_or_with_two_is_refused_through_every_door() {
    let service = TestService::start().await;
    let (gateway, _rest) = in_front_of(service.replica.grpc()).await;
    let alone = [gateway.rest_addr(), gateway.admin_addr().unwrap()].map(|address| format!("http://{address}"));
    let doors = [service.replica.rest(), service.replica.admin(), &alone[0], &alone[1]];
    for door in doors {
        for (head, expected) in [
            ("GET /healthz HTTP/1.1", 400),
            ("GET /healthz HTTP/1.1\r\nHost: dms\r\nHost: dms", 400),
            ("GET /healthz HTTP/1.1\r\nHost: dms\r\nhost: other", 400),
            ("GET /healthz HTTP/1.1\r\nHost: a, b", 400),
            ("GET http://other/healthz HTTP/1.1\r\nHost: dms", 400),
            ("GET /healthz HTTP/1.1\r\nHost: dms", 200),
            ("GET /healthz HTTP/1.1\r\nHost: [::1]:80", 200),
        ] {
            assert_eq!(status(door, head).await, expected, "{door} {head}");
        }
    }
    let path = format!("GET /v1.0/{PROJECT}/queues HTTP/1.1");
    let mut wire = Wire::open_at(service.replica.rest()).await;
    let refused = wire.ask(format!("{path}\r\n\r\n")).await;
    assert_eq!(refused.status, 400);
    assert!(refused.header("x-request-id").is_some() && refused.text().contains("Host: missing"), "{refused:?}");
}

#[tokio::test]
async fn a_page_of_a_stranger_cannot_make_a_browser_call_where_nobody_shows_credentials() {
    let service = TestService::start().await;
    let (rest, admin) = (service.replica.rest(), service.replica.admin());
    let heads = [
        (rest, format!("GET /v1.0/{PROJECT}/queues HTTP/1.1")),
        (rest, format!("POST /v1.0/{PROJECT}/queues HTTP/1.1\r\nContent-Length: 0")),
        (admin, "GET /metrics HTTP/1.1".to_owned()),
        (admin, "PUT /log HTTP/1.1\r\nContent-Length: 0".to_owned()),
    ];
    for (door, head) in &heads {
        for foreign in [
            "Host: rebound.evil.example",
            "Host: 127.0.0.1.evil.example:8080",
            "Host: 127.0.0.1\r\nOrigin: https://evil.example",
            "Host: 127.0.0.1\r\nOrigin: null",
            "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site",
        ] {
            assert_eq!(status(door, &format!("{head}\r\n{foreign}")).await, 403, "{head} {foreign}");
        }
        for own in
            ["Host: 127.0.0.1:1", "Host: localhost", "Host: dms.shop.svc", "Host: a\r\nOrigin: http://localhost:1"]
        {
            assert_ne!(status(door, &format!("{head}\r\n{own}")).await, 403, "{head} {own}");
        }
    }
}

#[tokio::test]
async fn who_shows_credentials_may_call_the_service_as_it_likes() {
    let service = TestService::guarded(by_token(&[("mine", &[PROJECT], &["admin"])])).await;
    let head =
        format!("GET /v1.0/{PROJECT}/queues HTTP/1.1\r\nHost: dms.example.com\r\nOrigin: https://console.example.com");
    assert_eq!(status(service.replica.rest(), &format!("{head}\r\nX-Auth-Token: mine")).await, 200);
    assert_eq!(status(service.replica.rest(), &head).await, 401);
}
