//! The admin listener: metrics of calls, lanes, messages, groups and Postgres, and the level of the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dms::api::TrafficLimits;
use dms::broker::{Broker, BrokerOptions, Settings};
use dms_client::v1 as pb;
use sqlx::{Connection as _, Executor as _};

use crate::support::calls::eventually;
use crate::support::rest::{Rest, ack_body};
use crate::support::service::{Group, PROJECT, Replica, TestService, bodies, handlers};

/// Spoils the first message of every segment: its id has another field number then.
const SPOIL: &str = "UPDATE segments SET payload = set_byte(payload, 1, 255)";

struct Metrics(Vec<String>);

impl Metrics {
    async fn of(service: &TestService) -> Self {
        Self::at(&service.replica).await
    }

    async fn at(replica: &Replica) -> Self {
        let answer = reqwest::get(format!("{}/metrics", replica.admin())).await.unwrap();
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
        let text = answer.text().await.unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        Self::parsed(&text)
    }

    fn parsed(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    /// The value behind this name and these labels.
    fn value(&self, series: &str) -> f64 {
        let line = self.0.iter().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series}\n{}", self.0.join("\n"))).parse().unwrap()
    }

    /// The values of these labels.
    fn values<const N: usize>(&self, name: &str, label: &str, labels: [&str; N]) -> [f64; N] {
        labels.map(|value| self.value(&format!(r#"{name}{{{label}="{value}"}}"#)))
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
        assert_eq!(bodies(&service.take(&group, 10).await), [body]);
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
    assert_eq!(metrics.value(r#"dms_lane_fullest_bytes{lane="settle"}"#), 0.0);
    assert_eq!(metrics.value(r#"dms_lane_limit_calls{lane="claim"}"#), 50_000.0);
    assert_eq!(metrics.value(r#"dms_lane_panics_total{lane="claim"}"#), 0.0);
    assert_eq!(metrics.value("dms_pool_connections_max"), 4.0);
    assert!(metrics.value("dms_cache_bytes") > 0.0);
    let looked_up = (metrics.value("dms_cache_hits_total"), metrics.value("dms_cache_misses_total"));
    assert_eq!(looked_up, (1.0, 1.0));
    assert_eq!((metrics.value("dms_postgres_up"), metrics.value("dms_calls_in_flight")), (1.0, 0.0));
    assert!(
        metrics.has(r#"dms_postgres_dead_rows{table="leases"}"#)
            && metrics.has(r#"dms_postgres_live_rows{table="delayed_messages"}"#)
            && metrics.has("dms_postgres_oldest_snapshot_seconds")
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
    assert_eq!((value("claims"), value("cursor_offset"), value("passed_over_messages")), (1.0, 2.0, 0.0));
    let names = format!(r#"dms_group_ids{{project="{PROJECT}",queue="queue",group="group""#);
    assert!(metrics.has(&format!(r#"{names},queue_id="{queue}",group_id="{id}",stream=""#)), "for the API");
    assert_eq!(metrics.value(&of_group("backlog_messages", "idle", "nothing")), 0.0);
    assert!(!metrics.has(&of_group("oldest_seconds", "idle", "nothing")));
}

#[tokio::test]
async fn failures_and_refusals_are_there_before_the_first_one() {
    let service = TestService::limited(TrafficLimits { calls_per_second: 1, ..TrafficLimits::default() }).await;
    let metrics = Metrics::of(&service).await;
    for code in ["DATA_LOSS", "INTERNAL", "UNAVAILABLE", "UNKNOWN"] {
        let series = format!(r#"dms_calls_total{{method="/dms.v1.TagService/SearchQueues",code="{code}"}}"#);
        assert_eq!(metrics.value(&series), 0.0);
    }
    let whys = ["lane", "in_flight", "rate", "share"];
    assert_eq!(metrics.values("dms_calls_refused_total", "why", whys), [0.0; 4]);
    let request = pb::ListQueuesRequest { project_id: PROJECT.into(), ..Default::default() };
    let mut refused = 0.0;
    for _ in 0..5 {
        refused += f64::from(u8::from(service.replica.queues.clone().list_queues(request.clone()).await.is_err()));
    }
    assert!(refused > 0.0, "five calls at once pass one a second");
    let metrics = Metrics::of(&service).await;
    assert_eq!(metrics.values("dms_calls_refused_total", "why", whys), [0.0, 0.0, refused, 0.0]);
}

#[tokio::test]
async fn deliveries_are_counted_with_what_becomes_of_them() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 2).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let first = service.receive(&group, 10).await;
    service.ack(&group, &[(&first[0].handler, true), (&first[1].handler, false)]).await.unwrap();
    let again = service.receive(&group, 10).await;
    assert_eq!(bodies(&again), ["2"]);
    service.ack(&group, &handlers(&again, true)).await.unwrap();
    // The lease of the third ends.
    service.advance(31);
    let last = service.receive(&group, 10).await;
    assert_eq!(bodies(&last), ["3"]);
    service.ack(&group, &handlers(&last, false)).await.unwrap();
    service.advance(60);
    let metrics = Metrics::of(&service).await;
    assert_eq!(metrics.values("dms_delivered_messages_total", "kind", ["first", "again"]), [3.0, 2.0]);
    let outcomes = ["acked", "failed", "lease_expired", "dead", "expired"];
    assert_eq!(metrics.values("dms_settled_messages_total", "outcome", outcomes), [2.0, 1.0, 1.0, 1.0, 0.0]);
    let of_group = |name: &str| metrics.value(&of_group(name, "queue", "group"));
    assert_eq!((of_group("dead_letters_waiting"), of_group("dead_letters_oldest_seconds")), (1.0, 60.0));
    assert_eq!(of_group("redelivered_messages_total"), 2.0);
    assert_eq!((metrics.value("dms_corrupt_messages_total"), metrics.value("dms_dead_letters_lost_total")), (0.0, 0.0));
}

#[tokio::test]
async fn dead_letters_wait_until_they_are_acknowledged_or_expire() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let batch = service.receive(&group, 10).await;
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    let dead = service.receive_dead_letters(&group, 2).await;
    service.ack_dead_letters(&group, &handlers(&dead[..1], true)).await.unwrap();
    let waiting = of_group("dead_letters_waiting", "queue", "group");
    // One is leased, one was never claimed. The latter expires without anybody's having looked at it.
    assert_eq!(observed(&service, 2).await.value(&waiting), 2.0);
    service.ack_dead_letters(&group, &handlers(&dead[1..], true)).await.unwrap();
    assert_eq!(observed(&service, 2).await.value(&waiting), 1.0);
    service.advance(73 * 3600);
    let expired = observed(&service, 2).await;
    assert_eq!(expired.value(&waiting), 0.0);
    assert!(!expired.has(&of_group("dead_letters_oldest_seconds", "queue", "group")));
}

#[tokio::test]
async fn messages_that_expire_unread_are_told_of_before_and_after_the_group_comes_back() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2", "3"]).await;
    let failed = service.receive(&group, 1).await;
    service.ack(&group, &handlers(&failed, false)).await.unwrap();
    service.advance(71 * 3600);
    service.send(&queue, &["4"]).await;
    service.advance(2 * 3600);
    let of = |metrics: &Metrics, name: &str| metrics.value(&of_group(name, "queue", "group"));
    let before = observed(&service, 2).await;
    // The failed one is waiting still; what is left of the retention is that of the fourth.
    assert_eq!((of(&before, "backlog_messages"), of(&before, "expired_messages")), (2.0, 2.0));
    assert_eq!((of(&before, "oldest_seconds"), of(&before, "retention_left_seconds")), (7200.0, 70.0 * 3600.0));
    assert_eq!(bodies(&service.receive(&group, 10).await), ["4"]);
    let after = Metrics::of(&service).await;
    assert_eq!((of(&after, "backlog_messages"), of(&after, "expired_messages")), (1.0, 0.0));
    assert_eq!(after.values("dms_expired_messages_total", "kind", ["unread", "failed"]), [2.0, 1.0]);
}

#[tokio::test]
async fn a_short_retention_is_told_of_as_it_is() {
    let service = TestService::start().await;
    let request = pb::CreateQueueRequest {
        project_id: PROJECT.into(),
        name: "short".into(),
        queue_mode: pb::QueueMode::KafkaHa.into(),
        retention_hours: Some(1),
        ..Default::default()
    };
    let queue = service.replica.queues.clone().create_queue(request).await.unwrap().into_inner().queue.unwrap().id;
    service.group(&queue, "group").await;
    service.send(&queue, &["1", "2"]).await;
    service.advance(2400);
    service.send(&queue, &["3"]).await;
    service.advance(2400);
    let metrics = observed(&service, 2).await;
    let value = |name: &str| metrics.value(&of_group(name, "short", "group"));
    assert_eq!((value("backlog_messages"), value("expired_messages")), (1.0, 2.0));
    assert_eq!((value("oldest_seconds"), value("retention_left_seconds")), (2400.0, 1200.0));
}

#[tokio::test]
async fn an_old_message_is_shown_beside_large_backlogs() {
    let service = TestService::start().await;
    let old = service.queue("old").await;
    service.group(&old, "group").await;
    service.send(&old, &["1"]).await;
    service.advance(3600);
    for name in ["large", "larger"] {
        let queue = service.queue(name).await;
        service.group(&queue, "group").await;
        service.send(&queue, &["1", "2", "3"]).await;
    }
    let metrics = observed(&service, 2).await;
    assert_eq!(metrics.value(&of_group("backlog_messages", "old", "group")), 1.0);
    assert_eq!(metrics.value("dms_groups_left_out"), 1.0);
}

#[tokio::test]
async fn who_holds_dead_rows_is_seen_also_when_it_has_only_written() {
    let service = TestService::start().await;
    service.queue("queue").await;
    let mut sql = service.sql().await;
    let mut forgotten = sql.begin().await.unwrap();
    sqlx::query("UPDATE queues SET name = name").execute(&mut *forgotten).await.unwrap();
    for _ in 0..3 {
        service.queue(&uuid::Uuid::new_v4().simple().to_string()).await;
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let metrics = observed(&service, 2).await;
    assert!(metrics.value("dms_postgres_oldest_snapshot_transactions") >= 3.0);
    assert!(metrics.value("dms_postgres_oldest_snapshot_seconds") >= 1.0);
    forgotten.rollback().await.unwrap();
}

/// What another broker on the same database and clock says of groups, at once.
async fn observed(service: &TestService, groups_max: u32) -> Metrics {
    let options = BrokerOptions {
        database: service.database.url().into(),
        settings: Settings { pool_connections: 2, ..Settings::default() },
        clock: Some(Arc::new(service.clock.clone())),
    };
    let broker = Broker::start(options).await.unwrap();
    // The replica of the test reads them for all.
    broker.observe_groups(groups_max).await.unwrap();
    let metrics = Metrics::parsed(&broker.metrics().text());
    broker.shutdown().await;
    metrics
}

#[tokio::test]
async fn what_cannot_be_read_is_counted() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    let taken = service.receive(&group, 10).await;
    service.send(&queue, &["2", "3"]).await;
    service.sql().await.execute(SPOIL).await.unwrap();
    // It has none of them in memory.
    let other = service.another_replica().await;
    assert_eq!(bodies(&group.receive_from(&other, 10).await), ["3"]);
    group.ack_at(&other, &handlers(&taken, false)).await.unwrap();
    let metrics = Metrics::at(&other).await;
    assert_eq!(metrics.value("dms_corrupt_messages_total"), 1.0);
    assert_eq!(metrics.value("dms_dead_letters_lost_total"), 1.0);
    assert_eq!(metrics.value(r#"dms_settled_messages_total{outcome="dead"}"#), 1.0);
    assert_eq!(Metrics::of(&service).await.value("dms_corrupt_messages_total"), 0.0);
    other.shutdown().await;
}

#[tokio::test]
async fn only_the_largest_backlogs_are_shown_deliveries_in_flight_among_them() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    let done = service.group(&queue, "done").await;
    let held = service.group(&queue, "held").await;
    service.group(&queue, "untouched").await;
    service.send(&queue, &["1", "2"]).await;
    service.work_off(&done, 2).await;
    assert_eq!(service.receive(&held, 2).await.len(), 2);
    let metrics = Metrics::of(&service).await;
    // The tests show two groups.
    assert_eq!(metrics.value("dms_groups_left_out"), 1.0);
    for (group, shown) in [("done", false), ("held", true), ("untouched", true)] {
        assert_eq!(metrics.has(&of_group("backlog_messages", "queue", group)), shown, "{group}");
    }
    let none = observed(&service, 0).await;
    assert_eq!(none.value("dms_groups_left_out"), 3.0);
    assert!(!none.has("dms_group_backlog_messages{"));
}

#[tokio::test]
async fn a_scrape_does_not_wait_for_a_postgres_that_is_slow_and_shows_nothing_stale() {
    let service = TestService::start().await;
    let queue = service.queue("queue").await;
    service.group(&queue, "group").await;
    let series = of_group("backlog_messages", "queue", "group");
    let metrics = Metrics::of(&service).await;
    assert_eq!((metrics.value(&series), metrics.value("dms_figures_read")), (0.0, 1.0));
    let mut sql = service.sql().await;
    let mut somebody = sql.begin().await.unwrap();
    sqlx::query("LOCK TABLE consumer_groups").execute(&mut *somebody).await.unwrap();
    // What was read is good for a few seconds.
    eventually("nothing is read any more", async || {
        let asked = Instant::now();
        let metrics = Metrics::of(&service).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(metrics.value("dms_postgres_up"), 1.0);
        metrics.value("dms_figures_read") == 0.0 && !metrics.has(&series)
    })
    .await;
    somebody.rollback().await.unwrap();
    eventually("all is read again", async || Metrics::of(&service).await.has(&series)).await;
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
