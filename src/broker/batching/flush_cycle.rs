//! Spans of the rounds of lanes, at the level of debugging. A round serves many calls, so it is a trace of its own and the child
//! of none of them: calls and round are linked.

use std::time::Instant;

use tracing::{Level, Span};

use crate::domain::trace::TraceContext;
use crate::observe::metrics::Lane;
use crate::observe::spans;

/// Calls that one round is linked to; the others are only counted.
const LINKS_MAX: usize = 64;

/// The span of a call on its way to a lane; none when nobody would see the link.
pub(in crate::broker) fn caller() -> Span {
    if tracing::enabled!(Level::DEBUG) { Span::current() } else { Span::none() }
}

/// One round; nothing when nobody would see it.
#[derive(Debug, Default)]
pub(in crate::broker) struct FlushCycle(Option<Live>);

#[derive(Debug)]
struct Live {
    span: Span,
    at: TraceContext,
    begun: Instant,
}

impl FlushCycle {
    /// Begins now, for so many calls. It is sampled when one of them is; `callers` are those that are known already.
    pub(crate) fn begin<'a>(lane: Lane, calls: usize, callers: impl IntoIterator<Item = &'a Span>) -> Self {
        if !tracing::enabled!(Level::DEBUG) {
            return Self::default();
        }
        let at = TraceContext::begin(callers.into_iter().take(LINKS_MAX).any(spans::is_sampled));
        let (trace_id, span_id) = (at.trace_id, at.span_id);
        let span = tracing::debug_span!("round", lane = lane.name(), %trace_id, %span_id, calls);
        spans::place(&span, at, None);
        Self(Some(Live { span, at, begun: Instant::now() }))
    }

    /// The span to work in.
    pub(crate) fn span(&self) -> Span {
        self.0.as_ref().map_or_else(Span::none, |live| live.span.clone())
    }

    /// Links it to calls: each says in its own span which round has served it.
    pub(crate) fn serves<'a>(&self, callers: impl IntoIterator<Item = &'a Span>) {
        let Some(Live { span, at, .. }) = &self.0 else { return };
        for caller in callers.into_iter().filter(|caller| !caller.is_disabled()).take(LINKS_MAX) {
            span.follows_from(caller);
            spans::link(caller, *at);
            // Not as a parent of the line: JSON shows the spans that it is written in.
            caller.in_scope(|| tracing::debug!(link = %at, "served by a round of a lane"));
        }
    }

    /// Tells how long it took.
    pub(crate) fn end(self) {
        if let Some(Live { span, begun, .. }) = self.0 {
            let elapsed_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            span.in_scope(|| tracing::debug!(elapsed_us, "round ended"));
        }
    }
}
