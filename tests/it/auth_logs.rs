//! What the log says of credentials: who was let in, never with what. A process of its own, at the level that says most.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::{Child, Command};

use serde_json::json;
use tonic::transport::Endpoint;

use crate::support::calls::eventually;
use crate::support::credentials::{Issuer, SecretFile, call, tokens};
use crate::support::postgres::TestDatabase;
use crate::support::rest::Rest;
use crate::support::service::PROJECT;
use crate::support::signer::Signer;

const LIST: &str = "/dms.v1.QueueService/ListQueues";

/// `dms serve` with all ways to prove who calls.
struct Service {
    process: Child,
    log: SecretFile,
    rest: Rest,
    grpc: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Service {
    async fn start(database: &TestDatabase, files: [(&str, &SecretFile); 3]) -> Self {
        let (grpc, rest, log) = (free_address(), free_address(), SecretFile::text(""));
        let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
        command.args([
            "serve",
            "--admin-addr=off",
            "--log=trace",
            "--auth=tokens,jwt,aksk",
            "--auth-jwt-issuer=i",
            "--auth-jwt-audience=dms",
        ]);
        command.arg(format!("--database-url={}", database.url()));
        command.arg(format!("--grpc-addr={grpc}")).arg(format!("--rest-addr={rest}"));
        for (flag, file) in files {
            command.arg(flag).arg(&file.0);
        }
        let process = command.stderr(File::create(&log.0).unwrap()).spawn().unwrap();
        let service = Self { process, log, rest: Rest::on(&format!("http://{rest}")), grpc: format!("http://{grpc}") };
        eventually("it listens", async || reqwest::get(format!("http://{rest}/readyz")).await.is_ok()).await;
        service
    }
}

fn signature_of(jwt: &str) -> &str {
    jwt.rsplit('.').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_never_logged_and_callers_are() {
    let database = TestDatabase::create().await;
    let issuer = Issuer::new();
    let claims = |exp: u64| json!({ "iss": "i", "aud": "dms", "exp": exp, "sub": "a\nforged", "project_id": PROJECT, "roles": "admin" });
    let (jwt, expired) = (issuer.sign(&claims(4_000_000_000)), issuer.sign(&claims(1)));
    let grant = json!({ "access": "AK", "secret": "secret-hunter2", "name": "signer", "projects": [PROJECT], "roles": ["admin"] });
    let known = SecretFile::new(&tokens(&[("token-hunter2", &[PROJECT], &["read-only"])]));
    let (jwks, keys) = (SecretFile::new(&issuer.jwks()), SecretFile::new(&json!({ "keys": [grant] })));
    let files = [("--auth-tokens-file", &known), ("--auth-jwks-file", &jwks), ("--auth-aksk-file", &keys)];
    let service = Service::start(&database, files).await;
    let channel = Endpoint::from_shared(service.grpc.clone()).unwrap().connect_lazy();
    let body = json!({ "name": "q", "description": "body-hunter2" });
    for token in ["token-hunter2", "wrong-hunter2", "wrong.hunter2.token", &jwt, &expired] {
        let _ = call(&channel, LIST, PROJECT, &[("authorization", &format!("Bearer {token}"))]).await;
        service.rest.showing("x-auth-token", token).post("/queues", &body).await;
    }
    service.rest.showing("authorization", "Basic hunter2").get("/queues").await;
    service.rest.signing(&Signer::new("AK", "secret-hunter2")).get("/queues").await.ok(200);
    service.rest.signing(&Signer::new("AK", "wrong")).get("/queues").await;
    // A file that is written wrongly is complained of.
    known.write(&json!({ "tokens": "hunter2" }));
    let text = || fs::read_to_string(&service.log.0).unwrap();
    eventually("the complaint is logged", async || text().contains("a changed file is not taken")).await;
    let text = text();
    for caller in ["'owner of ", "'signer'", "'a\\\\nforged'"] {
        assert!(text.contains(&format!("caller=\"{caller}")), "{caller}");
    }
    assert!(!text.lines().any(|line| line.starts_with("forged")));
    for secret in ["hunter2", signature_of(&jwt), signature_of(&expired)] {
        assert_eq!(text.lines().find(|line| line.contains(secret)), None);
    }
}
