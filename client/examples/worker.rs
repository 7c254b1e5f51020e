//! A worker over gRPC: `cargo run -p dms-client --example worker`.
//!
//! It finds or creates its queue and its group by name, consumes with a long poll, settles what it has handled, lives through
//! restarts and overload of the service, and on SIGTERM finishes what it holds. To use it, copy it and put your work into `handle`.

use std::env;
use std::time::Duration;

use dms_client::{Client, Error, Options, v1 as pb};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

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

type Failure = Box<dyn std::error::Error + Send + Sync>;

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
async fn handle(body: &[u8]) -> Result<(), Failure> {
    let Order { order, takes } = serde_json::from_slice(body)?;
    sleep(Duration::try_from_secs_f64(takes)?).await; // stands for the work
    eprintln!("handled order {order}");
    Ok(())
}

/// A worker of one group.
struct Worker {
    client: Client,
    project_id: String,
    stopping: CancellationToken,
}

impl Worker {
    async fn work(&self) -> Result<(), Error> {
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
            let settled = self.call(Some(lease_ends), async || self.client.ack_messages(request.clone()).await);
            if let Err(error) = settled.await {
                // Its leases have ended, or an earlier attempt was carried out and its answer lost.
                eprintln!("a batch was not settled now: {error}");
            }
        }
        Ok(())
    }

    async fn consume(&self, queue_id: &str, group_id: &str) -> Result<Vec<pb::LeasedMessage>, Error> {
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
        Ok(self.call(None, async || self.client.consume_messages(request.clone()).await).await?.messages)
    }

    async fn find_or_create_queue(&self) -> Result<String, Error> {
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
        unless_it_exists(self.call(None, async || self.client.create_queue(request.clone()).await).await)?;
        self.find_queue().await?.ok_or_else(|| Status::not_found(QUEUE).into())
    }

    async fn find_queue(&self) -> Result<Option<String>, Error> {
        let request = pb::ListQueuesRequest { project_id: self.project_id.clone(), ..Default::default() };
        let listed = self.call(None, async || self.client.list_queues(request.clone()).await).await?;
        Ok(listed.queues.into_iter().find(|queue| queue.name == QUEUE).map(|queue| queue.id))
    }

    async fn find_or_create_group(&self, queue_id: &str) -> Result<String, Error> {
        if let Some(found) = self.find_group(queue_id).await? {
            return Ok(found);
        }
        let (project_id, queue) = (self.project_id.clone(), queue_id.to_owned());
        let request = pb::CreateConsumerGroupsRequest { project_id, queue_id: queue, names: vec![GROUP.to_owned()] };
        unless_it_exists(self.call(None, async || self.client.create_consumer_groups(request.clone()).await).await)?;
        self.find_group(queue_id).await?.ok_or_else(|| Status::not_found(GROUP).into())
    }

    async fn find_group(&self, queue_id: &str) -> Result<Option<String>, Error> {
        let (project_id, queue_id) = (self.project_id.clone(), queue_id.to_owned());
        let request = pb::ListConsumerGroupsRequest { project_id, queue_id, ..Default::default() };
        let listed = self.call(None, async || self.client.list_consumer_groups(request.clone()).await).await?;
        Ok(listed.groups.into_iter().find(|group| group.name == GROUP).map(|group| group.id))
    }

    /// The answer to a call, which is tried again while the service is away or overloaded: until a time, or else until the worker
    /// is to stop.
    async fn call<T>(&self, until: Option<Instant>, attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let given_up = until.map_or(self.stopping.is_cancelled(), |until| Instant::now() > until);
            if !error.is_retryable() || given_up {
                return Err(error);
            }
            pause = error.retry_after().unwrap_or(PAUSE_MAX.min(pause * 2));
            eprintln!("{error}; next attempt in about {} ms", pause.as_millis());
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
fn unless_it_exists<T>(created: Result<T, Error>) -> Result<(), Error> {
    match created {
        Err(error) if error.code() != Code::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut options = Options::new(format!("http://{}", variable("DMS_GRPC", "127.0.0.1:50051")));
    options = options.deadline(WAIT + Duration::from_secs(20));
    if let Ok(token) = env::var("DMS_TOKEN") {
        options = options.token(token);
    }
    let worker = Worker {
        // It connects when it is used, and again after a loss.
        client: Client::lazy(&options)?,
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
        Err(error) if !worker.stopping.is_cancelled() => Err(error.into()),
        _ => Ok(()),
    }
}
