//! A service that is to be started without saying who may call it, or on a database that is not ready for it.

use std::process::{Command, Output};

use sqlx::Executor as _;

use crate::support::postgres::TestDatabase;

fn serve(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
    command.args(["serve", "--grpc-addr=127.0.0.1:0", "--rest-addr=off", "--admin-addr=off"]).args(flags);
    for name in ["DMS_AUTH", "DMS_AUTH_TOKENS", "DMS_AUTH_TOKENS_FILE"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Flags, variables, and what the complaint says.
type Case = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static [&'static str]);

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_and_says_what_to_choose() {
    let database = TestDatabase::create().await;
    let url = format!("--database-url={}", database.url());
    let cases: [Case; 8] = [
        (&[], &[], &["--auth", "DMS_AUTH", "tokens", "jwt", "aksk", "none"]),
        (&["--auth=none,jwt"], &[], &["none stands alone"]),
        (&["--auth=passwords"], &[], &["invalid value 'passwords'", "none, tokens, jwt, aksk"]),
        (&[], &[("DMS_AUTH", "tokens")], &["--auth-tokens-file", "DMS_AUTH_TOKENS_FILE"]),
        (&["--auth=tokens", "--auth-tokens-file=/nowhere/tokens"], &[], &["'/nowhere/tokens' cannot be read"]),
        (&["--auth=tokens"], &[("DMS_AUTH_TOKENS", "hunter2")], &["tokens: not JSON, at line 1"]),
        (&["--auth=aksk", "--auth-aksk=hunter2"], &[], &["--auth-aksk", "can read a command line", "variable"]),
        (
            &["--auth=jwt", "--auth-jwks-url=https://u:hunter2@id.example/keys"],
            &[],
            &["--auth-jwks-url: give it without user and password"],
        ),
    ];
    for (flags, variables, expected) in cases {
        let output = serve(&[&[url.as_str()][..], flags].concat(), variables);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{flags:?}");
        for words in expected {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_on_an_older_schema_and_says_what_to_run() {
    let database = TestDatabase::create().await;
    let mut sql = database.sql().await;
    let newest: i64 = sqlx::query_scalar("SELECT max(version) FROM dms_migrations").fetch_one(&mut sql).await.unwrap();
    let url = format!("--database-url={}", database.url());
    for (change, said) in [
        (
            "DELETE FROM dms_migrations WHERE version = (SELECT max(version) FROM dms_migrations)",
            format!("is at version {} and this program needs {newest}", newest - 1),
        ),
        ("DROP TABLE dms_migrations", "the schema dms has no tables of dms".to_owned()),
    ] {
        sql.execute(change).await.unwrap();
        let output = serve(&[url.as_str(), "--auth=none"], &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        let expected = format!("{said}: run `dms migrate` first");
        assert!(!output.status.success() && text.contains(&expected), "{text}");
    }
}
