//! The gateway against a stand-in for the gRPC service: what it asks of the service, and how it shows the answers.

mod bodies;
mod counted;
mod failures;
mod fake;
mod messages;
mod paths;
mod queues;
mod signed;
mod tags;
mod trace;

use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use self::fake::Fake;
use super::router;
use crate::memory::Memory;
use crate::observe::metrics::RestRequests;

const QUEUE: &str = "/v1.0/p1/queues/9bf46390-38a2-462d-b392-4d5b2d519c55";
const GROUP: &str =
    "/v1.0/p1/queues/9bf46390-38a2-462d-b392-4d5b2d519c55/groups/g-02fb1974-9be1-4eee-8448-ed2d3e89884a";
const TAGS: &str = "/v1.0/p1/queue/9bf46390-38a2-462d-b392-4d5b2d519c55/tags";

fn memory() -> Memory {
    Memory::of_gateway(1 << 28).unwrap()
}

/// A REST answer.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn code(&self) -> String {
        self.json()["error_code"].as_str().unwrap().to_owned()
    }

    fn message(&self) -> String {
        self.json()["error_msg"].as_str().unwrap().to_owned()
    }
}

async fn ask(fake: &Fake, request: Request<Body>) -> Reply {
    let response = router(fake.clone(), memory(), RestRequests::default(), std::sync::Arc::new(crate::net::OpenDoor))
        .oneshot(request)
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    Reply { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

async fn call(fake: &Fake, method: &str, path: &str, body: impl Into<Body>) -> Reply {
    ask(fake, Request::builder().method(method).uri(path).body(body.into()).unwrap()).await
}

async fn get(fake: &Fake, path: &str) -> Reply {
    call(fake, "GET", path, "").await
}
