//! Spans as a collector sees them. What a span says of itself, its ids and whether it is sampled, is decided by our trace contexts;
//! the OpenTelemetry libraries carry them away. Nothing here does anything unless spans are exported (`telemetry`).

use std::cell::Cell;
use std::sync::OnceLock;

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SamplingResult, ShouldSample,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::domain::trace::TraceContext;

/// The share of traces begun here that are sampled; set when spans are exported.
static SAMPLE_RATIO: OnceLock<f64> = OnceLock::new();

thread_local! {
    /// What the span that is being started is to be.
    static PLACED: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// Says that spans are exported from now on, and the share of traces begun here that are sampled, 0 to 1.
pub(crate) fn export(sample_ratio: f64) {
    let _only_once = SAMPLE_RATIO.set(sample_ratio);
}

/// Whether spans are exported.
pub(crate) fn are_exported() -> bool {
    SAMPLE_RATIO.get().is_some()
}

/// The first span of a new trace.
pub(crate) fn begin() -> TraceContext {
    TraceContext::begin(SAMPLE_RATIO.get().is_some_and(|ratio| rand::random::<f64>() < *ratio))
}

/// The span of a call below the one that its caller names. It is sampled as the caller says, for one whose credentials turn out to be good
/// (`keeps`), and never when the operator wants no spans.
pub(crate) fn below(parent: TraceContext) -> TraceContext {
    let none = SAMPLE_RATIO.get().is_some_and(|ratio| *ratio <= 0.0);
    if none { parent.child().unsampled() } else { parent.child() }
}

/// Whether a span of a process that checks no credentials takes part in the trace of its caller, who may be a stranger: where that wants spans
/// to be kept, in the share that the operator wants.
pub(crate) fn joins(parent: TraceContext) -> bool {
    let drawn = |ratio: &f64| !parent.is_sampled() || rand::random::<f64>() < *ratio;
    SAMPLE_RATIO.get().is_some_and(drawn)
}

/// Whether a span that was sampled is sent: the calls of strangers are sampled because they say so, and kept in the share that the operator
/// wants.
pub(crate) fn keeps(of_stranger: bool) -> bool {
    !of_stranger || SAMPLE_RATIO.get().is_some_and(|ratio| rand::random::<f64>() < *ratio)
}

/// Gives a span its place: `here`, as a child of `parent`. To be called once, before anything is done in it.
pub(crate) fn place(span: &Span, here: TraceContext, parent: Option<TraceContext>) {
    if !are_exported() || span.is_disabled() {
        return;
    }
    // A span is sampled as its parent is, so an unsampled span needs an unsampled parent.
    let parent = parent.map(|parent| if here.is_sampled() { parent } else { parent.unsampled() });
    let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(exported(parent)));
    // Fails for a span that has begun before: it keeps the place that it has.
    if span.set_parent(parent).is_ok() {
        PLACED.set(Some(here));
        let _begun = span.context();
        PLACED.set(None);
    }
}

/// Links a span to another one.
pub(crate) fn link(span: &Span, to: TraceContext) {
    if are_exported() {
        span.add_link(exported(to));
    }
}

/// Marks a span as failed.
pub(crate) fn fail(span: &Span, why: &'static str) {
    if are_exported() {
        span.set_status(Status::error(why));
    }
}

/// Whether a collector gets to see this span.
pub(crate) fn is_sampled(span: &Span) -> bool {
    are_exported() && span.context().span().span_context().is_sampled()
}

fn exported(context: TraceContext) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(context.is_sampled());
    SpanContext::new(trace_id(context), span_id(context), flags, true, TraceState::NONE)
}

fn trace_id(context: TraceContext) -> TraceId {
    TraceId::from_bytes(context.trace_id.to_bytes())
}

fn span_id(context: TraceContext) -> SpanId {
    SpanId::from_bytes(context.span_id.to_bytes())
}

/// Ids of spans: those that they have been given, else random ones.
#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        PLACED.get().map_or_else(|| self.0.new_trace_id(), trace_id)
    }

    fn new_span_id(&self) -> SpanId {
        PLACED.get().map_or_else(|| self.0.new_span_id(), span_id)
    }
}

/// Samples what says so of itself, and whatever is done in it.
pub(crate) fn sampler() -> Sampler {
    Sampler::ParentBased(Box::new(AsPlaced))
}

/// Of spans without a parent. One that nobody has given a place is a chore of ours, and is not exported.
#[derive(Debug, Clone)]
struct AsPlaced;

impl ShouldSample for AsPlaced {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace_id: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let sampled = PLACED.get().is_some_and(TraceContext::is_sampled);
        let decision = if sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
    }
}
