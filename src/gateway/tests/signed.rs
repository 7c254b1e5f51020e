use axum::body::Body;
use http::Request;

use super::fake::Fake;
use super::{QUEUE, ask};

const SIGNED: &str = "SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=00";

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "h:1").header("authorization", SIGNED)
}

#[tokio::test]
async fn what_was_signed_goes_along_as_it_came() {
    let fake = Fake::silent();
    let body = r#"{ "groups": [] }"#;
    ask(
        &fake,
        request("POST", &format!("{QUEUE}/groups?b=%20&a")).header("x-sdk-date", "d").body(body.into()).unwrap(),
    )
    .await;
    let signed = fake.seen().signed.unwrap();
    assert_eq!((signed.method.as_str(), signed.path), ("POST", format!("{QUEUE}/groups")));
    assert_eq!((signed.query.as_str(), &signed.body[..]), ("b=%20&a", body.as_bytes()));
    for (name, value) in [("host", "h:1"), ("authorization", SIGNED), ("x-sdk-date", "d")] {
        assert!(signed.headers.contains(&(name.into(), value.into())), "{name}");
    }
}

#[tokio::test]
async fn a_request_without_a_body_has_an_empty_one() {
    let fake = Fake::silent();
    ask(&fake, request("DELETE", "/v2/p/queue/q/tags/%E4%B8%80").body(Body::from("unread")).unwrap()).await;
    let signed = fake.seen().signed.unwrap();
    assert_eq!((signed.path.as_str(), signed.query.as_str()), ("/v2/p/queue/q/tags/%E4%B8%80", ""));
    assert!(signed.body.is_empty());
}

#[tokio::test]
async fn the_host_of_http_2_is_in_the_url() {
    let fake = Fake::silent();
    let request = Request::get(format!("http://h:1{QUEUE}")).header("authorization", SIGNED);
    ask(&fake, request.body(Body::empty()).unwrap()).await;
    assert!(fake.seen().signed.unwrap().headers.contains(&("host".into(), b"h:1".to_vec())));
}

#[tokio::test]
async fn other_requests_leave_nothing_behind() {
    for authorization in ["Bearer SDK-HMAC-SHA256", "sdk-hmac-sha256 Access=AK", ""] {
        let fake = Fake::silent();
        ask(&fake, Request::get(QUEUE).header("authorization", authorization).body(Body::empty()).unwrap()).await;
        assert!(fake.seen().signed.is_none(), "{authorization}");
    }
}
