//! What the log says of credentials: who was let in, never with what.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dms::auth::{AuthOptions, JwtOptions, JwtRules, Methods, SignatureOptions};
use dms::watched::Source;
use serde_json::json;
use tracing::level_filters::LevelFilter;

use crate::support::credentials::{Issuer, SecretFile, call, tokens};
use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService};
use crate::support::signer::Signer;

const LIST: &str = "/dms.v1.QueueService/ListQueues";

/// Everything that is logged on this thread while it lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false);
        tracing::subscriber::set_default(lines.with_writer(move || log.clone()).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

// On one thread, so that all of it is captured.
#[tokio::test(flavor = "current_thread")]
async fn credentials_are_never_logged_and_callers_are() {
    let log = Log::default();
    let _capturing = log.capture();
    let issuer = Issuer::new();
    let file = SecretFile::new(&tokens(&[("token-hunter2", &[PROJECT], &["read-only"])]));
    let grant = json!({ "access": "AK", "secret": "secret-hunter2", "name": "signer", "projects": [PROJECT], "roles": ["admin"] });
    let rules = JwtRules {
        issuer: "i".into(),
        audience: "dms".into(),
        project_claim: "p".into(),
        role_claim: "r".into(),
        leeway: Duration::ZERO,
    };
    let methods = Methods {
        tokens: Some(file.source()),
        jwt: Some(JwtOptions { keys: Source::Text(issuer.jwks().to_string()), rules }),
        signatures: Some(SignatureOptions {
            keys: Source::Text(json!({ "keys": [grant] }).to_string()),
            date_window: Duration::from_secs(900),
            replay_window: Duration::from_secs(5),
        }),
    };
    let service = TestService::guarded(AuthOptions::Required(methods)).await;
    let rest = Rest::new(&service.replica);
    let jwt = issuer.sign(&json!({ "iss": "i", "aud": "dms", "exp": 4_000_000_000_u64, "sub": "a\nforged line", "p": PROJECT, "r": "admin" }));
    let expired = issuer.sign(&json!({ "iss": "i", "aud": "dms", "exp": 1, "p": PROJECT, "r": "admin" }));
    for token in ["token-hunter2", "wrong-hunter2", "wrong.hunter2.token", &jwt, &expired] {
        let bearer = format!("Bearer {token}");
        let _ = call(&service.replica.channel, LIST, PROJECT, &[("authorization", &bearer)]).await;
        rest.showing("x-auth-token", token).post("/queues", &json!({ "name": "body-hunter2" })).await;
    }
    rest.showing("authorization", "Basic hunter2").get("/queues").await;
    rest.signing(&Signer::new("AK", "secret-hunter2")).get("/queues").await.ok(200);
    rest.signing(&Signer::new("AK", "wrong")).get("/queues").await;
    let text = log.text();
    assert!(text.contains("caller=\"'owner of ") && text.contains("caller=\"'signer'\""), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("forged line")), "{text}");
    let jwts = [jwt, expired].map(|jwt| jwt.rsplit('.').next().unwrap().to_owned());
    for secret in ["hunter2", &jwts[0], &jwts[1]] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
