//! The trace of a request (W3C). The gateway passes on where its caller is, for the service to link messages to; of a caller
//! who is in no trace it begins one.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::trace::{BEGUN_BY_GATEWAY, TRACE_STATE_BYTES_MAX, TraceContext};

/// The header, and the metadata key towards the gRPC service.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where a request is in which trace: an extension of it.
#[derive(Debug, Clone, Copy)]
pub struct RequestTrace {
    /// The caller's span, or the first of a new trace.
    pub at: TraceContext,
    /// Whether the caller is in a trace.
    pub of_caller: bool,
}

impl RequestTrace {
    /// Of a request with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = TraceContext::of_header(headers.get_all(&TRACEPARENT).iter().map(HeaderValue::as_bytes));
        Self { at: given.unwrap_or_else(TraceContext::begin), of_caller: given.is_some() }
    }

    /// For the service and for the answer.
    pub fn header(self) -> HeaderValue {
        // Digits and dashes only, so this cannot fail.
        HeaderValue::try_from(self.at.to_string()).unwrap_or(HeaderValue::from_static(""))
    }

    /// Adds what goes along with a call; `headers` are the caller's.
    pub fn pass_on(self, headers: &HeaderMap, metadata: &mut HeaderMap) {
        metadata.insert(TRACEPARENT, self.header());
        if !self.of_caller {
            metadata.insert(TRACESTATE, HeaderValue::from_static(BEGUN_BY_GATEWAY));
            return;
        }
        let states = headers.get_all(&TRACESTATE);
        if states.iter().map(HeaderValue::len).sum::<usize>() <= TRACE_STATE_BYTES_MAX {
            for state in states {
                metadata.append(TRACESTATE, state.clone());
            }
        }
    }
}
