//! The admin listener, for operators and their tools: metrics, probes, the level of the log. Keep it inside of the cluster.

use std::net::SocketAddr;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, put};
use axum::{Extension, Router};
use http::{StatusCode, header};

use crate::broker::Broker;
use crate::memory::Memory;
use crate::net::{Call, Ports};
use crate::observe::metrics::{self, GatewayMetrics};
use crate::observe::telemetry;

#[derive(Debug, Clone)]
struct Observed {
    broker: Broker,
    groups_max: u32,
}

/// `GET /metrics`, `PUT /log` with a filter as its body, and the probes, of a service.
pub(crate) fn of_service(broker: Broker, probes: Router, groups_max: u32, ports: Ports) -> Router {
    let metrics = Router::new().route("/metrics", get(show_service)).with_state(Observed { broker, groups_max });
    metrics.merge(probes).route("/log", put(set_log)).fallback(async move || elsewhere(ports))
}

/// The same of a gateway on its own.
pub(crate) fn of_gateway(metrics: GatewayMetrics, memory: Memory, probes: Router, ports: Ports) -> Router {
    let metrics = Router::new().route("/metrics", get(show_gateway)).with_state((metrics, memory));
    metrics.merge(probes).route("/log", put(set_log)).fallback(async move || elsewhere(ports))
}

fn elsewhere(ports: Ports) -> (StatusCode, String) {
    let here = "this port has /metrics, /healthz, /readyz and PUT /log";
    (StatusCode::NOT_FOUND, format!("{here}; {}\n", ports.rest()))
}

async fn show_service(State(observed): State<Observed>) -> impl IntoResponse {
    observed.broker.observe(observed.groups_max).await;
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], observed.broker.metrics().text())
}

async fn show_gateway(State((metrics, memory)): State<(GatewayMetrics, Memory)>) -> impl IntoResponse {
    metrics.memory().show(&memory, None);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.text())
}

async fn set_log(call: Option<Extension<Call>>, filter: String) -> (StatusCode, String) {
    let peer = call.map(|Extension(call)| call.peer());
    if !may_set_log(peer) {
        let why = "only a caller on this machine, or in this pod, may change what is logged\n";
        return (StatusCode::FORBIDDEN, why.to_owned());
    }
    match telemetry::set_filter(filter.trim(), &peer.map(|peer| peer.to_string()).unwrap_or_default()) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    }
}

/// Whoever may scrape metrics must not be able to silence the log. `kubectl port-forward` comes from the loopback.
fn may_set_log(peer: Option<SocketAddr>) -> bool {
    // A socket for both families shows addresses of IPv4 as ones of IPv6.
    peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_change_what_is_logged() {
        for (peer, expected) in [
            ("127.0.0.1:4000", true),
            ("127.8.0.9:4000", true),
            ("[::1]:4000", true),
            ("[::ffff:127.0.0.1]:4000", true),
            ("10.0.0.7:4000", false),
            ("0.0.0.0:4000", false),
            ("[::]:4000", false),
            ("[fe80::1]:4000", false),
            ("[::ffff:10.0.0.7]:4000", false),
        ] {
            assert_eq!(may_set_log(Some(peer.parse().unwrap())), expected, "{peer}");
        }
        assert!(!may_set_log(None));
    }
}
