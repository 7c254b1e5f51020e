//! A worker over gRPC: `cargo run --example worker`.
//!
//! It finds or creates its queue and its group by name, consumes with a long poll, settles what it has handled, lives through
//! restarts and overload of the service, and on SIGTERM finishes what it holds. To use it, copy it and put your work into `handle`.

use std::env;
use std::time::Duration;

use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_client::v1::queue_service_client::QueueServiceClient;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

const QUEUE: &str = "orders";
const MAX_CONSUME_COUNT: i32 = 3;
const GROUP: &str = "billing";
/// Messages that are consumed at once.
const BATCH: i32 = 10;
/// In this time a whole batch is handled and settled; what takes longer is delivered again.
const LEASE: Duration = Duration::from_secs(60);
/// How long a poll waits for messages, and how long SIGTERM may have to wait for a poll.
const WAIT: Duration = Duration::from_secs(10);
/// The longest time between two attempts to reach a service that is away.
const PAUSE_MAX: Duration = Duration::from_secs(5);

type Error = Box<dyn std::error::Error + Send + Sync>;
type Connection = InterceptedService<Channel, ShowToken>;

/// The body of a message.
#[derive(Deserialize)]
struct Order {
    order: u64,
    /// How many seconds the work takes.
    #[serde(default)]
    takes: f64,
}

/// Does the work for one message. Deliveries are at least once, so the work must bear to be done again.
///
/// An error fails the message: it is delivered again, and becomes a dead letter when it has failed `MAX_CONSUME_COUNT` times.
async fn handle(body: &[u8]) -> Result<(), Error> {
    let Order { order, takes } = serde_json::from_slice(body)?;
    sleep(Duration::try_from_secs_f64(takes)?).await; // stands for the work
    eprintln!("handled order {order}");
    Ok(())
}

/// Shows the service a bearer token, where there is one.
#[derive(Clone)]
struct ShowToken(Option<MetadataValue<Ascii>>);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = self.0.clone() {
            request.metadata_mut().insert("authorization", token);
        }
        Ok(request)
    }
}

/// A worker of one group.
struct Worker {
    queues: QueueServiceClient<Connection>,
    messages: MessageServiceClient<Connection>,
    project_id: String,
    stopping: CancellationToken,
}

impl Worker {
    async fn work(&mut self) -> Result<(), Status> {
        let queue_id = self.find_or_create_queue().await?;
        let group_id = self.find_or_create_group(&queue_id).await?;
        eprintln!("consuming queue {queue_id} as group {group_id}");
        while !self.stopping.is_cancelled() {
            let batch = self.consume(&queue_id, &group_id).await?;
            let lease_ends = Instant::now() + LEASE;
            if batch.is_empty() {
                continue;
            }
            let request = pb::AckMessagesRequest {
                project_id: self.project_id.clone(),
                queue_id: queue_id.clone(),
                group_id: group_id.clone(),
                entries: handle_batch(batch).await,
            };
            let client = self.messages.clone();
            let settled = self.call(Some(lease_ends), async || client.clone().ack_messages(request.clone()).await);
            if let Err(status) = settled.await {
                // Its leases have ended, or an earlier attempt was carried out and its answer lost.
                eprintln!("a batch was not settled now: {}", status.message());
            }
        }
        Ok(())
    }

    async fn consume(&self, queue_id: &str, group_id: &str) -> Result<Vec<pb::LeasedMessage>, Status> {
        let request = pb::ConsumeMessagesRequest {
            project_id: self.project_id.clone(),
            queue_id: queue_id.to_owned(),
            group_id: group_id.to_owned(),
            options: Some(pb::ConsumeOptions {
                max_messages: Some(BATCH),
                wait: WAIT.try_into().ok(),
                lease: LEASE.try_into().ok(),
            }),
            ..pb::ConsumeMessagesRequest::default()
        };
        let client = self.messages.clone();
        Ok(self.call(None, async || client.clone().consume_messages(request.clone()).await).await?.messages)
    }

    async fn find_or_create_queue(&self) -> Result<String, Status> {
        if let Some(found) = self.find_queue().await? {
            return Ok(found);
        }
        let request = pb::CreateQueueRequest {
            project_id: self.project_id.clone(),
            name: QUEUE.to_owned(),
            redrive_policy: pb::RedrivePolicy::Enable.into(),
            max_consume_count: Some(MAX_CONSUME_COUNT),
            ..pb::CreateQueueRequest::default()
        };
        let client = self.queues.clone();
        unless_it_exists(self.call(None, async || client.clone().create_queue(request.clone()).await).await)?;
        self.find_queue().await?.ok_or_else(|| Status::not_found(QUEUE))
    }

    async fn find_queue(&self) -> Result<Option<String>, Status> {
        let request = pb::ListQueuesRequest { project_id: self.project_id.clone(), ..Default::default() };
        let client = self.queues.clone();
        let listed = self.call(None, async || client.clone().list_queues(request.clone()).await).await?;
        Ok(listed.queues.into_iter().find(|queue| queue.name == QUEUE).map(|queue| queue.id))
    }

    async fn find_or_create_group(&self, queue_id: &str) -> Result<String, Status> {
        if let Some(found) = self.find_group(queue_id).await? {
            return Ok(found);
        }
        let (project_id, queue) = (self.project_id.clone(), queue_id.to_owned());
        let request = pb::CreateConsumerGroupsRequest { project_id, queue_id: queue, names: vec![GROUP.to_owned()] };
        let client = self.queues.clone();
        unless_it_exists(self.call(None, async || client.clone().create_consumer_groups(request.clone()).await).await)?;
        self.find_group(queue_id).await?.ok_or_else(|| Status::not_found(GROUP))
    }

    async fn find_group(&self, queue_id: &str) -> Result<Option<String>, Status> {
        let (project_id, queue_id) = (self.project_id.clone(), queue_id.to_owned());
        let request = pb::ListConsumerGroupsRequest { project_id, queue_id, ..Default::default() };
        let client = self.queues.clone();
        let listed = self.call(None, async || client.clone().list_consumer_groups(request.clone()).await).await?;
        Ok(listed.groups.into_iter().find(|group| group.name == GROUP).map(|group| group.id))
    }

    /// The answer to a call, which is tried again while the service is away or overloaded: until a time, or else until the worker
    /// is to stop.
    async fn call<T>(
        &self,
        until: Option<Instant>,
        attempt: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut pause = Duration::from_millis(100);
        loop {
            let status = match attempt().await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
            let away = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
            let given_up = until.map_or(self.stopping.is_cancelled(), |until| Instant::now() > until);
            if (delay.is_none() && !away) || given_up {
                return Err(status);
            }
            pause = delay.unwrap_or(PAUSE_MAX.min(pause * 2));
            eprintln!("{}; next attempt in about {} ms", status.message(), pause.as_millis());
            sleep(pause.mul_f64(rand::random_range(1.0..1.5))).await;
        }
    }
}

/// The entries that settle a batch. The service walks them in order, and what stands behind a failure fails with it, whatever its
/// status: so what succeeded comes first.
async fn handle_batch(batch: Vec<pb::LeasedMessage>) -> Vec<pb::AckEntry> {
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for pb::LeasedMessage { message, handler, .. } in batch {
        match handle(&message.unwrap_or_default().body).await {
            Ok(()) => succeeded.push(pb::AckEntry { handler, status: pb::AckStatus::Success.into() }),
            Err(error) => {
                eprintln!("a message has failed: {error}");
                failed.push(pb::AckEntry { handler, status: pb::AckStatus::Fail.into() });
            }
        }
    }
    succeeded.append(&mut failed);
    succeeded
}

/// Another worker that has just started was faster.
fn unless_it_exists<T>(created: Result<T, Status>) -> Result<(), Status> {
    match created {
        Err(status) if status.code() != Code::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let token = env::var("DMS_TOKEN").ok().map(|token| format!("Bearer {token}").parse()).transpose()?;
    // The channel connects when it is used, and again after a loss.
    let endpoint = Endpoint::from_shared(format!("http://{}", variable("DMS_GRPC", "127.0.0.1:50051")))?;
    let channel = endpoint.timeout(WAIT + Duration::from_secs(20)).connect_lazy();
    let show = ShowToken(token);
    let mut worker = Worker {
        queues: QueueServiceClient::with_interceptor(channel.clone(), show.clone()),
        messages: MessageServiceClient::with_interceptor(channel, show),
        project_id: variable("DMS_PROJECT", "demo"),
        stopping: CancellationToken::new(),
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = worker.stopping.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        stopping.cancel();
    });
    let result = worker.work().await;
    eprintln!("stopped");
    match result {
        Err(status) if !worker.stopping.is_cancelled() => Err(status.into()),
        _ => Ok(()),
    }
}
