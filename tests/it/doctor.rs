//! `dms doctor` on a real database.

use std::process::{Command, Output};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::support::postgres::TestDatabase;

async fn doctor(url: &str, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
    command.args(["doctor", "--database-url", url]).args(flags);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// For sessions of the database that begin later.
async fn set(sql: &mut PgConnection, setting: &str) {
    let statement =
        format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {setting}', current_database()); END $$");
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(sql).await.unwrap();
}

#[tokio::test]
async fn it_looks_at_everything_and_says_what_to_do() {
    let database = TestDatabase::create().await;
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    let text_of_all = text(&output);
    for part in ["clocks of this machine", "Postgres 1", "fsync", "max_connections", "schema is at version", "leases: "]
    {
        assert!(text_of_all.contains(part), "{part}: {text_of_all}");
    }
    let output = doctor(database.url(), &["--replicas", "1000"]).await;
    assert!(!output.status.success() && text(&output).contains("-> raise max_connections"), "{}", text(&output));

    let mut sql = PgConnection::connect(database.url()).await.unwrap();
    sql.execute("DROP TABLE _sqlx_migrations").await.unwrap();
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    assert!(!output.status.success() && text(&output).contains("-> run dms migrate"), "{}", text(&output));
}

#[tokio::test]
async fn a_role_without_rights_and_a_database_for_reading_are_bad() {
    let database = TestDatabase::create().await;
    let mut sql = PgConnection::connect(database.url()).await.unwrap();
    // A role that every server has, and that may do nothing here.
    set(&mut sql, "role = pg_signal_backend").await;
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    let text_of_all = text(&output);
    for part in
        ["lacks ", "INSERT on segments", "ownership of segments", "may not read the version", "GRANT pg_read_all_stats"]
    {
        assert!(text_of_all.contains(part), "{part}: {text_of_all}");
    }
    assert!(!output.status.success());

    set(&mut sql, "role = none").await;
    set(&mut sql, "default_transaction_read_only = on").await;
    let output = doctor(database.url(), &["--replicas", "1"]).await;
    let expected = "BAD      transaction_read_only = on";
    assert!(!output.status.success() && text(&output).contains(expected), "{}", text(&output));
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_so() {
    let output = doctor("postgres://nobody@127.0.0.1:1/none", &[]).await;
    assert!(!output.status.success() && text(&output).contains("Postgres cannot be reached"), "{}", text(&output));
}
