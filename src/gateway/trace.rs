//! The trace of a request (W3C). The gateway passes on where its caller is, for the service to link messages to; of a caller
//! who is in no trace it begins one.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::trace::{BEGUN_BY_GATEWAY, TRACE_STATE_BYTES_MAX, TraceContext};
use crate::spans;

/// The header, and the metadata key towards the gRPC service.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where a request is in which trace: an extension of it.
#[derive(Debug, Clone, Copy)]
pub struct RequestTrace {
    /// The span of the request when spans are exported, else the caller's; the first of a new trace when the caller is in none.
    pub at: TraceContext,
    /// The caller's span, if it is in a trace.
    pub parent: Option<TraceContext>,
}

impl RequestTrace {
    /// Of a request with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let parent = TraceContext::of_header(headers.get_all(&TRACEPARENT).iter().map(HeaderValue::as_bytes));
        let at = match parent {
            // A gateway whose spans nobody sees is not in the trace.
            Some(parent) if !spans::are_exported() => parent,
            Some(parent) => parent.child(),
            None => spans::begin(),
        };
        Self { at, parent }
    }

    /// For the service and for the answer.
    pub fn header(self) -> HeaderValue {
        // Digits and dashes only, so this cannot fail.
        HeaderValue::try_from(self.at.to_string()).unwrap_or(HeaderValue::from_static(""))
    }

    /// Adds what goes along with a call; `headers` are the caller's.
    pub fn pass_on(self, headers: &HeaderMap, metadata: &mut HeaderMap) {
        metadata.insert(TRACEPARENT, self.header());
        if self.parent.is_none() {
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
