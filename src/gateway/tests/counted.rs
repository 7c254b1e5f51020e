use axum::body::Body;
use http::Request;
use tower::ServiceExt as _;

use super::fake::Fake;
use super::{QUEUE, TAGS};
use crate::gateway::router;
use crate::metrics::GatewayMetrics;

async fn counted(requests: &[(&str, &str)]) -> String {
    let metrics = GatewayMetrics::default();
    for (method, path) in requests {
        let request = Request::builder().method(*method).uri(*path).body(Body::empty()).unwrap();
        router(Fake::silent(), metrics.rest().clone()).oneshot(request).await.unwrap();
    }
    metrics.text()
}

#[tokio::test]
async fn requests_are_counted_by_the_path_that_they_matched() {
    let text = counted(&[("GET", QUEUE), ("GET", QUEUE), ("DELETE", QUEUE), ("GET", "/v2/p1/queues")]).await;
    for line in [
        r#"dms_rest_requests_total{method="GET",path="/v1.0/{project_id}/queues/{queue_id}",status="200"} 2"#,
        r#"dms_rest_requests_total{method="DELETE",path="/v1.0/{project_id}/queues/{queue_id}",status="204"} 1"#,
        r#"dms_rest_requests_total{method="GET",path="/v2/{project_id}/queues",status="200"} 1"#,
        r#"dms_rest_request_seconds_count{path="/v1.0/{project_id}/queues/{queue_id}"} 3"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn what_a_caller_writes_is_no_label() {
    let broken = format!("{TAGS}/hunter2%zz");
    let text = counted(&[
        ("GET", "/hunter2"),
        ("GET", "/v3/hunter2/queues"),
        ("HUNTER2", "/v1.0/hunter2/queues/hunter2"),
        ("DELETE", &broken),
    ])
    .await;
    for line in [
        r#"dms_rest_requests_total{method="GET",path="other",status="404"} 2"#,
        r#"dms_rest_requests_total{method="other",path="/v1.0/{project_id}/queues/{queue_id}",status="405"} 1"#,
        r#"dms_rest_requests_total{method="DELETE",path="/v1.0/{project_id}/queue/{queue_id}/tags/{key}",status="404"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.to_lowercase().contains("hunter2"), "{text}");
}
