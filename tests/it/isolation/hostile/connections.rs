//! Connections of nobody: the oldest gives way, and a caller with good credentials always gets one.

use std::time::Duration;

use dms::net::NetLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::calls::guarded;
use super::cut;
use crate::support::attacker::address;
use crate::support::probe::Probe;

/// A tenth on each listener is for callers who are not known.
const NET: NetLimits = NetLimits { connections_max: 200, calls_max: 1_000 };

async fn is_open(stream: &mut TcpStream) -> bool {
    let mut said = [0; 1_024];
    loop {
        match tokio::time::timeout(Duration::from_millis(20), stream.read(&mut said)).await {
            Err(_elapsed) => return true,
            Ok(Ok(0) | Err(_)) => return false,
            // Settings of HTTP/2.
            Ok(Ok(_)) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_all_connections_of_a_port() {
    let (service, rest) = guarded(NET).await;
    let probe = Probe::start(&rest).await;
    for url in [service.replica.rest().to_owned(), service.replica.grpc()] {
        let mut held = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(address(&url)).await.unwrap();
            let _refused = stream.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await;
            held.push(stream);
        }
        let mut open = 0;
        for stream in &mut held {
            open += usize::from(is_open(stream).await);
        }
        assert!(open <= 20, "{open} connections of nobody are held by {url}");
    }
    probe.is_served(5).await;
    let crowd = cut(&service, "crowd").await;
    // The port of gRPC closes at once who speaks HTTP/1.
    assert!(crowd >= 300 - 20, "{crowd} were counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_known_callers_stay() {
    let (service, rest) = guarded(NET).await;
    let kept = rest.anew();
    kept.get("/queues").await.ok(200);
    let mut wire = TcpStream::connect(address(service.replica.rest())).await.unwrap();
    let request = format!(
        "GET /v1.0/{}/queues HTTP/1.1\r\nHost: dms\r\nX-Auth-Token: owner\r\n\r\n",
        crate::support::service::PROJECT
    );
    wire.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 4_096];
    assert!(wire.read(&mut answer).await.unwrap() > 0);
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.push(TcpStream::connect(address(service.replica.rest())).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(is_open(&mut wire).await);
    wire.write_all(request.as_bytes()).await.unwrap();
    assert!(wire.read(&mut answer).await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_never_has_all_connections() {
    let (service, rest) = guarded(NET).await;
    let probe = Probe::start(&rest).await;
    let mut held = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(address(service.replica.rest())).await.unwrap();
        let request = b"GET /v1.0/p/queues HTTP/1.1\r\nHost: dms\r\nX-Auth-Token: attacker\r\n\r\n";
        let _refused = stream.write_all(request).await;
        let mut answer = [0; 4_096];
        let _answered = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
        held.push(stream);
    }
    probe.is_served(5).await;
}
