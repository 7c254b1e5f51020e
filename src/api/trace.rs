//! The trace of a call (W3C): the caller's, or one begun here; the answer tells it.

use http::HeaderMap;
use tonic::Request;
use tracing::Span;

use crate::domain::message::Delivery;
use crate::domain::trace::{BEGUN_BY_GATEWAY, TraceContext};
use crate::observe::spans;
use crate::observe::traceparent::{self, TRACESTATE};

/// Where a call is in which trace: an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallTrace {
    /// The span of the call.
    pub here: TraceContext,
    /// The span that it was made in, if the caller says so.
    pub parent: Option<TraceContext>,
    /// Whether the parent is the caller's own, and not what a gateway has begun for a caller that is in no trace.
    of_caller: bool,
}

impl CallTrace {
    /// Of a call with this metadata.
    pub(super) fn of(metadata: &HeaderMap) -> Self {
        let parent = traceparent::read(metadata);
        let here = parent.map_or_else(spans::begin, spans::below);
        let of_caller = metadata.get(&TRACESTATE).is_none_or(|state| state != BEGUN_BY_GATEWAY);
        Self { here, parent, of_caller }
    }
}

/// Where the caller is in a trace of its own: the producer of what it sends.
pub(super) fn producer<M>(request: &Request<M>) -> Option<TraceContext> {
    let trace = request.extensions().get::<CallTrace>()?;
    trace.parent.filter(|_| trace.of_caller)
}

/// Links the call to the producers of what it delivers: 10 messages at most.
pub(super) fn link(deliveries: &[Delivery]) {
    for delivery in deliveries {
        if let Some(producer) = delivery.message.trace {
            spans::link(&Span::current(), producer);
            tracing::debug!(message_id = %delivery.message.id, link = %producer, "delivered what was sent in a trace");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::observe::traceparent::TRACEPARENT;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn called(metadata: &[(HeaderName, &'static str)]) -> (CallTrace, Option<String>) {
        let values = metadata.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let trace = CallTrace::of(&values.collect::<HeaderMap>());
        let mut request = Request::new(());
        request.extensions_mut().insert(trace);
        (trace, producer(&request).map(|producer| producer.to_string()))
    }

    #[test]
    fn a_call_is_a_child_of_its_caller() {
        let (trace, producer) = called(&[(TRACEPARENT, GIVEN), (TRACESTATE, "a=1,dms=gateway")]);
        assert_eq!((trace.parent.unwrap().to_string().as_str(), producer.as_deref()), (GIVEN, Some(GIVEN)));
        assert_eq!(trace.here.trace_id, trace.parent.unwrap().trace_id);
        assert_ne!(trace.here.span_id, trace.parent.unwrap().span_id);
        assert_eq!(traceparent::value(trace.here), trace.here.to_string());
    }

    #[test]
    fn a_trace_begun_by_a_gateway_has_no_producer() {
        let (trace, producer) = called(&[(TRACEPARENT, GIVEN), (TRACESTATE, BEGUN_BY_GATEWAY)]);
        assert_eq!((trace.parent.unwrap().to_string().as_str(), producer), (GIVEN, None));
    }

    #[test]
    fn without_a_good_trace_a_new_one_begins() {
        for metadata in [vec![], vec![(TRACEPARENT, "00-1-2-01")], vec![(TRACESTATE, "a=1")]] {
            let (trace, producer) = called(&metadata);
            assert_eq!((trace.parent, producer), (None, None), "{metadata:?}");
            assert!(TraceContext::parse(traceparent::value(trace.here)).is_some());
        }
    }
}
