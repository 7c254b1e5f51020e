//! Static tokens through both doors: right, wrong, missing, foreign, rotated.

use dms::auth::{AuthOptions, Methods};
use serde_json::json;

use crate::rest::paths::walk;
use crate::support::calls::eventually;
use crate::support::credentials::{SecretFile, by_token, call, methods, tokens};
use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService, code};

const LIST: &str = "/dms.v1.QueueService/ListQueues";
const ADMIN: &[&str] = &["admin"];

async fn service() -> TestService {
    TestService::guarded(by_token(&[
        ("mine", &[PROJECT], ADMIN),
        ("theirs", &["theirs"], ADMIN),
        ("all", &["*"], ADMIN),
    ]))
    .await
}

#[tokio::test]
async fn a_token_opens_the_whole_api_of_its_project() {
    let service = service().await;
    let rest = Rest::new(&service.replica);
    walk(&rest.showing("x-auth-token", "mine"), "/quotas/dms").await;
    walk(&rest.showing("authorization", "Bearer mine").at("v2", PROJECT), "/quotas").await;
    walk(&rest.showing("authorization", "bearer all").at("v2", "any"), "/quotas").await;
    for metadata in [("authorization", "Bearer mine"), ("x-auth-token", "mine")] {
        call(&service.replica.channel, LIST, PROJECT, &[metadata]).await.unwrap();
    }
}

#[tokio::test]
async fn everything_else_is_refused_through_both_doors() {
    let service = service().await;
    let rest = Rest::new(&service.replica);
    let cases: [(&'static str, &str, &str); 8] = [
        ("x-other", "mine", "DMS.10240103"),
        ("authorization", "Bearer theirs", "DMS.10240104"),
        ("x-auth-token", "theirs", "DMS.10240104"),
        ("authorization", "Bearer Mine", "DMS.10240101"),
        ("authorization", "Basic bWluZTo=", "DMS.10240101"),
        ("authorization", "mine", "DMS.10240101"),
        ("authorization", "SDK-HMAC-SHA256 Access=mine, SignedHeaders=host;x-sdk-date, Signature=00", "DMS.10240101"),
        ("x-auth-token", "a.b.c", "DMS.10240101"),
    ];
    for (header, value, expected) in cases {
        let refused = rest.showing(header, value).get("/queues").await;
        assert_eq!(refused.code(), (401, expected.into()), "{header}: {value}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        let refused = call(&service.replica.channel, LIST, PROJECT, &[(header, value)]).await.unwrap_err();
        assert_eq!(
            (refused.code(), code(&refused)),
            (tonic::Code::Unauthenticated, expected.into()),
            "{header}: {value}"
        );
    }
    let twice = [("authorization", "Bearer mine"), ("authorization", "Bearer mine")];
    let refused = call(&service.replica.channel, LIST, PROJECT, &twice).await.unwrap_err();
    assert_eq!(code(&refused), "DMS.10240101");
}

#[tokio::test]
async fn without_credentials_nothing_can_be_learnt() {
    let service = service().await;
    let rest = Rest::new(&service.replica);
    let owner = rest.showing("x-auth-token", "mine");
    let (queue, group) = owner.queue_and_group(&json!({ "name": "q" })).await;
    let absent = queue.chars().rev().collect::<String>();
    for path in ["/queues", &format!("/queues/{queue}"), &format!("/queues/{absent}"), &format!("{group}/messages")] {
        let (status, dms_code, message) = rest.get(path).await.error();
        assert_eq!((status, dms_code.as_str()), (401, "DMS.10240103"), "{path}");
        assert_eq!(message, "this call needs credentials");
        let stranger = rest.showing("x-auth-token", "theirs").get(path).await.error();
        assert_eq!(stranger.2, "the credentials are not for this project", "{path}");
    }
    let unknown = ["/dms.v1.QueueService/Nothing".to_owned(), "/a/b".to_owned()];
    for method in methods().into_iter().chain(unknown) {
        for project in [PROJECT, "theirs", "", "not a project"] {
            let refused = call(&service.replica.channel, &method, project, &[]).await.unwrap_err();
            assert_eq!(code(&refused), "DMS.10240103", "{method} {project}");
        }
    }
}

#[tokio::test]
async fn probes_need_no_credentials_and_reflection_does() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let service = service().await;
    let rest = Rest::new(&service.replica);
    assert_eq!((rest.probe("/healthz").await.0, rest.probe("/readyz").await.0), (200, 200));
    let mut health = tonic_health::pb::health_client::HealthClient::new(service.replica.channel.clone());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    let ask = async |token: Option<&str>| {
        let questions = tokio_stream::once(ServerReflectionRequest::default());
        let mut request = tonic::Request::new(questions);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut client = ServerReflectionClient::new(service.replica.channel.clone());
        client.server_reflection_info(request).await.map(drop)
    };
    assert_eq!(code(&ask(None).await.unwrap_err()), "DMS.10240103");
    assert_eq!(code(&ask(Some("other")).await.unwrap_err()), "DMS.10240101");
    ask(Some("theirs")).await.unwrap();
}

#[tokio::test]
async fn tokens_are_rotated_by_writing_the_file_anew() {
    let file = SecretFile::new(&tokens(&[("old", &[PROJECT], ADMIN)]));
    let methods = Methods { tokens: Some(file.source()), ..Methods::default() };
    let service = TestService::guarded(AuthOptions::Required(methods)).await;
    let channel = &service.replica.channel;
    let good = async |token: &str| call(channel, LIST, PROJECT, &[("x-auth-token", token)]).await.is_ok();
    assert!(good("old").await && !good("new").await);
    file.write(&tokens(&[("old", &[PROJECT], ADMIN), ("new", &[PROJECT], ADMIN)]));
    eventually("the new token is good", async || good("new").await).await;
    assert!(good("old").await, "both are good for a while");
    file.write(&tokens(&[("new", &[PROJECT], ADMIN)]));
    eventually("the old token is not", async || !good("old").await).await;
    // A file that is broken or gone changes nothing.
    file.write(&json!({ "tokens": [{ "sha256": "x" }] }));
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(good("new").await && !good("old").await);
    file.write(&tokens(&[]));
    eventually("nobody is let in", async || !good("new").await).await;
}

#[tokio::test]
async fn a_token_whose_digest_was_made_with_a_newline_is_told_so() {
    let service = TestService::guarded(by_token(&[("mine\n", &[PROJECT], ADMIN)])).await;
    let rest = Rest::new(&service.replica);
    let words = "its sha256 in the list of tokens is of the token and a newline: make it with printf instead of echo";
    let (status, dms_code, message) = rest.showing("x-auth-token", "mine").get("/queues").await.error();
    assert_eq!((status, dms_code.as_str()), (401, "DMS.10240101"));
    assert!(message.ends_with(words), "{message}");
    let stranger = rest.showing("x-auth-token", "other").get("/queues").await.error();
    assert_eq!(stranger.2, "the credentials are not valid");
}
