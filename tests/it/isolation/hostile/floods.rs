//! Floods of small things on HTTP/2, on both ports: the connection that sends them ends or is slowed, and nobody else is.

use std::time::Duration;

use dms::net::NetLimits;

use super::calls::guarded;
use crate::support::attacker::{Streams, frame, pour};
use crate::support::panics;
use crate::support::probe::Probe;

const WATCH: &str = "/grpc.health.v1.Health/Watch";
const TIME: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once_hinder_nobody() {
    panics::watch();
    let (service, rest) = guarded(NetLimits::default()).await;
    let probe = Probe::start(&rest).await;
    for url in [service.replica.rest().to_owned(), service.replica.grpc()] {
        for path in [WATCH, "/v1.0/p/queues"] {
            Streams::open(&url, 65_535).await.reset_rapidly(2_000, path).await;
        }
    }
    probe.is_served(5).await;
    panics::none_seen();
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_hinder_nobody() {
    panics::watch();
    let (service, rest) = guarded(NetLimits::default()).await;
    let probe = Probe::start(&rest).await;
    // HEADERS of a stream whose headers never end.
    let mut continuation = frame(1, 0, 1, b"\x82");
    continuation.extend(frame(9, 0, 1, &[0x82; 1_000]).repeat(20_000));
    let floods = [
        ("PING", frame(6, 0, 0, &[0; 8]).repeat(1_000)),
        ("SETTINGS", frame(4, 0, 0, &[0, 3, 0, 0, 0, 1]).repeat(1_000)),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(1_000)),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(1_000)),
        ("empty DATA", frame(0, 0, 1, &[]).repeat(1_000)),
        ("unknown", frame(0xbe, 0, 0, &[7; 100]).repeat(100)),
        ("CONTINUATION", continuation),
    ];
    for url in [service.replica.rest().to_owned(), service.replica.grpc()] {
        for (what, bytes) in &floods {
            let taken = pour(&url, bytes, TIME).await;
            println!("{what}: {taken} bytes were taken");
            probe.is_served(1).await;
        }
    }
    probe.is_served(5).await;
    panics::none_seen();
}
