//! A trace context (W3C) as a header of HTTP, and as metadata of gRPC: the same words for both.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::trace::TraceContext;

/// The name of a trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The name of what others add to it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What the headers say, if it is one good context.
pub(crate) fn read(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::of_header(headers.get_all(&TRACEPARENT).iter().map(HeaderValue::as_bytes))
}

/// The value that says so.
pub(crate) fn value(context: TraceContext) -> HeaderValue {
    // Digits and dashes only, so this cannot fail.
    HeaderValue::try_from(context.to_string()).unwrap_or(HeaderValue::from_static(""))
}
