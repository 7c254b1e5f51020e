//! Spans at a collector: over OTLP, from the gateway to the statement.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use crate::support::credentials::{SecretFile, call, tokens};
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;
use crate::support::rest::all;
use crate::support::service::PROJECT;

const PRODUCER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CONSUMER: &str = "00-11111111111111111111111111111111-2222222222222222-01";
const UNSAMPLED: &str = "00-33333333333333333333333333333333-4444444444444444-00";

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens; the flag that sends spans to it.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("--otlp-endpoint=http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let router = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, endpoint)
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.0.lock().unwrap().iter().flat_map(|sent| sent.resource_spans.clone()).collect::<Vec<_>>();
        let scopes = resources.into_iter().flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The span of this name that is a child of the other one.
    fn child(&self, parent: &[u8], name: &str) -> Span {
        let spans = self.spans();
        let found = spans.iter().find(|span| span.name == name && span.parent_span_id == parent);
        found.unwrap_or_else(|| panic!("no {name} in {:?}", names(&spans))).clone()
    }

    /// The round that has served the call which this span is of, by the links in both of them.
    fn round(&self, call: &Span) -> Span {
        let linked = |span: &Span, to: &Span| span.links.iter().any(|link| link.span_id == to.span_id);
        let spans = self.spans();
        let found = spans.iter().find(|span| span.name == "round" && linked(span, call) && linked(call, span));
        found.unwrap_or_else(|| panic!("no round of {call:?}")).clone()
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn trace_id(traceparent: &str) -> Vec<u8> {
    hex::decode(&traceparent[3..35]).unwrap()
}

fn span_id(traceparent: &str) -> Vec<u8> {
    hex::decode(&traceparent[36..52]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_spans_of_a_message_from_its_producer_to_its_consumer() {
    let (database, (collector, endpoint)) = tokio::join!(TestDatabase::create(), Collector::start());
    let mut service = Logged::serve(&database, ["--auth=none", "--otlp-sample-ratio=1", &endpoint]).await;
    let (queue, group) = service.rest.queue_and_group(&json!({ "name": "q" })).await;
    let (producer, consumer) =
        (service.rest.showing("traceparent", PRODUCER), service.rest.showing("traceparent", CONSUMER));
    let body = json!({ "messages": [{ "body": "hunter2" }] });
    let sent = producer.post(&format!("/queues/{queue}/messages"), &body).await;
    assert_eq!(sent.status, 201);
    let (_, handlers) = consumer.consume(&group).await;
    consumer.ack(&group, &all(&handlers, "success")).await.ok(200);
    service.rest.showing("traceparent", UNSAMPLED).consume(&group).await;
    service.stop();

    let request = collector.child(&span_id(PRODUCER), "POST");
    assert_eq!((request.trace_id.clone(), request.kind()), (trace_id(PRODUCER), SpanKind::Server));
    let told = sent.headers["traceparent"].to_str().unwrap().to_owned();
    assert_eq!((trace_id(&told), span_id(&told)), (request.trace_id.clone(), request.span_id.clone()));
    let call = collector.child(&request.span_id, "dms.v1.MessageService/SendMessages");
    assert_eq!((&call.trace_id, call.kind()), (&request.trace_id, SpanKind::Server));
    assert!((request.start_time_unix_nano..=request.end_time_unix_nano).contains(&call.start_time_unix_nano));
    let caller = call.attributes.iter().find(|attribute| attribute.key == "caller").unwrap();
    assert_eq!(caller.value.clone().unwrap().value, Some(any_value::Value::StringValue("anyone".to_owned())));
    let send = collector.child(&call.span_id, "send");
    let round = collector.round(&send);
    assert_ne!(round.trace_id, call.trace_id);
    collector.child(&round.span_id, "statement");

    let request = collector.child(&span_id(CONSUMER), "GET");
    let call = collector.child(&request.span_id, "dms.v1.MessageService/ConsumeMessages");
    let links: Vec<_> = call.links.iter().map(|link| link.trace_id.clone()).collect();
    assert_eq!(links, [trace_id(PRODUCER)]);
    collector.round(&collector.child(&call.span_id, "consume"));
    let acks: Vec<_> = collector.spans().into_iter().filter(|span| span.name == "ack").collect();
    assert_eq!(acks.len(), 1);
    collector.round(&acks[0]);

    let all = format!("{:?}", collector.0.lock().unwrap());
    assert!(all.contains("service.name") && !all.contains("hunter2"));
    assert!(collector.spans().iter().all(|span| span.name != "upkeep"), "chores");
    assert!(collector.spans().iter().all(|span| span.trace_id != trace_id(UNSAMPLED)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_makes_nobody_export_spans() {
    let (database, (collector, endpoint)) = tokio::join!(TestDatabase::create(), Collector::start());
    let keys = SecretFile::new(&tokens(&[("mine", &[PROJECT], &["admin"])]));
    let file = format!("--auth-tokens-file={}", keys.0.display());
    let flags = |ratio: &'static str| ["--auth=tokens", &file, ratio, &endpoint].map(str::to_owned);
    // So seldom that it does not happen here.
    let mut service = Logged::serve(&database, flags("--otlp-sample-ratio=0.000000001")).await;
    for _ in 0..20 {
        assert_eq!(service.rest.showing("traceparent", PRODUCER).get("/queues").await.status, 401);
        assert_eq!(service.rest.showing("traceparent", PRODUCER).get("/nothing").await.status, 404);
    }
    let channel = Endpoint::from_shared(service.grpc.clone()).unwrap().connect_lazy();
    let (list, mine) = ("/dms.v1.QueueService/ListQueues", ("x-auth-token", "mine"));
    for metadata in [&[("traceparent", PRODUCER)][..], &[("traceparent", PRODUCER), ("x-auth-token", "wrong")]] {
        call(&channel, list, PROJECT, metadata).await.unwrap_err();
    }
    call(&channel, list, PROJECT, &[("traceparent", CONSUMER), mine]).await.unwrap();
    service.stop();
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace_id != trace_id(PRODUCER)), "{:?}", names(&spans));
    collector.child(&span_id(CONSUMER), "dms.v1.QueueService/ListQueues");

    collector.0.lock().unwrap().clear();
    let mut service = Logged::serve(&database, flags("--otlp-sample-ratio=0")).await;
    let channel = Endpoint::from_shared(service.grpc.clone()).unwrap().connect_lazy();
    for traceparent in [PRODUCER, CONSUMER] {
        call(&channel, list, PROJECT, &[("traceparent", traceparent), mine]).await.unwrap();
        service.rest.showing("traceparent", traceparent).get("/queues").await;
    }
    service.stop();
    assert_eq!(names(&collector.spans()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_no_trace_is_sampled_by_the_share_that_is_asked_for() {
    let (database, (collector, endpoint)) = tokio::join!(TestDatabase::create(), Collector::start());
    let mut service = Logged::serve(&database, ["--auth=none", "--otlp-sample-ratio=1", &endpoint]).await;
    let good = service.rest.get("/queues").await.headers["traceparent"].to_str().unwrap().to_owned();
    let mut sql = database.sql().await;
    sqlx::query("ALTER TABLE queues RENAME TO gone").execute(&mut sql).await.unwrap();
    let failed = service.rest.get("/queues").await;
    assert_eq!(failed.status, 500);
    service.stop();

    let request = collector.child(&[], "GET");
    assert_eq!((request.trace_id.clone(), request.span_id.clone()), (trace_id(&good), span_id(&good)));
    let call = collector.child(&request.span_id, "dms.v1.QueueService/ListQueues");
    assert_eq!(call.status.unwrap_or_default().code(), StatusCode::Unset);
    let failed = trace_id(failed.headers["traceparent"].to_str().unwrap());
    let spans = collector.spans();
    let call = spans.iter().find(|span| span.trace_id == failed && span.name.ends_with("ListQueues")).unwrap();
    assert_eq!(call.status.clone().unwrap_or_default().code(), StatusCode::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_stops_nobody() {
    let database = TestDatabase::create().await;
    let nobody = "--otlp-endpoint=http://127.0.0.1:9";
    let mut service = Logged::serve(&database, ["--auth=none", "--otlp-sample-ratio=1", nobody]).await;
    let (queue, group) = service.rest.queue_and_group(&json!({ "name": "q" })).await;
    service.rest.send_bodies(&queue, &[json!(1)]).await;
    assert_eq!(service.rest.consume(&group).await.0.len(), 1);
    let begun = Instant::now();
    service.stop();
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}
