//! PgBouncer in front of Postgres: by session it is as good as Postgres itself, by transaction it is refused with what to do.
//!
//! `scripts/setup-pgbouncer` installs it. Without it, and without root to install it, DMS_TEST_PGBOUNCER=absent leaves this out.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use dms::broker::{Broker, BrokerOptions, Settings};
use dms::store;
use dms_postgres::{Cluster, ClusterOptions};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::storage::cluster::Folder;
use crate::support::calls::eventually;
use crate::support::rest::Rest;
use crate::support::service::Replica;

const DATABASE: &str = "dms";

/// Ends with the test.
struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn pgbouncer() -> Option<&'static str> {
    let found = ["/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
    let found = found.into_iter().find(|path| fs::exists(path).unwrap());
    let left_out = std::env::var("DMS_TEST_PGBOUNCER").is_ok_and(|value| value == "absent");
    assert!(
        found.is_some() || left_out,
        "install pgbouncer (scripts/setup-pgbouncer), or set DMS_TEST_PGBOUNCER=absent"
    );
    found
}

/// One that gives out sessions in this way; its URL.
async fn pooled(program: &str, folder: &Folder, cluster: &Cluster, mode: &str) -> (Pooler, String) {
    let (port, sockets) = (free_port(), cluster.socket().parent().unwrap().display().to_string());
    let file = folder.0.join(format!("{mode}.ini"));
    // As it is installed, but for what a driver in Rust sends: nothing.
    let text = format!(
        "[databases]\n{DATABASE} = host={sockets} port=5432 user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\npool_mode = {mode}\nmax_client_conn = 100\ndefault_pool_size = 60\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    // It does not run as root, and may enter the folder of the socket as the account of Postgres only.
    if Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0" {
        command.args(["-u", "postgres"]);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&folder.0, mode).unwrap();
    }
    let pooler = Pooler(command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let url = format!("postgres://postgres@127.0.0.1:{port}/{DATABASE}?sslmode=disable");
    eventually("the pooler answers", async || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()).await;
    (pooler, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_by_transaction_is_refused_and_one_by_session_is_served() {
    let Some(program) = pgbouncer() else {
        println!("left out: pgbouncer is not installed");
        return;
    };
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let options = ClusterOptions {
        postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
        ..ClusterOptions::default()
    };
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap();
    store::schema::database::create_if_absent(cluster.url(DATABASE)).await.unwrap();
    store::migrate(cluster.url(DATABASE)).await.unwrap();

    let (by_transaction, url) = pooled(program, &folder, &cluster, "transaction").await;
    let advice = "in session mode (pool_mode = session)";
    let migrated = store::migrate(&url).await.unwrap_err().to_string();
    assert!(migrated.contains(advice), "{migrated}");
    let options = BrokerOptions { database: url.as_str().into(), settings: Settings::default(), clock: None };
    let served = Broker::start(options).await.unwrap_err().to_string();
    assert!(served.contains(advice), "{served}");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_dms"));
    doctor.args(["doctor", "--database-url", &url]);
    let output = tokio::task::spawn_blocking(move || doctor.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("BAD      sessions last no longer than a transaction") && text.contains(advice), "{text}");
    drop(by_transaction);

    let (by_session, url) = pooled(program, &folder, &cluster, "session").await;
    store::migrate(&url).await.unwrap();
    let replica = Replica::start(url.as_str(), Settings { pool_connections: 2, ..Settings::default() }, None).await;
    let rest = Rest::new(&replica);
    let (queue, _) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let sent = rest.post(&format!("/queues/{queue}/messages"), &json!({ "messages": [{ "body": 1 }] })).await;
    assert_eq!(sent.status, 201, "{}", sent.text);
    // What a session is told after its beginning came through, though a pool drops what is said at the beginning.
    let mut sql = PgConnection::connect(&cluster.url(DATABASE)).await.unwrap();
    let tables = "SELECT count(*) FROM dms.queues";
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut sql).await.unwrap(), 1);
    drop(sql);
    replica.shutdown().await;
    drop(by_session);
    tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap().unwrap();
}
