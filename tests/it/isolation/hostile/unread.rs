//! Answers that are not read count as calls in flight until they are, or until their time is over.

use dms::net::NetLimits;
use serde_json::json;

use super::calls::guarded;
use crate::support::attacker::Streams;
use crate::support::calls::eventually;
use crate::support::probe::Probe;
use crate::support::service::PROJECT;

/// One caller may have 80.
const NET: NetLimits = NetLimits { connections_max: 1_000, calls_max: 100 };

/// How many of these are answered 200 while none of the answers is read.
async fn answered(streams: &mut Streams, count: usize) -> usize {
    let path = format!("/v1.0/{PROJECT}/queues");
    let mut answered = 0;
    let mut held = Vec::new();
    for _ in 0..count {
        assert!(streams.begin("GET", &path, &[("x-auth-token", "owner")], true).await);
        let (status, answer) = streams.status_unread().await;
        answered += usize::from(status == 200);
        held.push(answer);
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_their_places() {
    let (service, rest) = guarded(NET).await;
    rest.queue(&json!({ "name": "q" })).await;
    // A window of nothing, and one that takes the beginning of each answer.
    for window in [0, 1] {
        let mut streams = Streams::open(service.replica.rest(), window).await;
        let answered = answered(&mut streams, 120).await;
        assert!((70..=80).contains(&answered), "{answered} with a window of {window}");
        drop(streams);
        eventually("all are given back", async || rest.anew().get("/queues").await.status == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_nobody_reads_hinder_nobody() {
    let (service, rest) = guarded(NET).await;
    let probe = Probe::start(&rest).await;
    for _ in 0..2 {
        let mut streams = Streams::open(service.replica.rest(), 0).await;
        streams.fill(900, "GET", "/nothing", &[], true).await;
        streams.fill(90, "POST", &format!("/v1.0/{PROJECT}/queues"), &[], true).await;
        std::mem::forget(streams);
    }
    probe.is_served(5).await;
}
