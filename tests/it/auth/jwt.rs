//! JWTs through both doors: right, wrong, expired, foreign, keys rotated.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dms::auth::{AuthOptions, JwtOptions, JwtRules, Methods};
use dms::reload::Source;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::rest::paths::walk;
use crate::support::calls::eventually;
use crate::support::credentials::{Issuer, SecretFile, refusal, tokens};
use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService};

const LIST: &str = "/dms.v1.QueueService/ListQueues";
const SEND: &str = "/dms.v1.MessageService/SendMessages";

fn options(keys: Source) -> JwtOptions {
    let rules = JwtRules {
        issuer: "https://issuer.test".into(),
        audience: "dms".into(),
        project_claim: "projects".into(),
        role_claim: "realm_access.roles".into(),
        leeway: Duration::from_secs(5),
    };
    JwtOptions { keys, rules }
}

fn claims(project: &str, roles: &[&str]) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({
        "iss": "https://issuer.test", "aud": "dms", "sub": "someone", "exp": now + 300,
        "projects": [project], "realm_access": { "roles": roles },
    })
}

async fn service(keys: Source) -> TestService {
    TestService::guarded(AuthOptions::Required(Methods { jwt: Some(options(keys)), ..Methods::default() })).await
}

#[tokio::test]
async fn a_token_of_the_issuer_opens_the_api_of_its_project() {
    let issuer = Issuer::new();
    let service = service(Source::Text(issuer.jwks().to_string())).await;
    let token = issuer.sign(&claims(PROJECT, &["admin", "offline_access"]));
    let rest = Rest::new(&service.replica);
    walk(&rest.showing("authorization", &format!("Bearer {token}")), "/quotas/dms").await;
    walk(&rest.showing("x-auth-token", &token).at("v2", PROJECT), "/quotas").await;
    assert_eq!(refusal(&service.replica.channel, LIST, PROJECT, &token).await, None);
}

#[tokio::test]
async fn everything_else_is_refused_through_both_doors() {
    let issuer = Issuer::new();
    let service = service(Source::Text(issuer.jwks().to_string())).await;
    let rest = Rest::new(&service.replica);
    let changed = |name: &str, value: Value| {
        let mut claims = claims(PROJECT, &["admin"]);
        claims[name] = value;
        issuer.sign(&claims)
    };
    let cases = [
        (changed("exp", json!(1_700_000_000)), 401, "DMS.10240102"),
        (changed("exp", Value::Null), 401, "DMS.10240101"),
        (changed("iss", json!("https://other.test")), 401, "DMS.10240101"),
        (changed("aud", json!(["other"])), 401, "DMS.10240101"),
        (changed("nbf", json!(4_000_000_000_u64)), 401, "DMS.10240101"),
        (Issuer::new().sign(&claims(PROJECT, &["admin"])), 401, "DMS.10240101"),
        (issuer.sign(&claims("other", &["admin"])), 401, "DMS.10240104"),
        (issuer.sign(&claims(PROJECT, &["uma_authorization"])), 403, "DMS.10240309"),
        (issuer.sign(&claims(PROJECT, &["read-only"])), 403, "DMS.10240310"),
        (issuer.sign(&claims(PROJECT, &["consumer"])), 403, "DMS.10240311"),
        ("opaque".to_owned(), 401, "DMS.10240101"),
    ];
    for (token, status, code) in cases {
        let path = format!("/queues/{}/messages", uuid::Uuid::new_v4());
        let sent = rest.showing("x-auth-token", &token).post(&path, &json!({ "messages": [{ "body": 1 }] })).await;
        assert_eq!(sent.code(), (status, code.into()), "{token}");
        let refused = refusal(&service.replica.channel, SEND, PROJECT, &token).await;
        assert_eq!(refused.as_deref(), Some(code), "{token}");
    }
}

#[tokio::test]
async fn keys_are_rotated_by_writing_the_file_anew() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let file = SecretFile::new(&old.jwks());
    let service = service(file.source()).await;
    let tokens = [old.sign(&claims(PROJECT, &["admin"])), new.sign(&claims(PROJECT, &["admin"]))];
    let good = async || {
        let channel = &service.replica.channel;
        let of = async |token: &str| refusal(channel, LIST, PROJECT, token).await.is_none();
        (of(&tokens[0]).await, of(&tokens[1]).await)
    };
    assert_eq!(good().await, (true, false));
    file.write(&json!({ "keys": [old.jwks()["keys"][0], new.jwks()["keys"][0]] }));
    eventually("both keys are known", async || good().await == (true, true)).await;
    file.write(&new.jwks());
    eventually("the old key is not", async || good().await == (false, true)).await;
}

#[tokio::test]
async fn keys_are_rotated_at_their_url() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let published = Arc::new(Mutex::new(old.jwks().to_string()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/certs", listener.local_addr().unwrap());
    let shown = Arc::clone(&published);
    let app = axum::Router::new().route("/certs", axum::routing::get(async move || shown.lock().unwrap().clone()));
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    let service = service(Source::Url(url.parse().unwrap())).await;
    let good = async |issuer: &Issuer| {
        let token = issuer.sign(&claims(PROJECT, &["admin"]));
        refusal(&service.replica.channel, LIST, PROJECT, &token).await.is_none()
    };
    assert!(good(&old).await && !good(&new).await);
    *published.lock().unwrap() = new.jwks().to_string();
    // The token with an unknown key is why it looks before its time.
    eventually("the new key is known", async || good(&new).await).await;
    assert!(!good(&old).await);
    serving.abort();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(good(&new).await, "an issuer that is away changes nothing");
}

#[tokio::test]
async fn static_tokens_stand_beside() {
    let issuer = Issuer::new();
    // A static token may look like anything.
    let entries = tokens(&[("static.looks.jwt", &[PROJECT], &["admin"])]);
    let methods = Methods {
        tokens: Some(Source::Text(entries.to_string())),
        jwt: Some(options(Source::Text(issuer.jwks().to_string()))),
        ..Methods::default()
    };
    let service = TestService::guarded(AuthOptions::Required(methods)).await;
    let jwt = issuer.sign(&claims(PROJECT, &["admin"]));
    for (token, refused) in
        [("static.looks.jwt", None), (&jwt, None), ("a.b.c", Some("DMS.10240101")), ("x", Some("DMS.10240101"))]
    {
        assert_eq!(refusal(&service.replica.channel, LIST, PROJECT, token).await.as_deref(), refused, "{token}");
    }
}
