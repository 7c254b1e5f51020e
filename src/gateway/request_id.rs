//! What every answer carries, also those to unknown paths: `X-Request-Id`, its trace, what of the request was ignored, and that it is
//! not to be cached.

use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::error::Unanswered;
use super::ignored::Ignored;
use super::trace::RequestTrace;
use crate::domain::text;
use crate::observe::log_limit::LogLimit;
use crate::observe::traceparent::{self, TRACEPARENT};

/// The header, and the metadata key towards the gRPC service.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CHARS_MAX: usize = 64;

static UNANSWERED: LogLimit = LogLimit::new();

/// Keeps the caller's id when it is 1-64 characters of `A-Z a-z 0-9 _ -`, else makes a new one.
pub(super) async fn on_every_answer(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(&X_REQUEST_ID).filter(|id| is_plain(id)).cloned().unwrap_or_else(new_id);
    request.headers_mut().insert(X_REQUEST_ID, id.clone());
    let trace = RequestTrace::of(request.headers());
    request.extensions_mut().insert(trace);
    let ignored = Ignored::default();
    request.extensions_mut().insert(ignored.clone());
    let (span, begun) = (span(&request, &id, trace), Instant::now());
    trace.place(&span);
    let mut response = next.run(request).instrument(span.clone()).await;
    log(&span, &response, &id, trace, begun);
    ignored.show(response.headers_mut());
    response.headers_mut().insert(X_REQUEST_ID, id);
    response.headers_mut().insert(TRACEPARENT, traceparent::value(trace.at));
    // Consuming is a GET with effects: no cache may repeat an answer.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// At the level of debugging: a call of the service has a span of its own, with all of this.
fn span(request: &Request, id: &HeaderValue, trace: RequestTrace) -> Span {
    tracing::debug_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        trace_id = %trace.at.trace_id,
        span_id = %trace.at.span_id,
        method = request.method().as_str(),
        path = request.uri().path()
    )
}

fn log(span: &Span, response: &Response, id: &HeaderValue, trace: RequestTrace, begun: Instant) {
    if let Some(Unanswered { code, words }) = response.extensions().get::<Unanswered>()
        && let Some(left_out) = UNANSWERED.admits()
    {
        let (request_id, trace_id) = (id.to_str().unwrap_or_default(), trace.at.trace_id);
        tracing::warn!(request_id, %trace_id, ?code, words, left_out, "no answer from the gRPC service");
    }
    let elapsed_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), elapsed_us, "request answered"));
}

fn is_plain(id: &HeaderValue) -> bool {
    id.to_str().is_ok_and(|id| (1..=CHARS_MAX).contains(&id.len()) && text::is_plain(id))
}

pub(super) fn new_id() -> HeaderValue {
    // A UUID is visible ASCII, so this cannot fail; an empty id would only be less useful.
    HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
