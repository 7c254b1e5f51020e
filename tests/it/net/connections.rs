//! Connections are made anew when they are old, and no call is lost by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dms::broker::Settings;
use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::rest::gateway_alone::renewing_in_front_of;
use crate::support::calls::eventually;
use crate::support::service::{Door, PROJECT, TestService, message};

const AGE: Duration = Duration::from_millis(200);

/// What leads to a service, as a load balancer does, and counts connections.
struct Relay {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    async fn to(service: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), connections: Arc::default() };
        let (connections, service) = (Arc::clone(&relay.connections), service.replace("http://", ""));
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let mut service = TcpStream::connect(&service).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut service).await });
            }
        });
        relay
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A long poll that outlives several connections, on a queue of its own.
async fn poll(service: &TestService, client: &MessageServiceClient<Channel>) -> (String, JoinHandle<usize>) {
    let queue = service.queue("polled").await;
    let mut request = service.group(&queue, "group").await.consume_request(1);
    let wait = Some(prost_types::Duration { seconds: 20, nanos: 0 });
    request.options = Some(pb::ConsumeOptions { wait, ..request.options.unwrap_or_default() });
    let mut client = client.clone();
    let polled = tokio::spawn(async move { client.consume_messages(request).await.unwrap().get_ref().messages.len() });
    (queue, polled)
}

/// This client gives a call back that it has not sent because of the end of its connection; most others try again by themselves.
fn was_not_sent(status: &Status) -> bool {
    format!("{status:?}").contains("Canceled, \"connection closed\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_makes_connections_anew_and_no_call_is_cut() {
    let door = Door { connection_age: Some(AGE), ..Door::open() };
    let service = TestService::guarded_with(Settings { pool_connections: 4, ..Settings::default() }, door).await;
    let relay = Relay::to(service.replica.grpc()).await;
    let client = MessageServiceClient::new(Endpoint::from_shared(relay.url()).unwrap().connect_lazy());
    let (queue, polled) = poll(&service, &client).await;
    let other = service.queue("queue").await;
    let begun = Instant::now();
    while begun.elapsed() < AGE * 10 {
        let request = pb::SendMessagesRequest {
            project_id: PROJECT.into(),
            queue_id: other.clone(),
            messages: vec![message("1")],
            return_ids: false,
        };
        if let Err(status) = client.clone().send_messages(request).await {
            assert!(was_not_sent(&status), "{status:?}");
        }
    }
    assert!(relay.count() >= 5, "{} connections", relay.count());
    assert!(!polled.is_finished());
    service.send(&queue, &["1"]).await;
    assert_eq!(polled.await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_replaces_its_connections_and_loses_no_call() {
    let service = TestService::start().await;
    let relay = Relay::to(service.replica.grpc()).await;
    let (_gateway, rest) = renewing_in_front_of(relay.url(), AGE).await;
    eventually("it is ready", async || rest.probe("/readyz").await.0 == 200).await;
    let (queue, group) = rest.queue_and_group(&json!({ "name": "q" })).await;
    let (idle, idle_group) = rest.queue_and_group(&json!({ "name": "idle" })).await;
    let polling = rest.clone();
    let polled = tokio::spawn(async move { polling.get(&format!("{idle_group}/messages?time_wait=20")).await });
    let begun = Instant::now();
    while begun.elapsed() < AGE * 10 {
        rest.send_bodies(&queue, &[json!(1)]).await;
        assert_eq!(rest.consume(&group).await.0.len(), 1);
    }
    assert!(relay.count() >= 20, "{} connections", relay.count());
    assert!(!polled.is_finished());
    rest.send_bodies(&idle, &[json!(1)]).await;
    assert_eq!(polled.await.unwrap().ok(200).as_array().unwrap().len(), 1);
}
