//! `DATABASE_URL` as libpq reads it, and what is said when there is no way to a database that can be used.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms::store;
use dms_postgres::{Cluster, ClusterOptions};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::calls::eventually;
use crate::support::postgres::TestDatabase;
use crate::support::service::Replica;

const DATABASE: &str = "dms";

/// Clear of what a developer's shell knows about Postgres.
fn dms(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
    command.args(arguments);
    for name in
        ["DATABASE_URL", "PGHOST", "PGPORT", "PGTARGETSESSIONATTRS", "PGCONNECT_TIMEOUT", "PGSSLMODE", "DMS_SCHEMA"]
    {
        command.env_remove(name);
    }
    command
}

async fn ended(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn serve(url: &str) -> Command {
    let flags = ["--grpc-addr=127.0.0.1:0", "--rest-addr=off", "--admin-addr=off", "--auth=none"];
    dms(&[&["serve", "--database-url", url][..], &flags].concat())
}

#[tokio::test]
async fn what_is_not_understood_is_refused_by_name_at_the_start() {
    for (url, part) in [
        ("mysql://u:hunter2@h/db", "database-url: its scheme is mysql; give postgres://"),
        (
            "postgres://u:hunter2@h/db?sslmod=require",
            "database-url: the parameter sslmod is not supported; supported are",
        ),
        ("postgres://u:hunter2@a,b/db?target_session_attrs=prefer-standby", "give read-write, primary or any"),
        ("postgres://u:hunter2@h:port/db", "port: give a number of 1 to 65535"),
    ] {
        for command in ["serve", "migrate", "doctor"] {
            let mut command = dms(&[command, "--database-url", url]);
            command.env("DMS_AUTH", "none");
            let text = said(&ended(command).await);
            assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_found_at_addresses_of_ipv6_at_sockets_and_by_variables() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    assert!(
        TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok(),
        "this machine has no IPv6 on its loopback interface"
    );
    let settings = [("listen_addresses", "127.0.0.1,::1".to_owned()), ("port", port.to_string())];
    let options = ClusterOptions {
        postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
        settings: settings.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        ..ClusterOptions::default()
    };
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap();
    let folder = cluster.socket().parent().unwrap().display().to_string();
    let encoded = folder.replace('/', "%2F");
    store::schema::database::create_if_absent(format!("postgres://postgres@[::1]:{port}/{DATABASE}")).await.unwrap();
    for url in [
        format!("postgres://postgres:p%40ss@[::1]:{port}/{DATABASE}"),
        format!("postgresql://postgres@127.0.0.1:{port}/{DATABASE}?sslmode=prefer&connect_timeout=10"),
        format!("postgres://postgres@/{DATABASE}?host={folder}&port={port}"),
        format!("postgres://postgres@{encoded}:{port}/d%6Ds"),
        // The first of them is nobody.
        format!("postgres://postgres@127.0.0.1:1,[::1]:{port}/{DATABASE}?target_session_attrs=read-write"),
    ] {
        let text = said(&ended(dms(&["migrate", "--database-url", &url])).await);
        assert!(text.contains("schema dms is at version "), "{url}: {text}");
    }
    let mut command = dms(&["migrate", "--database-url", "postgres:///dms"]);
    command.env("PGHOST", "127.0.0.1,::1").env("PGPORT", format!("1,{port}")).env("PGUSER", "postgres");
    assert!(ended(command).await.status.success());
    // What the URL sets begins with its name, and may not lead elsewhere.
    let url = format!(
        "postgres://postgres@[::1]:{port}/{DATABASE}?application_name=shop-dms&options=-c%20search_path%3Dpublic"
    );
    let replica = Replica::start(url.as_str(), Settings { pool_connections: 2, ..Settings::default() }, None).await;
    let pool = sqlx::PgPool::connect(&Cluster::url_at(([127, 0, 0, 1], port).into(), DATABASE)).await.unwrap();
    let named = async |pattern: &str| {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1";
        sqlx::query_scalar::<_, i64>(count).bind(pattern.to_owned()).fetch_one(&pool).await.unwrap()
    };
    // Those that listen and read the clock connect at once, lanes when there is something to do.
    eventually("sessions have the name that the URL gives", async || named("shop-dms-%").await >= 2).await;
    assert_eq!(named("dms%").await, 0);
    replica.shutdown().await;
    pool.close().await;
    tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_cannot_reach_postgres_is_told_where_and_why_and_never_the_password() {
    let url = "postgres://someone:hunter2@127.0.0.1:1/shop";
    let refused = "Postgres cannot be reached at 127.0.0.1:1/shop as someone: ";
    let database = TestDatabase::create().await;
    let wrong = format!("{}&user=nobody_{}&password=hunter2", database.url(), uuid::Uuid::new_v4().simple());
    for (url, parts) in [(url, [refused, "onnection refused"]), (&wrong, ["as nobody_", "(SQLSTATE 28"])] {
        for mut command in
            [serve(url), dms(&["migrate", "--database-url", url]), dms(&["doctor", "--database-url", url])]
        {
            command.env("PGPASSWORD", "hunter2");
            let output = ended(command).await;
            let text = said(&output);
            assert!(!output.status.success(), "{text}");
            assert!(parts.iter().all(|part| text.contains(part)) && !text.contains("hunter2"), "{parts:?}: {text}");
        }
    }
}

#[tokio::test]
async fn a_database_that_cannot_hold_all_text_is_refused_with_what_to_do() {
    let database = TestDatabase::create().await;
    let name = format!("latin_{}", uuid::Uuid::new_v4().simple());
    let mut sql = database.sql().await;
    sql.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")))
        .await
        .unwrap();
    let own = database.url().split_once('?').unwrap().0.rsplit('/').next().unwrap().to_owned();
    let url = database.url().replace(&own, &name);
    for command in [serve(&url), dms(&["migrate", "--database-url", &url]), dms(&["doctor", "--database-url", &url])] {
        let output = ended(command).await;
        let text = said(&output);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("LATIN1") && text.contains("TEMPLATE template0 ENCODING 'UTF8'"), "{text}");
    }
    store::schema::database::drop_database(database.url(), &name).await.unwrap();
}

#[tokio::test]
async fn a_replica_says_at_the_start_how_many_connections_it_needs() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    for (limit, parts) in
        [(2, ["cannot run with less than", "ALTER ROLE"]), (20, ["too few connections are free", "needed=23"])]
    {
        let role = format!("few_{}", uuid::Uuid::new_v4().simple());
        let make = format!(
            "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'few' CONNECTION LIMIT {limit}; ALTER ROLE {role} NOSUPERUSER; GRANT postgres TO {role}; ALTER ROLE {role} SET role = postgres"
        );
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut sql).await.unwrap();
        let begun = Instant::now();
        let mut command = serve(&format!("{}&user={role}&password=few", database.url()));
        let mut child = Ending(command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        let text = read_until(&mut child.0, &parts).await;
        assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {text}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        if limit == 2 {
            let mut status = None;
            eventually("it has ended", async || {
                status = child.0.try_wait().unwrap();
                status.is_some()
            })
            .await;
            assert!(!status.unwrap().success());
        }
        drop(child);
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
        eventually("its sessions are gone", async || {
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(gone.clone())).fetch_one(&mut sql).await.unwrap() == 0
        })
        .await;
        sql.execute(AssertSqlSafe(format!("DROP ROLE {role}"))).await.unwrap();
    }
}

/// Reads lines of its log until all parts have come, or it ends.
async fn read_until(child: &mut Child, parts: &[&'static str]) -> String {
    use std::io::{BufRead as _, BufReader};
    let lines = BufReader::new(child.stderr.take().unwrap());
    let parts = parts.to_vec();
    tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        for line in lines.lines() {
            text += &line.unwrap();
            text.push('\n');
            if parts.iter().all(|part| text.contains(part)) {
                break;
            }
        }
        text
    })
    .await
    .unwrap()
}

/// Ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_signal_is_heeded_while_it_waits_for_postgres() {
    // It takes connections and never answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("postgres://someone@{}/shop?connect_timeout=600", silent.local_addr().unwrap());
    let mut child = Ending(serve(&url).stderr(Stdio::null()).spawn().unwrap());
    // The signals are caught before it connects.
    let _connected = tokio::task::spawn_blocking(move || silent.accept().unwrap()).await.unwrap();
    let begun = Instant::now();
    let pid = child.0.id().to_string();
    assert!(Command::new("/bin/sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status().unwrap().success());
    let mut status = None;
    eventually("it has ended", async || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(
        status.unwrap().success() && begun.elapsed() < Duration::from_secs(5),
        "{status:?} after {:?}",
        begun.elapsed()
    );
}
