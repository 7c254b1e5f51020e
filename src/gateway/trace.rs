//! The trace of a request (W3C). The gateway passes on where its caller is, for the service to link messages to; of a caller
//! who is in no trace it begins one.

use http::{HeaderMap, HeaderValue};
use tracing::Span;

use crate::domain::trace::{BEGUN_BY_GATEWAY, TRACE_STATE_BYTES_MAX, TraceContext};
use crate::observe::spans;
use crate::observe::traceparent::{self, TRACEPARENT, TRACESTATE};

/// Where a request is in which trace: an extension of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestTrace {
    /// The span of the request when spans are exported, else the caller's; the first of a new trace when the caller is in none.
    pub at: TraceContext,
    /// The caller's span, if it is in a trace.
    pub parent: Option<TraceContext>,
    /// Whether the request has a span of its own in that trace.
    joined: bool,
}

impl RequestTrace {
    /// Of a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let parent = traceparent::read(headers);
        let joined = parent.is_none_or(spans::joins);
        let at = match parent {
            // A gateway whose span nobody sees is not in the trace.
            Some(parent) if !joined => parent,
            Some(parent) => parent.child(),
            None => spans::begin(),
        };
        Self { at, parent, joined }
    }

    /// Gives the span of the request its place.
    pub(super) fn place(self, span: &Span) {
        match self.joined {
            true => spans::place(span, self.at, self.parent),
            false => spans::place(span, self.at.unsampled(), None),
        }
    }

    /// Adds what goes along with a call; `headers` are the caller's.
    pub(super) fn pass_on(self, headers: &HeaderMap, metadata: &mut HeaderMap) {
        metadata.insert(TRACEPARENT, traceparent::value(self.at));
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
