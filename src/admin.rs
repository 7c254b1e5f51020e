//! The admin listener, for operators and their tools: metrics, probes, the level of the log. Keep it inside of the cluster.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, put};
use http::{StatusCode, header};

use crate::api::health::Health;
use crate::broker::Broker;
use crate::metrics;
use crate::telemetry;

#[derive(Debug, Clone)]
struct Observed {
    broker: Broker,
    groups_max: u32,
}

/// `GET /metrics`, `PUT /log` with a filter as its body, and the probes.
pub fn router(broker: Broker, health: &Health, groups_max: u32) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(Observed { broker, groups_max })
        .route("/log", put(set_log))
        .merge(health.rest())
}

async fn show_metrics(State(observed): State<Observed>) -> impl IntoResponse {
    observed.broker.observe(observed.groups_max).await;
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], observed.broker.metrics().text())
}

async fn set_log(filter: String) -> (StatusCode, String) {
    match telemetry::set_filter(filter.trim()) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    }
}
