//! Spans over OTLP/gRPC to an OpenTelemetry collector.

use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind, TracerProvider as _};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::WithTonicConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing_opentelemetry::OpenTelemetryLayer;

use crate::observe::spans;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the last spans may take to leave when the program ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// Fields of spans that are for the log: a span over OTLP has them by itself.
const IDS: [&str; 3] = ["trace_id", "span_id", "parent_span_id"];

/// The name of the span of a call, and its field that says whose it is, once that is known.
const CALL: &str = "call";
const CALLER: &str = "caller";

/// Sends spans until it is told to end.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Begins to send spans of `service` to the collector. Connects with the first ones, and again whenever the connection is lost;
    /// what it cannot hold until then is dropped, and the log says so. Needs a runtime.
    pub fn start(service: &'static str, collector: &str) -> anyhow::Result<Self> {
        let mut endpoint = Endpoint::from_shared(collector.to_owned())?.connect_timeout(CONNECT_LIMIT);
        if endpoint.uri().scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
        }
        let sender = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_channel(endpoint.connect_lazy());
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Named(sender.build()?))
            .with_id_generator(spans::Ids::default())
            .with_sampler(spans::sampler())
            .with_resource(Resource::builder().with_service_name(service).with_attribute(version).build())
            .build();
        Ok(Self(provider))
    }

    /// What takes the spans of the program.
    pub fn layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("dms"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
    }

    /// Sends what is left. Blocks for some seconds at most.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(%error, "the last spans have not reached the collector");
        }
    }
}

/// Gives spans the names and kinds that OpenTelemetry has for calls: the fields of a `tracing` span that say so would stand in each line of the log.
#[derive(Debug)]
struct Named<E>(E);

impl<E: SpanExporter> SpanExporter for Named<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let kept = batch.into_iter().filter(|span| spans::keeps(is_of_stranger(span)));
        self.0.export(kept.map(named).collect()).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// A call that was sampled because its caller said so, and of nobody with good credentials.
fn is_of_stranger(span: &SpanData) -> bool {
    let known = span.attributes.iter().any(|attribute| attribute.key.as_str() == CALLER);
    span.name == CALL && span.parent_span_id != SpanId::INVALID && !known
}

fn named(mut span: SpanData) -> SpanData {
    let named_by = match span.name.as_ref() {
        // The method of a service: /package.Service/Method
        CALL => Some("path"),
        "request" => Some("method"),
        _ => None,
    };
    let field = |key| span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    if let Some(KeyValue { value: Value::String(name), .. }) = named_by.and_then(field) {
        span.name = name.as_str().trim_start_matches('/').to_owned().into();
        span.span_kind = SpanKind::Server;
    }
    span.attributes.retain(|attribute| !IDS.contains(&attribute.key.as_str()));
    span
}
