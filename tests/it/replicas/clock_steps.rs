//! Postgres's clock set by hours and days, forwards and back, under a replica that goes by it: every stream stays writable and readable at
//! once and after it is mended, nothing is lost, and no lease outlives the step. The library of the fault suite sets the clock.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dms::broker::Settings;
use dms::broker::clock::ManualClock;
use dms::domain::clock::Timestamp;
use dms_client::v1 as pb;
use dms_lab::chaos::clocks::Clocks;
use dms_postgres::{Cluster, ClusterOptions};

use crate::support::calls::eventually;
use crate::support::postgres::TestDatabase;
use crate::support::service::{Group, Replica, TestService, handlers};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// A service on a Postgres whose clock can be set.
struct Site {
    service: TestService,
    clocks: Clocks,
    folder: PathBuf,
    /// Outlives the database.
    _cluster: Cluster,
}

impl Site {
    async fn open() -> Self {
        let folder = std::env::temp_dir().join(format!("dms-clock-steps-{:016x}", rand::random::<u64>()));
        fs::create_dir_all(&folder).unwrap();
        let clocks = Clocks::build(&folder).expect("this test needs a C compiler");
        let options = ClusterOptions {
            environment: clocks.settable(),
            postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
            ..ClusterOptions::default()
        };
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap();
        let database = TestDatabase::create_on(&cluster).await;
        let replica = Replica::start(database.url(), Settings::default(), None).await;
        // Nobody goes by it.
        let clock = ManualClock::new(Timestamp(0));
        Self { service: TestService { replica, clock, database }, clocks, folder, _cluster: cluster }
    }

    /// How far Postgres's clock is ahead of this machine's, in seconds.
    async fn ahead(&self) -> i64 {
        let there = self.service.number("SELECT extract(epoch FROM clock_timestamp())::bigint").await;
        there - i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
    }

    /// Steps that the replica has noticed.
    async fn noticed(&self) -> u64 {
        let text =
            reqwest::get(format!("{}/metrics", self.service.replica.admin())).await.unwrap().text().await.unwrap();
        let counts = text.lines().filter(|line| line.starts_with("dms_clock_steps_total{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    async fn close(self) {
        self.service.replica.shutdown().await;
        drop(self.service.database);
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// A queue of each mode with a group that keeps up and one that does not.
async fn queues(service: &TestService, name: &str) -> Vec<[Group; 2]> {
    let mut groups = Vec::new();
    for mode in [pb::QueueMode::Normal, pb::QueueMode::Fifo, pb::QueueMode::KafkaHa, pb::QueueMode::KafkaHt] {
        let queue = service.queue_of(&format!("{name}-{}", mode.as_str_name()), mode).await;
        groups.push([service.group(&queue, "keeps-up").await, service.group(&queue, "late").await]);
    }
    groups
}

async fn send_and_receive(service: &TestService, groups: &[[Group; 2]], body: &str) {
    for [group, _] in groups {
        service.send(&group.queue, &[body]).await;
        assert_eq!(service.work_off(group, 1).await, [body], "queue {}", group.queue);
    }
}

#[tokio::test]
async fn steps_of_hours_and_days_leave_every_stream_writable_and_readable() {
    let site = Site::open().await;
    let service = &site.service;
    let before = queues(service, "before").await;
    send_and_receive(service, &before, "0").await;
    let (mut sent, mut offset, mut during) = (vec!["0".to_owned()], 0, Vec::new());
    for (number, step) in (1_u64..).zip([3 * DAY, -3 * DAY, -HOUR, HOUR, -3 * DAY, 3 * DAY]) {
        site.clocks.step(step).unwrap();
        offset += step / 1_000_000;
        assert!((site.ahead().await - offset).abs() < 5, "the clock of Postgres is set");
        for when in ["at once", "when it is known"] {
            sent.push(format!("\"{number} {when}\""));
            send_and_receive(service, &before, sent.last().unwrap()).await;
            eventually("the replica has noticed", async || site.noticed().await >= number).await;
        }
        if number == 1 {
            during = queues(service, "during").await;
        }
        send_and_receive(service, &during, "1").await;
    }
    for [_, late] in &before {
        assert_eq!(service.work_off(late, sent.len()).await, sent, "nothing expired or was passed over");
        assert_eq!(service.counts(late).await[2], 0);
    }
    let days = service.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'segments'::regclass").await;
    assert!(days <= 12, "{days} partitions: four for each time that the clock showed");
    site.close().await;
}

#[tokio::test]
async fn leases_go_along_with_a_clock_that_is_put_back() {
    let site = Site::open().await;
    let service = &site.service;
    let queue = service.queue_of("queue", pb::QueueMode::Fifo).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1", "2"]).await;
    let batch = service.receive(&group, 1).await;
    site.clocks.step(-3 * DAY).unwrap();
    let left = "SELECT extract(epoch FROM max(expires_at) - clock_timestamp())::bigint FROM leases";
    eventually("the lease ends in seconds again", async || service.number(left).await <= 30).await;
    assert!(service.number(left).await > 5, "and not before its time");
    assert!(service.consume(&group, 1).await.is_empty(), "it is still there");
    service.ack(&group, &handlers(&batch, true)).await.unwrap();
    assert_eq!(service.work_off(&group, 1).await, ["2"]);
    site.close().await;
}

#[tokio::test]
async fn leases_left_by_a_clock_that_was_put_back_end_within_minutes() {
    let service = TestService::start().await;
    let queue = service.queue_of("queue", pb::QueueMode::Fifo).await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    service.receive(&group, 1).await;
    let ahead = "UPDATE leases SET expires_at = expires_at + interval '3 days'";
    sqlx::query(ahead).execute(&mut service.sql().await).await.unwrap();
    let replica = Replica::start(service.database.url(), Settings::default(), None).await;
    let left = "SELECT extract(epoch FROM max(expires_at) - clock_timestamp())::bigint FROM leases";
    eventually("no lease is longer than any may be", async || service.number(left).await <= 310).await;
    replica.shutdown().await;
}

#[tokio::test]
async fn a_replica_reads_the_clock_on_a_connection_of_its_own_every_few_seconds() {
    let service = TestService::start().await;
    let replica = Replica::start(service.database.url(), Settings::default(), None).await;
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dms-clock' AND datname = current_database()";
    assert_eq!(service.number(sessions).await, 1, "the manual clock of the other one reads nothing");
    // It comes back when its session is ended.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dms-clock'
               AND datname = current_database()";
    sqlx::query(end).execute(&mut service.sql().await).await.unwrap();
    let fresh =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dms-clock' AND datname = current_database()
                 AND backend_start > clock_timestamp() - interval '10 s' AND state_change > backend_start";
    tokio::time::sleep(Duration::from_millis(200)).await;
    eventually("a new session", async || service.number(fresh).await == 1).await;
    let text = reqwest::get(format!("{}/metrics", replica.admin())).await.unwrap().text().await.unwrap();
    let error = text.lines().find_map(|line| line.strip_prefix("dms_clock_error_seconds ")).unwrap();
    let error: f64 = error.parse().unwrap();
    assert!(error > 0.0 && error < 2.0, "{error}");
    replica.shutdown().await;
}
