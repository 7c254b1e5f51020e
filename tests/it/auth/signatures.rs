//! Signed requests over REST: right, altered, late, repeated; and that nobody can pass for the gateway.

use std::time::{Duration, SystemTime};

use dms::auth::{AuthOptions, Methods, SignatureOptions, SignatureRules};
use dms::observe::metrics::RestRequests;
use dms::reload::Source;
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::transport::Endpoint;

use crate::rest::paths::walk;
use crate::support::calls::eventually;
use crate::support::credentials::{SecretFile, call};
use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService, code};
use crate::support::signer::Signer;
use crate::support::wire::Wire;

const LIST: &str = "/dms.v1.QueueService/ListQueues";

fn keys(entries: &[(&str, &str, &str, &str)]) -> serde_json::Value {
    let entry = |(access, secret, project, role): &(&str, &str, &str, &str)| json!({ "access": access, "secret": secret, "name": "test", "projects": [project], "roles": [role] });
    json!({ "keys": entries.iter().map(entry).collect::<Vec<_>>() })
}

async fn service(keys: Source) -> TestService {
    guarded(keys, SignatureRules { replay_window: Duration::from_secs(4), ..SignatureRules::default() }).await
}

async fn guarded(keys: Source, rules: SignatureRules) -> TestService {
    let signatures = Some(SignatureOptions { keys, rules });
    TestService::guarded(AuthOptions::Required(Methods { signatures, ..Methods::default() })).await
}

async fn usual() -> (TestService, Rest) {
    let entries =
        [("AK", "SK", PROJECT, "admin"), ("OTHER", "SK2", "other", "admin"), ("READ", "SK3", PROJECT, "read-only")];
    let service = service(Source::Text(keys(&entries).to_string())).await;
    let rest = Rest::new(&service.replica);
    (service, rest)
}

#[tokio::test]
async fn a_signature_opens_the_whole_api_of_its_project() {
    let (_service, rest) = usual().await;
    let signed = rest.signing(&Signer::new("AK", "SK"));
    walk(&signed, "/quotas/dms").await;
    walk(&signed.at("v2", PROJECT), "/quotas").await;
    // Two equal requests of one second have one signature.
    for _ in 0..3 {
        signed.get("/queues?include_deadletter=true&include_messages_num=false").await.ok(200);
    }
    signed.delete(&format!("/queue/{}/tags/%E4%B8%80%20~", uuid::Uuid::new_v4())).await.error();
}

#[tokio::test]
async fn wrong_keys_and_roles_have_their_codes() {
    let (_service, rest) = usual().await;
    for (access, secret, status, expected) in [
        ("AK", "SK2", 401, "DMS.10240101"),
        ("NONE", "SK", 401, "DMS.10240101"),
        ("OTHER", "SK2", 401, "DMS.10240104"),
        ("READ", "SK3", 403, "DMS.10240310"),
    ] {
        let refused = rest.signing(&Signer::new(access, secret)).post("/queues", &json!({ "name": "q" })).await;
        assert_eq!(refused.code(), (status, expected.into()), "{access}");
    }
}

#[tokio::test]
async fn what_is_signed_cannot_be_altered_on_the_way() {
    let (_service, rest) = usual().await;
    let signer = Signer::new("AK", "SK");
    let signed = |path: &str, body: &'static str| {
        let mut request = rest.request(Method::POST, path).body(body).build().unwrap();
        signer.sign(&mut request, SystemTime::now());
        request
    };
    let mut body = signed("/queues", r#"{"name":"a"}"#);
    *body.body_mut() = Some(r#"{"name":"b"}"#.into());
    let mut path = signed("/queues", r#"{"name":"c"}"#);
    let url = path.url().as_str().replace(PROJECT, "other");
    *path.url_mut() = url.parse().unwrap();
    let mut query = signed("/queues", r#"{"name":"d"}"#);
    query.url_mut().set_query(Some("x=1"));
    let mut method = signed("/queues", "");
    *method.method_mut() = Method::GET;
    for request in [body, path, query, method] {
        assert_eq!(rest.execute(request).await.code(), (401, "DMS.10240101".into()));
    }
    rest.execute(signed("/queues", r#"{"name":"e"}"#)).await.ok(201);
}

#[tokio::test]
async fn an_old_date_is_refused_and_a_recorded_request_too() {
    let (_service, rest) = usual().await;
    let signer = Signer::new("AK", "SK");
    let signed_at = |at| {
        let mut request = rest.request(Method::GET, "/queues").build().unwrap();
        signer.sign(&mut request, at);
        request
    };
    let now = SystemTime::now();
    for far in [now - Duration::from_secs(1000), now + Duration::from_secs(1000)] {
        assert_eq!(rest.execute(signed_at(far)).await.code(), (401, "DMS.10240102".into()));
    }
    let recorded = signed_at(now - Duration::from_secs(600));
    rest.execute(recorded.try_clone().unwrap()).await.ok(200);
    rest.execute(recorded.try_clone().unwrap()).await.ok(200);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rest.execute(recorded).await.code(), (401, "DMS.10240101".into()));
    rest.execute(signed_at(SystemTime::now())).await.ok(200);
}

#[tokio::test]
async fn a_recorded_send_is_taken_some_times_and_no_more() {
    // Longer than the test takes, so that only the count can refuse.
    let rules = SignatureRules { replay_window: Duration::from_secs(300), uses_max: 3, ..SignatureRules::default() };
    let entries = [("AK", "SK", PROJECT, "admin"), ("OTHER", "SK2", PROJECT, "admin")];
    let service = guarded(Source::Text(keys(&entries).to_string()), rules).await;
    let rest = Rest::new(&service.replica);
    let (queue, group) = rest.signing(&Signer::new("AK", "SK")).queue_and_group(&json!({ "name": "q" })).await;
    let path = format!("/queues/{queue}/messages");
    let recorded = |access: &str, secret: &str| {
        let body = json!({ "messages": [{ "body": "once" }] }).to_string();
        let mut request = rest.request(Method::POST, &path).body(body).build().unwrap();
        Signer::new(access, secret).sign(&mut request, SystemTime::now());
        request
    };
    let request = recorded("AK", "SK");
    let mut taken = 0;
    for _ in 0..50 {
        taken += u32::from(rest.execute(request.try_clone().unwrap()).await.status == 201);
    }
    assert_eq!(taken, 3);
    rest.execute(recorded("OTHER", "SK2")).await.ok(201);
    assert_eq!(rest.signing(&Signer::new("AK", "SK")).consume(&group).await.0.len(), 4);
}

#[tokio::test]
async fn a_signed_request_repeats_no_parameter_but_tag_and_is_for_this_host() {
    let hosts = vec!["127.0.0.1".parse().unwrap()];
    let source = || Source::Text(keys(&[("AK", "SK", PROJECT, "admin")]).to_string());
    let here = guarded(source(), SignatureRules { hosts, ..SignatureRules::default() }).await;
    let signed = Rest::new(&here.replica).signing(&Signer::new("AK", "SK"));
    let (_queue, group) = signed.queue_and_group(&json!({ "name": "q" })).await;
    signed.get(&format!("{group}/messages?tag=b&tag=a&time_wait=1")).await.ok(200);
    let refused = signed.get(&format!("{group}/messages?max_msgs=1&max_msgs=10&time_wait=1")).await;
    assert_eq!(refused.code(), (401, "DMS.10240101".into()));
    let hosts = vec!["dms.example".parse().unwrap()];
    let elsewhere = guarded(source(), SignatureRules { hosts, ..SignatureRules::default() }).await;
    let refused = Rest::new(&elsewhere.replica).signing(&Signer::new("AK", "SK")).get("/queues").await;
    assert_eq!(refused.code(), (401, "DMS.10240101".into()));
}

#[tokio::test]
async fn only_the_gateway_of_the_same_process_can_say_what_was_signed() {
    let (service, rest) = usual().await;
    let mut request = rest.request(Method::GET, "/queues").build().unwrap();
    Signer::new("AK", "SK").sign(&mut request, SystemTime::now());
    let authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
    let metadata =
        [("authorization", authorization.as_str()), ("x-sdk-date", request.headers()["x-sdk-date"].to_str().unwrap())];
    let refused = call(&service.replica.channel, LIST, PROJECT, &metadata).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10240101");
    // A gateway on its own passes the header on, and is believed as little.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alone = Rest::on(&format!("http://{}", listener.local_addr().unwrap()));
    let upstream = Endpoint::from_shared(service.replica.grpc()).unwrap().connect_lazy();
    let app = dms::gateway::router(
        upstream,
        dms::memory::Memory::of_gateway(1 << 28).unwrap(),
        RestRequests::default(),
        std::sync::Arc::new(dms::net::OpenDoor),
    );
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    let refused = alone.signing(&Signer::new("AK", "SK")).get("/queues").await;
    assert_eq!(refused.code(), (401, "DMS.10240101".into()));
    serving.abort();
}

#[tokio::test]
async fn keys_are_rotated_by_writing_the_file_anew() {
    let file = SecretFile::new(&keys(&[("OLD", "SK", PROJECT, "admin")]));
    let service = service(file.source()).await;
    let rest = Rest::new(&service.replica);
    let status = async |access: &str| rest.signing(&Signer::new(access, "SK")).get("/queues").await.status;
    assert_eq!((status("OLD").await, status("NEW").await), (200, 401));
    file.write(&keys(&[("NEW", "SK", PROJECT, "admin")]));
    eventually("the new key is good", async || status("NEW").await == 200).await;
    assert_eq!(status("OLD").await, 401);
}

#[tokio::test]
async fn a_signature_that_cannot_be_good_is_refused_before_its_body_comes() {
    let (service, rest) = usual().await;
    let body = r#"{"name":"q"}"#;
    let head = |access: &str, at: SystemTime| {
        let mut request = rest.request(Method::POST, "/queues").body(body).build().unwrap();
        Signer::new(access, "SK").sign(&mut request, at);
        let headers = request.headers().iter().filter(|(name, _)| *name != "content-length");
        let headers: String = headers.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap())).collect();
        let (path, length) = (request.url().path().to_owned(), body.len());
        format!("POST {path} HTTP/1.1\r\ncontent-length: {length}\r\n{headers}\r\n")
    };
    let now = SystemTime::now();
    for (access, at) in
        [("NONE", now), ("AK", now - Duration::from_secs(3_600)), ("AK", now + Duration::from_secs(3_600))]
    {
        let begun = std::time::Instant::now();
        let answer = Wire::open(&service.replica).await.ask(head(access, at)).await;
        assert_eq!(answer.status, 401, "{access}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{access}: {:?}", begun.elapsed());
    }
    // One that may be good waits for its body.
    let mut wire = Wire::open(&service.replica).await;
    wire.send(head("AK", now)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(wire.ask(body).await.status, 201);
}
