//! A database that is away: the documented error, fast; probes that say so; everything back when it is back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dms::broker::{Broker, BrokerOptions, Settings};
use dms::domain::ErrorKind;
use dms::store;
use dms_postgres::{Cluster, ClusterOptions};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::storage::cluster::{Folder, kill};
use crate::support::calls::eventually;
use crate::support::panics;
use crate::support::rest::{Answer, Rest, all};
use crate::support::service::{PROJECT, Replica, code};

const DATABASE: &str = "dms";
/// How soon a call must say that the database is away.
const SOON: Duration = Duration::from_secs(8);
/// With it the sends of many callers make flushes that are committed first and confirmed later.
const PADDING_BYTES: usize = 20_000;

async fn started(folder: &Folder) -> Cluster {
    let options = ClusterOptions {
        data_dir: Some(folder.0.clone()),
        durable: true,
        postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
        ..ClusterOptions::default()
    };
    tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap()
}

async fn stopped(cluster: Cluster) {
    tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap().unwrap();
}

/// A service on a server of its own.
async fn service(folder: &Folder) -> (Cluster, Replica, Rest) {
    panics::watch();
    let cluster = started(folder).await;
    let url = cluster.url(DATABASE);
    store::schema::database::create_if_absent(&url).await.unwrap();
    store::migrate(&url).await.unwrap();
    let replica = Replica::start(&url, Settings::default(), None).await;
    let rest = Rest::new(&replica);
    (cluster, replica, rest)
}

async fn health(replica: &Replica) -> ServingStatus {
    let request = HealthCheckRequest { service: "dms.v1.MessageService".into() };
    HealthClient::new(replica.channel.clone()).check(request).await.unwrap().into_inner().status()
}

#[track_caller]
fn unavailable(what: &str, asked: Instant, answer: &Answer) {
    let (status, code, message) = answer.error();
    assert_eq!((status, code.as_str()), (500, "DMS.10250003"), "{what}: {message}");
    assert!(message.starts_with("the database "), "{what}: {message}");
    assert_eq!(answer.headers["retry-after"], "1", "{what}");
    assert!(asked.elapsed() < SOON, "{what}: {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_database_is_told_and_everything_resumes_when_it_is_back() {
    let folder = Folder::new();
    let (cluster, replica, rest) = service(&folder).await;
    assert_eq!(rest.probe("/readyz").await, (200, "ready\n".into()));
    assert_eq!(health(&replica).await, ServingStatus::Serving);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    rest.send_bodies(&queue, &[json!(1), json!(2), json!(3)]).await;
    let taken = rest.get(&format!("{group}/messages?max_msgs=2&ack_wait=300")).await.ok(200);
    let handler = |index: usize| taken[index]["handler"].as_str().unwrap();
    rest.ack(&group, &[(handler(0), "success")]).await.ok(200);

    stopped(cluster).await;
    let message = json!({ "messages": [{ "body": 4 }] });
    let ack = json!({ "message": [{ "handler": handler(1) }] });
    let calls = [
        ("GET", "/queues".to_owned(), Value::Null),
        ("POST", "/queues".to_owned(), json!({ "name": "other" })),
        ("GET", format!("/queues/{queue}/groups"), Value::Null),
        ("GET", "/quotas/dms".to_owned(), Value::Null),
        ("GET", format!("/queue/{queue}/tags"), Value::Null),
        ("POST", format!("/queues/{queue}/messages"), message),
        ("POST", format!("{group}/ack"), ack),
        ("DELETE", format!("/queues/{queue}"), Value::Null),
    ];
    for (method, path, body) in calls {
        let (asked, body) = (Instant::now(), (!body.is_null()).then(|| body.to_string().into_bytes()));
        let answer = rest.call(method.parse().unwrap(), &path, body).await;
        unavailable(&format!("{method} {path}"), asked, &answer);
    }
    let asked = Instant::now();
    let request = dms_client::v1::ListQueuesRequest { project_id: PROJECT.into(), ..Default::default() };
    let status = replica.queues.clone().list_queues(request).await.unwrap_err();
    assert_eq!((status.code(), code(&status)), (Code::Unavailable, "DMS.10250003".into()));
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());

    eventually("not ready", async || rest.probe("/readyz").await == (503, "not ready\n".into())).await;
    assert_eq!(health(&replica).await, ServingStatus::NotServing);
    assert_eq!(rest.probe("/healthz").await, (200, "alive\n".into()));
    let asked = Instant::now();
    let metrics = reqwest::get(format!("{}/metrics", replica.admin())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\ndms_postgres_up 0\n") && asked.elapsed() < SOON, "{:?}: {metrics}", asked.elapsed());

    let cluster = started(&folder).await;
    eventually("ready", async || rest.probe("/readyz").await == (200, "ready\n".into())).await;
    assert_eq!(health(&replica).await, ServingStatus::Serving);
    // The queue and the lease are as they were; what was refused has not happened.
    assert_eq!(rest.get("/queues").await.ok(200)["total"], json!(1));
    assert_eq!(rest.ack(&group, &[(handler(1), "success")]).await.ok(200), json!({ "success": 1, "fail": 0 }));
    rest.send_bodies(&queue, &[json!(5)]).await;
    assert_eq!(drained(&rest, &group).await, [json!(3), json!(5)]);
    replica.shutdown().await;
    stopped(cluster).await;
    panics::none_seen();
}

/// Consumes and acknowledges until nothing is left.
async fn drained(rest: &Rest, group: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        let (bodies, handlers) = rest.consume(group).await;
        if bodies.is_empty() {
            return seen;
        }
        rest.ack(group, &all(&handlers, "success")).await.ok(200);
        seen.extend(bodies);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_waits_through_an_outage_is_answered() {
    let folder = Folder::new();
    let (cluster, replica, rest) = service(&folder).await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let waiting = {
        let (rest, path) = (rest.clone(), format!("{group}/messages?time_wait=60"));
        tokio::spawn(async move { rest.get(&path).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    stopped(cluster).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cluster = started(&folder).await;
    eventually("ready", async || rest.probe("/readyz").await.0 == 200).await;
    eventually("sent", async || {
        rest.post(&format!("/queues/{queue}/messages"), &json!({ "messages": [{ "body": 1 }] })).await.status == 201
    })
    .await;
    // Either it was told of the outage, or it has the message.
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    match answer.status {
        200 => assert_eq!(answer.ok(200)[0]["message"]["body"], json!(1)),
        _ => {
            assert_eq!(answer.code(), (500, "DMS.10250003".into()));
            assert_eq!(rest.consume(&group).await.0, [json!(1)]);
        }
    }
    replica.shutdown().await;
    stopped(cluster).await;
    panics::none_seen();
}

/// Sends numbers from `first` on until told to stop; those that were answered with success.
async fn send_until(rest: Rest, queue: String, first: i64, stop: tokio_util::sync::CancellationToken) -> Vec<i64> {
    let mut answered = Vec::new();
    for number in first.. {
        if stop.is_cancelled() {
            break;
        }
        let attributes = json!({ "padding": "x".repeat(PADDING_BYTES) });
        let body = json!({ "messages": [{ "body": number, "attributes": attributes }] });
        let answer = rest.post(&format!("/queues/{queue}/messages"), &body).await;
        match answer.status {
            201 => answered.push(number),
            _ => {
                assert_eq!(answer.code(), (500, "DMS.10250003".into()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_is_lost_when_the_database_is_killed() {
    let folder = Folder::new();
    let (cluster, replica, rest) = service(&folder).await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let senders: Vec<_> = (0..24)
        .map(|number| tokio::spawn(send_until(rest.clone(), queue.clone(), number * 1_000_000, stop.clone())))
        .collect();
    let mut sql = PgConnection::connect(&cluster.url(DATABASE)).await.unwrap();
    // One of the queue's lane for small flushes, the others for large ones.
    let lanes = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dms-append'";
    eventually("flushes overlap", async || sqlx::query_scalar::<_, i64>(lanes).fetch_one(&mut sql).await.unwrap() > 1)
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill(Signal::KILL, cluster.pid().unwrap());
    let mut cluster = Some(cluster);
    eventually("the server is gone", async || cluster.as_mut().unwrap().ended().unwrap().is_some()).await;
    drop(cluster.take());
    let cluster = started(&folder).await;
    eventually("ready", async || rest.probe("/readyz").await.0 == 200).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.cancel();
    let mut answered = BTreeSet::new();
    for sender in senders {
        let sent = sender.await.unwrap();
        assert!(!sent.is_empty());
        answered.extend(sent);
    }
    let seen = drained(&rest, &group).await;
    let unique: BTreeSet<i64> = seen.iter().map(|body| body.as_i64().unwrap()).collect();
    assert_eq!(unique.len(), seen.len(), "delivered twice without a failure");
    let lost: Vec<&i64> = answered.difference(&unique).collect();
    assert!(lost.is_empty(), "{lost:?}");
    replica.shutdown().await;
    stopped(cluster).await;
    panics::none_seen();
}

#[tokio::test]
async fn a_start_that_is_refused_a_connection_says_so() {
    let folder = Folder::new();
    let (cluster, ..) = service(&folder).await;
    let mut sql = PgConnection::connect(&cluster.url(DATABASE)).await.unwrap();
    sqlx::query("CREATE ROLE few LOGIN CONNECTION LIMIT 0").execute(&mut sql).await.unwrap();
    let database_url = cluster.url(DATABASE).replace("user=postgres", "user=few");
    let options = BrokerOptions { database: database_url.into(), settings: Settings::default(), clock: None };
    // SQLSTATE 53300: Postgres is there, and has said no.
    let refused = Broker::start(options).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let told = refused.message();
    let expected = [
        "Postgres cannot be reached at /",
        &format!(":5432/{DATABASE} as few: too many connections"),
        "(SQLSTATE 53300)",
    ];
    assert!(expected.iter().all(|part| told.contains(part)), "{told}");
    let nowhere =
        BrokerOptions { database: "postgres://127.0.0.1:9/none".into(), settings: Settings::default(), clock: None };
    let away = Broker::start(nowhere).await.unwrap_err();
    assert_eq!(away.kind(), ErrorKind::Unavailable);
    let told = away.message();
    assert!(told.contains("cannot be reached at 127.0.0.1:9/none as ") && told.contains("refused"), "{told}");
}
