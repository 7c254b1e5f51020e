use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;

use super::fake::Fake;
use super::{QUEUE, call};
use crate::gateway::body::BODY_BYTES_MAX;
use crate::observe::metrics::RestRequests;

/// A body in pieces, as a chunked request brings it.
fn chunked(text: &str, size: usize) -> Body {
    let chunks: Vec<_> =
        text.as_bytes().chunks(size).map(Bytes::copy_from_slice).map(Ok::<_, std::io::Error>).collect();
    Body::from_stream(tokio_stream::iter(chunks))
}

#[tokio::test]
async fn chunked_bodies_are_put_together() {
    let fake = Fake::silent();
    let text = format!(r#"{{"messages":[{{"body":"{}"}}]}}"#, "x".repeat(300_000));
    let reply = call(&fake, "POST", &format!("{QUEUE}/messages"), chunked(&text, 1000)).await;
    assert_eq!(reply.status, StatusCode::CREATED);
}

#[tokio::test]
async fn bodies_above_the_limit_are_refused() {
    let fake = Fake::silent();
    for (path, code) in [("messages", "DMS.10540011"), ("groups", "DMS.10240009")] {
        for size in [BODY_BYTES_MAX + 1, 20 * 1024 * 1024] {
            let body = chunked(&" ".repeat(size), 65_536);
            let reply = call(&fake, "POST", &format!("{QUEUE}/{path}"), body).await;
            assert_eq!((reply.status, reply.code().as_str()), (StatusCode::BAD_REQUEST, code));
            assert_eq!(reply.message(), "body: size is larger than the limit of 1048576 bytes");
        }
        let reply = call(&fake, "POST", &format!("{QUEUE}/{path}"), " ".repeat(BODY_BYTES_MAX)).await;
        assert!(reply.message().starts_with("body: not JSON"), "{}", reply.text);
    }
}

/// The sender of a body that is too large reads the answer, not a reset.
#[tokio::test]
async fn a_large_body_is_answered_over_a_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{QUEUE}/messages", listener.local_addr().unwrap());
    let app = crate::gateway::router(
        Fake::silent(),
        super::memory(),
        RestRequests::default(),
        std::sync::Arc::new(crate::net::OpenDoor),
    );
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    let client = reqwest::Client::new();
    for size in [BODY_BYTES_MAX + 1, 8 * 1024 * 1024] {
        let reply = client.post(&url).body(" ".repeat(size)).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 400);
        assert!(reply.text().await.unwrap().contains("DMS.10540011"));
    }
    server.abort();
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let chunks = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
    let body = Body::from_stream(tokio_stream::iter(chunks));
    let reply = call(&Fake::silent(), "POST", &format!("{QUEUE}/messages"), body).await;
    assert_eq!(reply.code(), "DMS.10540012");
}

#[tokio::test]
async fn errors_do_not_quote_messages() {
    let reply = call(&Fake::silent(), "POST", &format!("{QUEUE}/messages"), r#"{"messages":{"body":"secret"}}"#).await;
    assert_eq!(reply.message(), "messages: '{...}' is not an array of objects");
}
