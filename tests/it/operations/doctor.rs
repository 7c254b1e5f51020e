//! `dms doctor` on a real database.

use std::process::{Command, Output};

use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use uuid::Uuid;

use crate::support::calls::eventually;
use crate::support::postgres::TestDatabase;

async fn doctor(url: &str, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
    command.args(["doctor", "--database-url", url]).args(flags);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn run(sql: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(sql).await.unwrap();
}

/// For sessions of the database that begin later.
async fn alter_database(sql: &mut PgConnection, change: &str) {
    run(sql, format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {change}', current_database()); END $$")).await;
}

#[tokio::test]
async fn it_looks_at_everything_and_says_what_to_do() {
    let database = TestDatabase::create().await;
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    let text_of_all = text(&output);
    for part in [
        "this machine's, give or take",
        "streams end at most",
        "Postgres 1",
        "fsync",
        "max_wal_size",
        "max_connections",
        "schema is at version",
        "no migration has stopped",
        "autovacuum looks after the hot tables",
        "leases: ",
        "the log has no partition for tomorrow",
        "the log holds 0 MB in 0 partitions",
        "writes stop at 2147483648",
        "of the tables of dms ",
        "partitions of past days are frozen",
    ] {
        assert!(text_of_all.contains(part), "{part}: {text_of_all}");
    }
    let output = doctor(database.url(), &["--replicas", "1000"]).await;
    assert!(!output.status.success() && text(&output).contains("-> raise max_connections"), "{}", text(&output));

    let mut sql = database.sql().await;
    sql.execute("DROP TABLE dms_migrations").await.unwrap();
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    assert!(!output.status.success() && text(&output).contains("-> run dms migrate"), "{}", text(&output));
}

#[tokio::test]
async fn a_role_without_rights_and_a_database_for_reading_are_bad() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    // A role that every server has, and that may do nothing here.
    alter_database(&mut sql, "SET role = pg_signal_backend").await;
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    let text_of_all = text(&output);
    for part in
        ["lacks ", "INSERT on segments", "ownership of segments", "may not read the version", "GRANT pg_read_all_stats"]
    {
        assert!(text_of_all.contains(part), "{part}: {text_of_all}");
    }
    assert!(!output.status.success());

    alter_database(&mut sql, "SET role = none").await;
    alter_database(&mut sql, "SET default_transaction_read_only = on").await;
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    let expected = "BAD      transaction_read_only = on";
    assert!(!output.status.success() && text(&output).contains(expected), "{}", text(&output));
}

#[tokio::test]
async fn the_narrowest_limit_of_connections_is_named() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    // Superusers are bound by neither limit, and the tests run as one.
    let role = format!("limited_{}", Uuid::new_v4().simple());
    run(&mut sql, format!("CREATE ROLE {role} LOGIN PASSWORD 'limited' CONNECTION LIMIT 20")).await;
    let url = format!("{}&user={role}&password=limited", database.url());
    let of_role = doctor(&url, &["--replicas", "1"]).await;
    alter_database(&mut sql, "CONNECTION LIMIT 19").await;
    let of_database = doctor(&url, &["--replicas", "1"]).await;
    let of_superuser = doctor(database.url(), &["--replicas", "1"]).await;
    run(&mut sql, format!("DROP ROLE {role}")).await;

    let name = format!("BAD      1 replicas need 23 connections; the narrowest limit is that of the role {role}: 20");
    for (output, parts) in [
        (of_role, [name.as_str(), "-> ALTER ROLE"]),
        (of_database, ["the narrowest limit is that of the database: 19", "-> ALTER DATABASE"]),
        (of_superuser, ["warning  the database lets in 19 connections", "ok       1 replicas need 23 connections"]),
    ] {
        assert!(parts.iter().all(|part| text(&output).contains(part)), "{parts:?}: {}", text(&output));
    }
}

#[tokio::test]
async fn a_transaction_that_has_written_and_has_no_snapshot_is_found() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    let mut writer = database.sql().await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut writer).await.unwrap();
    writer.execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let query = "SELECT backend_xid IS NOT NULL AND backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $1";
    let bare: bool = sqlx::query_scalar(query).bind(pid).fetch_one(&mut sql).await.unwrap();
    assert!(bare, "it has an id and no snapshot");
    // The oldest are shown, and other tests may have older ones for a while.
    let session = format!("session {pid} (");
    eventually("the session is named", async || text(&doctor(database.url(), &[]).await).contains(&session)).await;
    writer.execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn tables_without_autovacuum_and_half_a_migration_are_bad() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    sql.execute(
        "ALTER TABLE leases SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
         ALTER TABLE streams SET (autovacuum_enabled = on);
         INSERT INTO dms_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'that has stopped half way', false, '', 0)",
    )
    .await
    .unwrap();
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    for part in [
        "BAD      autovacuum has been told to leave alone leases, TOAST of leases\n",
        "RESET (autovacuum_enabled)",
        "BAD      half applied: migration 9999\n",
    ] {
        assert!(text(&output).contains(part), "{part}: {}", text(&output));
    }
    assert!(!output.status.success());
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_so() {
    let output = doctor("postgres://nobody@127.0.0.1:1/none", &[]).await;
    assert!(!output.status.success() && text(&output).contains("Postgres cannot be reached"), "{}", text(&output));
}
