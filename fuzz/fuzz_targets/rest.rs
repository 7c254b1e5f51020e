//! REST requests, from the request line to the body, against the gateway with a service behind it that says nothing.
//!
//! Input: `METHOD target`, lines of headers, an empty line, a body.

#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

const EMPTY_MESSAGE: [u8; 5] = [0; 5];

thread_local! {
    static GATEWAY: RefCell<(Runtime, Router)> = RefCell::new((
        Builder::new_current_thread().enable_time().build().expect("a runtime"),
        dms::gateway::router(tower::service_fn(silent), dms::memory::Memory::of_gateway(1 << 28).unwrap(), dms::observe::metrics::RestRequests::default(), Arc::new(dms::net::OpenDoor)),
    ));
}

/// Reads the request, so that it has to be written, and answers with a message without fields.
async fn silent(request: Request<tonic::body::Body>) -> Result<Response<tonic::body::Body>, Infallible> {
    let _whole = request.into_body().collect().await;
    let body = tonic::body::Body::new(Body::from(&EMPTY_MESSAGE[..]));
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
    Ok(response.body(body).expect("a response"))
}

fuzz_target!(|input: &[u8]| {
    let Some(request) = request(input) else { return };
    GATEWAY.with_borrow(|(runtime, gateway)| {
        let answer = async {
            let Ok(answer) = gateway.clone().oneshot(request).await;
            let (head, body) = answer.into_parts();
            (head, body.collect().await.expect("a body").to_bytes())
        };
        let (head, body) = runtime.block_on(answer);
        assert!(head.headers.contains_key("x-request-id"), "an answer without an id: {head:?}");
        let json: serde_json::Value = if body.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_slice(&body).expect("a body is JSON")
        };
        let code = json.get("error_code").and_then(|code| code.as_str());
        let refused = head.status.is_client_error() || head.status.is_server_error();
        assert!(!refused || body.is_empty() || code.is_some(), "{json}");
        // The documented code of a bad tag_type has this status too.
        let is_our_fault = head.status.as_u16() == 500 && code != Some("DMS.10550035");
        assert!(!is_our_fault, "nothing that a caller writes is our fault: {json}");
    });
});

fn request(input: &[u8]) -> Option<Request<Body>> {
    let at = input.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (std::str::from_utf8(&input[..at]).ok()?, &input[at + 2..]);
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request = request.header(name, value.trim());
    }
    request.body(Body::from(body.to_vec())).ok()
}
