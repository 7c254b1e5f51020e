//! `dms doctor` on a real database.

use std::process::{Command, Output};

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::postgres::TestDatabase;

async fn doctor(url: &str, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
    command.args(["doctor", "--database-url", url]).args(flags);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
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
async fn a_database_that_is_not_there_is_said_so() {
    let output = doctor("postgres://nobody@127.0.0.1:1/none", &[]).await;
    assert!(!output.status.success() && text(&output).contains("Postgres cannot be reached"), "{}", text(&output));
}
