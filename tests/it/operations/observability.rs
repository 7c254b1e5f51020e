//! Alerts, dashboard and runbook speak of metrics that the service has, and the dashboard of all of them.

use std::collections::BTreeSet;

use dms::config::UpstreamTlsArgs;
use dms_client::v1 as pb;

use crate::rest::gateway_alone::with_tls_in_front_of;
use crate::support::calls::eventually;
use crate::support::credentials::SecretFile;
use crate::support::rest::Rest;
use crate::support::service::TestService;

const DASHBOARD: &str = include_str!("../../../deploy/observability/dashboard.json");
const FILES: [(&str, &str); 5] = [
    ("alerts.yaml", include_str!("../../../deploy/observability/alerts.yaml")),
    ("dashboard.json", DASHBOARD),
    ("operations.md", include_str!("../../../docs/operations.md")),
    ("metrics.md", include_str!("../../../docs/metrics.md")),
    ("runbook.md", include_str!("../../../deploy/observability/runbook.md")),
];
/// Labels that alerts select by.
const SELECTED: [&str; 9] = [
    r#"dms_pool_connections{state="idle"}"#,
    r#"dms_pool_connections{state="used"}"#,
    r#"dms_upkeep_failures_total{task="leases"}"#,
    r#"dms_upkeep_failures_total{task="delays"}"#,
    r#"dms_upkeep_last_success_timestamp_seconds{task="leases"}"#,
    r#"dms_upkeep_last_success_timestamp_seconds{task="delays"}"#,
    r#"dms_upkeep_last_success_timestamp_seconds{task="retention"}"#,
    r#"dms_lane_waiting_bytes{lane="append"}"#,
    r#"dms_calls_total{method="/dms.v1.MessageService/AckMessages",code="OK"}"#,
];

/// What reads like a metric of ours.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("dms_")).collect()
}

/// A service that has done something of everything, as it shows itself, and what a gateway in front of it shows.
async fn scraped() -> String {
    let service = TestService::start().await;
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "group").await;
    // One message stays, so that the group has an oldest one, and one becomes a dead letter.
    service.send(&queue, &["1", "2", "3"]).await;
    let leased = service.receive(&group, 2).await;
    service.ack(&group, &[(&leased[0].handler, true), (&leased[1].handler, false)]).await.unwrap();
    Rest::new(&service.replica).get("/queues").await.ok(200);
    let mut text = String::new();
    eventually("both steps of the upkeep have run", async || {
        text = metrics_at(service.replica.admin()).await;
        ["leases", "delays"].iter().all(|task| text.contains(&format!(r#"dms_upkeep_seconds{{task="{task}"}}"#)))
    })
    .await;
    let authorities = SecretFile::text("");
    let tls = UpstreamTlsArgs { upstream_ca: Some(authorities.0.clone()), ..UpstreamTlsArgs::default() };
    let (gateway, _rest) = with_tls_in_front_of(service.replica.grpc(), &tls).await;
    text + &metrics_at(&format!("http://{}", gateway.admin_addr().unwrap())).await
}

async fn metrics_at(admin: &str) -> String {
    reqwest::get(format!("{admin}/metrics")).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn alerts_dashboard_and_runbook_name_metrics_that_there_are() {
    let text = scraped().await;
    let samples = || text.lines().filter(|line| !line.starts_with('#'));
    let there: BTreeSet<&str> = samples().filter_map(|line| line.split(['{', ' ']).next()).collect();
    for (file, content) in FILES {
        let named = named(content);
        assert!(!named.is_empty(), "{file} names no metric");
        // The table of migrations is none.
        let missing: Vec<_> = named.difference(&there).filter(|name| **name != "dms_migrations").collect();
        assert!(missing.is_empty(), "{file}: {missing:?}\n{text}");
    }
    for series in SELECTED {
        assert!(samples().any(|line| line.starts_with(series)), "{series}\n{text}");
    }
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let unseen: Vec<_> = families.filter(|family| !DASHBOARD.contains(family)).collect();
    assert!(unseen.is_empty(), "not on the dashboard: {unseen:?}");
}
