//! What every answer carries, also those to unknown paths: `X-Request-Id`, and that it is not to be cached.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};
use uuid::Uuid;

use crate::domain::text;

/// The header, and the metadata key towards the gRPC service.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CHARS_MAX: usize = 64;

/// Keeps the caller's id when it is 1-64 characters of `A-Z a-z 0-9 _ -`, else makes a new one.
pub async fn on_every_answer(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(&X_REQUEST_ID).filter(|id| is_plain(id)).cloned().unwrap_or_else(new_id);
    request.headers_mut().insert(X_REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_REQUEST_ID, id);
    // Consuming is a GET with effects: no cache may repeat an answer.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn is_plain(id: &HeaderValue) -> bool {
    id.to_str().is_ok_and(|id| (1..=CHARS_MAX).contains(&id.len()) && text::is_plain(id))
}

fn new_id() -> HeaderValue {
    // A UUID is visible ASCII, so this cannot fail; an empty id would only be less useful.
    HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
