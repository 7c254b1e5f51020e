//! A primary is lost and its standby promoted, and replicas know both by name: no proxy stands in front of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dms::broker::Settings;
use dms::store;
use dms_lab::sql::faults::FaultSession;
use dms_postgres::{Cluster, ClusterOptions};
use rustix::process::Signal;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::storage::cluster::{Folder, kill};
use crate::support::calls::eventually;
use crate::support::rest::Rest;
use crate::support::service::Replica;

const DATABASE: &str = "dms";

fn options(data_dir: &Path) -> ClusterOptions {
    ClusterOptions {
        data_dir: Some(data_dir.to_owned()),
        postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
        settings: vec![("wal_retrieve_retry_interval".to_owned(), "100ms".to_owned())],
        ..ClusterOptions::default()
    }
}

async fn started(options: ClusterOptions) -> Cluster {
    tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap()
}

/// The folder of its socket, as it stands in a URL.
fn host(cluster: &Cluster) -> String {
    cluster.socket().parent().unwrap().display().to_string().replace('/', "%2F")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_goes_to_the_standby_when_it_is_promoted_and_nothing_answered_is_lost() {
    let folder = Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let primary = started(options(&folder.0.join("primary"))).await;
    let url = primary.url(DATABASE);
    store::schema::database::create_if_absent(&url).await.unwrap();
    store::migrate(&url).await.unwrap();
    let copy = folder.0.join("standby");
    let bin = std::env::var_os("DMS_POSTGRES_BIN").map(PathBuf::from);
    let (primary, copied) = tokio::task::spawn_blocking(move || {
        let copied = primary.copy_as_standby(&copy, bin.as_deref());
        (primary, copied)
    })
    .await
    .unwrap();
    copied.unwrap();
    let standby = started(options(&folder.0.join("standby"))).await;
    FaultSession::connect(&url).await.unwrap().require_standby().await.unwrap();
    let mut session = FaultSession::connect(&url).await.unwrap();
    eventually("the standby has everything", async || session.has_standby().await.unwrap()).await;

    // The standby comes first: it answers, and is passed over.
    let hosts = format!("{},{}", host(&standby), host(&primary));
    let url = format!("postgres://postgres@/{DATABASE}?host={hosts}&target_session_attrs=read-write&sslmode=disable");
    let replica = Replica::start(url.as_str(), Settings { pool_connections: 3, ..Settings::default() }, None).await;
    let rest = Rest::new(&replica);
    let (queue, group) = rest.queue_and_group(&json!({ "name": "before" })).await;
    let path = format!("/queues/{queue}/messages");
    assert_eq!(rest.post(&path, &json!({ "messages": [{ "body": 1 }] })).await.status, 201);

    kill(Signal::KILL, primary.pid().unwrap());
    tokio::task::spawn_blocking(move || drop(primary)).await.unwrap();
    eventually("it is not ready", async || rest.probe("/readyz").await.0 == 503).await;
    FaultSession::connect(&standby.url(DATABASE)).await.unwrap().promote().await.unwrap();
    eventually("it is ready", async || rest.probe("/readyz").await.0 == 200).await;
    // The pool, the lanes, and the connection that hears of other replicas.
    eventually("queues are made", async || {
        rest.post("/queues", &json!({ "name": format!("after{}", Uuid::new_v4().simple()) })).await.status == 201
    })
    .await;
    let sent = async || rest.post(&path, &json!({ "messages": [{ "body": 2 }] })).await.status == 201;
    eventually("messages are sent", sent).await;
    let mut bodies = Vec::new();
    eventually("messages are consumed", async || {
        let answer = rest.get(&format!("{group}/messages?time_wait=1")).await;
        let messages: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        bodies.extend(messages.as_array().into_iter().flatten().map(|found| found["message"]["body"].clone()));
        bodies.len() >= 2
    })
    .await;
    assert_eq!(bodies, [json!(1), json!(2)]);
    let mut sql = PgConnection::connect(&standby.url(DATABASE)).await.unwrap();
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dms-listen'";
    eventually("wake-ups are heard", async || {
        sqlx::query_scalar::<_, i64>(listening).fetch_one(&mut sql).await.unwrap() == 1
    })
    .await;
    drop(sql);
    tokio::time::timeout(Duration::from_secs(20), replica.shutdown()).await.unwrap();
    tokio::task::spawn_blocking(move || standby.stop()).await.unwrap().unwrap();
}
