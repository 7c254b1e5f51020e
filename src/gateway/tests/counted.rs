use axum::body::Body;
use http::Request;
use tower::ServiceExt as _;

use super::fake::Fake;
use super::{QUEUE, TAGS};
use crate::gateway::router;
use crate::observe::metrics::GatewayMetrics;

async fn counted(requests: &[(&str, &str)]) -> String {
    let metrics = GatewayMetrics::default();
    for (method, path) in requests {
        let request = Request::builder().method(*method).uri(*path).body(Body::empty()).unwrap();
        router(Fake::silent(), super::memory(), metrics.rest().clone(), std::sync::Arc::new(crate::net::OpenDoor))
            .oneshot(request)
            .await
            .unwrap();
    }
    metrics.text()
}

/// Panics unless so many requests are shown with these labels.
fn assert_shown(text: &str, (method, path, status, count): (&str, &str, u16, u64)) {
    let labels = format!(r#"{{method="{method}",path="{path}",status="{status}"}}"#);
    let line = format!("dms_rest_requests_total{labels} {count}");
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
}

#[tokio::test]
async fn requests_are_counted_by_the_path_that_they_matched() {
    let text = counted(&[("GET", QUEUE), ("GET", QUEUE), ("DELETE", QUEUE), ("GET", "/v2/p1/queues")]).await;
    for shown in [
        ("GET", "/v1.0/{project_id}/queues/{queue_id}", 200, 2),
        ("DELETE", "/v1.0/{project_id}/queues/{queue_id}", 204, 1),
        ("GET", "/v2/{project_id}/queues", 200, 1),
    ] {
        assert_shown(&text, shown);
    }
    let timed = r#"dms_rest_request_seconds_count{path="/v1.0/{project_id}/queues/{queue_id}"} 3"#;
    assert!(text.lines().any(|line| line == timed), "{text}");
}

#[tokio::test]
async fn what_a_caller_writes_is_no_label() {
    let broken = format!("{TAGS}/hunter2%zz");
    let text = counted(&[
        ("GET", "/hunter2"),
        ("GET", "/v3/hunter2/queues"),
        ("HUNTER2", "/v1.0/hunter2/queues/hunter2"),
        ("DELETE", broken.as_str()),
    ])
    .await;
    for shown in [
        ("GET", "other", 404, 2),
        ("other", "/v1.0/{project_id}/queues/{queue_id}", 405, 1),
        ("DELETE", "/v1.0/{project_id}/queue/{queue_id}/tags/{key}", 404, 1),
    ] {
        assert_shown(&text, shown);
    }
    assert!(!text.to_lowercase().contains("hunter2"), "{text}");
}
