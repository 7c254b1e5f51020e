//! A service that is to be started without saying who may call it.

use std::process::{Command, Output};

use crate::support::postgres::TestDatabase;

fn serve(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
    command.args(["serve", "--grpc-addr=127.0.0.1:0", "--rest-addr=off"]).args(flags);
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
    let cases: [Case; 6] = [
        (&[], &[], &["--auth", "DMS_AUTH", "tokens", "jwt", "aksk", "none"]),
        (&["--auth=none,jwt"], &[], &["none stands alone"]),
        (&["--auth=passwords"], &[], &["invalid value 'passwords'", "none, tokens, jwt, aksk"]),
        (&[], &[("DMS_AUTH", "tokens")], &["--auth-tokens-file", "DMS_AUTH_TOKENS_FILE"]),
        (&["--auth=tokens", "--auth-tokens-file=/nowhere/tokens"], &[], &["'/nowhere/tokens' cannot be read"]),
        (&["--auth=tokens"], &[("DMS_AUTH_TOKENS", "hunter2")], &["tokens: not JSON, at line 1"]),
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
