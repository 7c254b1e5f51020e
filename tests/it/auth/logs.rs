//! What the log says of credentials: who was let in, never with what. A process of its own, at the level that says most.

use std::ffi::OsString;

use serde_json::json;
use tonic::transport::Endpoint;

use crate::support::calls::eventually;
use crate::support::credentials::{Issuer, SecretFile, call, tokens};
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;
use crate::support::service::PROJECT;
use crate::support::signer::Signer;

const LIST: &str = "/dms.v1.QueueService/ListQueues";

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
    let flags = ["--log=trace", "--auth=tokens,jwt,aksk", "--auth-jwt-issuer=i", "--auth-jwt-audience=dms"];
    let paths = files.iter().flat_map(|(flag, file)| [OsString::from(flag), file.0.clone().into_os_string()]);
    let service = Logged::serve(&database, flags.into_iter().map(OsString::from).chain(paths)).await;
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
    let complaint = async || service.text().contains("credentials are not renewed");
    eventually("the complaint is logged", complaint).await;
    let text = service.text();
    for caller in ["owner of ", "signer\"", "a\\\\nforged\""] {
        assert!(text.contains(&format!("caller=\"{caller}")), "{caller}");
    }
    assert!(!text.lines().any(|line| line.starts_with("forged")));
    for secret in ["hunter2", signature_of(&jwt), signature_of(&expired)] {
        assert_eq!(text.lines().find(|line| line.contains(secret)), None);
    }
}
