//! Files and URLs of credentials that hang or are no files: rotation goes on afterwards, metrics and log say so meanwhile, the process ends in time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::calls::eventually;
use crate::support::credentials::{Issuer, SecretFile, tokens};
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;
use crate::support::service::PROJECT;

/// A drain of nothing, and what is left for a loaded machine.
const ENDS_WITHIN: Duration = Duration::from_secs(8);
const ADMIN: &[&str] = &["admin"];

fn of(token: &str) -> Value {
    tokens(&[(token, &[PROJECT], ADMIN)])
}

fn by_tokens(file: &SecretFile) -> [String; 2] {
    ["--auth=tokens".to_owned(), format!("--auth-tokens-file={}", file.0.display())]
}

async fn is_good(service: &Logged, token: &str) -> bool {
    service.rest.showing("x-auth-token", token).get("/queues").await.status == 200
}

/// The value of a series on the admin port.
async fn metric(service: &Logged, series: &str) -> f64 {
    let text = reqwest::get(format!("{}/metrics", service.admin)).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}: {text}"));
    line.trim().parse().unwrap()
}

fn ends_in_time(mut service: Logged) {
    let begun = Instant::now();
    service.stop();
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}: {}", begun.elapsed(), service.text());
}

/// Puts a FIFO in the place of a file, as a whole.
fn into_fifo(file: &SecretFile) {
    let new = file.0.with_extension("fifo");
    assert!(Command::new("mkfifo").arg(&new).status().unwrap().success());
    std::fs::rename(&new, &file.0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_a_fifo_is_told_of_and_rotation_goes_on_after_it() {
    let database = TestDatabase::create().await;
    let file = SecretFile::new(&of("old"));
    let service = Logged::serve(&database, by_tokens(&file)).await;
    assert!(is_good(&service, "old").await);
    assert!(metric(&service, r#"dms_credentials_age_seconds{source="tokens"}"#).await < 60.0);
    into_fifo(&file);
    eventually("the log says so", async || service.text().contains("is a FIFO: give a regular file")).await;
    eventually("failures are counted and the age grows", async || {
        metric(&service, r#"dms_credentials_failures_total{source="tokens"}"#).await >= 2.0
            && metric(&service, r#"dms_credentials_age_seconds{source="tokens"}"#).await > 3.0
    })
    .await;
    assert_eq!(service.text().matches("credentials are not renewed").count(), 1, "once a minute: {}", service.text());
    assert!(is_good(&service, "old").await, "what was before stays in force");
    file.write(&of("new"));
    eventually("the new token is good", async || is_good(&service, "new").await).await;
    assert!(!is_good(&service, "old").await);
    assert!(metric(&service, r#"dms_credentials_age_seconds{source="tokens"}"#).await < 60.0);
    into_fifo(&file);
    ends_in_time(service);
}

/// Holds a lease of the kernel on a file: whoever opens it hangs, as on a mount whose server is away.
struct Held(Child);

impl Held {
    fn new(file: &SecretFile) -> Self {
        // 1024 is F_SETLEASE and 1 is F_WRLCK. There is none while somebody reads the file.
        const SCRIPT: &str = r#"$SIG{IO} = "IGNORE"; $| = 1;
            open(my $file, ">>", $ARGV[0]) or die $!;
            until (fcntl($file, 1024, 1)) { select(undef, undef, undef, 0.001) }
            print "held\n"; sleep 40;"#;
        let perl = Command::new("perl").args(["-e", SCRIPT]).arg(&file.0).stdout(Stdio::piped()).spawn();
        let mut perl = perl.unwrap();
        let mut said = String::new();
        BufReader::new(perl.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n");
        Self(perl)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_holds_up_neither_calls_nor_later_rotation_nor_the_end() {
    let database = TestDatabase::create().await;
    let file = SecretFile::new(&of("old"));
    let service = Logged::serve(&database, by_tokens(&file)).await;
    let held = Held::new(&file);
    eventually("the read is given up", async || service.text().contains("no answer within 10 s")).await;
    assert!(is_good(&service, "old").await, "what was before stays in force");
    drop(held);
    file.write(&of("new"));
    eventually("the new token is good", async || is_good(&service, "new").await).await;
    let _held = Held::new(&file);
    // The next look has begun and hangs.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ends_in_time(service);
}

#[test]
fn it_does_not_start_on_a_fifo_and_says_why() {
    let file = SecretFile::new(&of("old"));
    into_fifo(&file);
    let begun = Instant::now();
    let path = file.0.display();
    for flags in [
        vec!["--auth=tokens".to_owned(), format!("--auth-tokens-file={path}")],
        vec!["--auth=none".to_owned(), format!("--tls-cert={path}"), format!("--tls-key={path}")],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
        command.args(["serve", "--database-url=postgres://nobody@127.0.0.1:1/none", "--grpc-addr=127.0.0.1:0"]);
        let output = command.args(["--rest-addr=off", "--admin-addr=off"]).args(flags).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains("is a FIFO: give a regular file"), "{text}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_dms"))
        .args(["gateway", "--upstream=https://127.0.0.1:1", "--rest-addr=127.0.0.1:0", "--admin-addr=off"])
        .arg(format!("--upstream-ca={path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("upstream-tls: ") && text.contains("is a FIFO"), "{text}");
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
}

/// Publishes keys to whoever asks first, and then takes connections and says nothing.
fn publish_once(jwks: &Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let body = jwks.to_string();
    thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let _ = first.read(&mut [0; 4096]);
        let length = body.len();
        let _ = write!(first, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        drop(first);
        let silent: Vec<_> = listener.incoming().collect();
        drop(silent);
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_never_answers_ends_neither_the_checks_nor_the_process_late() {
    let (database, issuer, stranger) = (TestDatabase::create().await, Issuer::new(), Issuer::new());
    let url = publish_once(&issuer.jwks());
    let flags = ["--auth=jwt", "--auth-jwt-issuer=i", "--auth-jwt-audience=dms"].map(str::to_owned);
    let service = Logged::serve(&database, flags.into_iter().chain([format!("--auth-jwks-url={url}")])).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": "i", "aud": "dms", "exp": now + 600, "project_id": PROJECT, "roles": "admin" });
    let (good, unknown) = (issuer.sign(&claims), stranger.sign(&claims));
    assert!(is_good(&service, &good).await);
    // A key that is not known makes it ask again, some seconds after the time before, and that is given up after ten.
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_good(&service, &unknown).await || !service.text().contains("no answer in time") {
        assert!(Instant::now() < deadline, "the fetch is not given up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(metric(&service, r#"dms_credentials_failures_total{source="jwks"}"#).await >= 1.0);
    assert!(is_good(&service, &good).await, "what was before stays in force");
    assert!(!is_good(&service, &unknown).await);
    ends_in_time(service);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_let_nobody_in_are_told_of_at_the_start() {
    let database = TestDatabase::create().await;
    let tokens = SecretFile::new(&tokens(&[]));
    let entry = json!({ "access": "AK", "secret": "s\n", "name": "shop", "projects": ["*"], "roles": ["admin"] });
    let keys = SecretFile::new(&json!({ "keys": [entry] }));
    let flags = [
        "--auth=tokens,aksk".to_owned(),
        format!("--auth-tokens-file={}", tokens.0.display()),
        format!("--auth-aksk-file={}", keys.0.display()),
    ];
    let service = Logged::serve(&database, flags).await;
    for words in
        ["the list of tokens is empty: no token lets anybody in", "keys[0].secret begins or ends with white space"]
    {
        assert!(service.text().contains(words), "{words}: {}", service.text());
    }
    keys.write(&json!({ "keys": [] }));
    let words = "the list of access keys is empty: no signature lets anybody in";
    eventually("it is told of later too", async || service.text().contains(words)).await;
}
