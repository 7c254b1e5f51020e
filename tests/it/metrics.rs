//! The admin listener: metrics of calls, lanes, groups and Postgres, and the level of the log.

use std::time::Duration;

use dms::proto::v1 as pb;

use crate::support::rest::{Rest, ack_body};
use crate::support::service::{Group, PROJECT, TestService, bodies};

struct Metrics(Vec<String>);

impl Metrics {
    async fn of(service: &TestService) -> Self {
        let answer = reqwest::get(format!("{}/metrics", service.replica.admin())).await.unwrap();
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
        let text = answer.text().await.unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        Self(text.lines().map(str::to_owned).collect())
    }

    /// The value behind this name and these labels.
    fn value(&self, series: &str) -> f64 {
        let line = self.0.iter().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series}\n{}", self.0.join("\n"))).parse().unwrap()
    }

    fn has(&self, series: &str) -> bool {
        self.0.iter().any(|line| line.starts_with(series))
    }
}

fn of_group(name: &str, queue: &str, group: &str) -> String {
    format!(r#"dms_group_{name}{{project="{PROJECT}",queue="{queue}",group="{group}"}}"#)
}

#[tokio::test]
async fn calls_and_lanes_are_counted() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    // The first look at a Postgres trusts nothing in memory, the second does.
    for body in ["1", "2"] {
        service.send(&queue, &[body]).await;
        assert_eq!(bodies(&service.consume(&group, 10).await), [body]);
    }
    let bad = pb::SendMessagesRequest { project_id: PROJECT.into(), queue_id: "x".into(), ..Default::default() };
    service.replica.messages.clone().send_messages(bad).await.unwrap_err();
    let metrics = Metrics::of(&service).await;
    let calls = |method: &str, code: &str| {
        metrics.value(&format!(r#"dms_calls_total{{method="/dms.v1.MessageService/{method}",code="{code}"}}"#))
    };
    assert_eq!((calls("SendMessages", "OK"), calls("SendMessages", "INVALID_ARGUMENT")), (2.0, 1.0));
    assert_eq!(calls("ConsumeMessages", "OK"), 2.0);
    assert_eq!(metrics.value(r#"dms_call_seconds_count{method="/dms.v1.MessageService/SendMessages"}"#), 3.0);
    assert_eq!(metrics.value(r#"dms_lane_flush_calls_count{lane="append"}"#), 2.0);
    assert_eq!(metrics.value(r#"dms_lane_flush_calls_sum{lane="append"}"#), 2.0);
    assert_eq!(metrics.value(r#"dms_lane_waiting_calls{lane="settle"}"#), 0.0);
    assert!(metrics.value("dms_cache_bytes") > 0.0);
    let looked_up = (metrics.value("dms_cache_hits_total"), metrics.value("dms_cache_misses_total"));
    assert_eq!(looked_up, (1.0, 1.0));
    assert_eq!((metrics.value("dms_postgres_up"), metrics.value("dms_calls_in_flight")), (1.0, 0.0));
    assert!(
        metrics.has(r#"dms_postgres_dead_rows{table="leases"}"#) && metrics.has("dms_postgres_oldest_snapshot_seconds")
    );
}

#[tokio::test]
async fn rest_requests_are_counted_by_their_path_in_the_documentation() {
    let service = TestService::start().await;
    let rest = Rest::new(&service.replica);
    let queue = rest.queue(&serde_json::json!({ "name": "q" })).await;
    let known = format!("/queues/{queue}");
    for (path, status) in [(known.as_str(), 200), ("/queues/hunter2", 400), ("/hunter2", 404)] {
        assert_eq!(rest.get(path).await.status, status, "{path}");
    }
    let metrics = Metrics::of(&service).await;
    let counted = |method: &str, path: &str, status: u16| {
        let labels = format!(r#"{{method="{method}",path="{path}",status="{status}"}}"#);
        metrics.value(&format!("dms_rest_requests_total{labels}"))
    };
    let shown = "/v1.0/{project_id}/queues/{queue_id}";
    assert_eq!((counted("GET", shown, 200), counted("GET", shown, 400)), (1.0, 1.0));
    assert_eq!((counted("GET", "other", 404), counted("POST", "/v1.0/{project_id}/queues", 201)), (1.0, 1.0));
    assert_eq!(metrics.value(&format!(r#"dms_rest_request_seconds_count{{path="{shown}"}}"#)), 2.0);
    assert!(!metrics.0.iter().any(|line| line.contains("hunter2")));
}

#[tokio::test]
async fn groups_tell_what_they_have_left_and_how_long_it_will_be_there() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    let idle = service.queue("idle").await;
    service.group(&idle, "nothing").await;
    service.send(&queue, &["1", "2", "3", "4"]).await;
    service.advance(3600);
    let leased = service.consume(&group, 2).await;
    let Group { id, .. } = &group;
    let rest = Rest::new(&service.replica);
    let answer =
        rest.post(&format!("/queues/{queue}/groups/{id}/ack"), &ack_body(&[(&leased[0].handler, "fail")])).await;
    assert_eq!(answer.status, 200);
    let metrics = Metrics::of(&service).await;
    let value = |name: &str| metrics.value(&of_group(name, "queue", "group"));
    // One has died, one is leased still, two were never claimed.
    assert_eq!((value("backlog_messages"), value("in_flight_messages")), (3.0, 1.0));
    assert_eq!((value("failed_messages"), value("dead_letter_messages")), (0.0, 1.0));
    assert_eq!((value("oldest_seconds"), value("retention_left_seconds")), (3600.0, 71.0 * 3600.0));
    assert_eq!(metrics.value(&of_group("backlog_messages", "idle", "nothing")), 0.0);
    assert!(!metrics.has(&of_group("oldest_seconds", "idle", "nothing")));
}

#[tokio::test]
async fn only_the_largest_backlogs_are_shown() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    for (name, behind) in [("none", 0), ("some", 1), ("all", 2)] {
        let group = service.group(&queue, name).await;
        if behind == 0 {
            service.send(&queue, &["1", "2"]).await;
            service.consume(&group, 2).await;
        } else if behind == 1 {
            service.consume(&group, 1).await;
        }
    }
    let metrics = Metrics::of(&service).await;
    // The tests show two groups.
    assert_eq!(metrics.value("dms_groups_left_out"), 1.0);
    assert!(metrics.has(&of_group("backlog_messages", "queue", "all")));
    assert!(!metrics.has(&of_group("backlog_messages", "queue", "none")));
}

#[tokio::test]
async fn the_probes_are_here_too_and_a_bad_filter_of_the_log_is_refused() {
    let service = TestService::start().await;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let get = async |path: &str| {
        http.get(format!("{}{path}", service.replica.admin())).send().await.unwrap().status().as_u16()
    };
    assert_eq!((get("/healthz").await, get("/readyz").await, get("/queues").await), (200, 200, 404));
    let refused = http.put(format!("{}/log", service.replica.admin())).body("dms=loud").send().await.unwrap();
    assert_eq!(refused.status(), 400);
}
