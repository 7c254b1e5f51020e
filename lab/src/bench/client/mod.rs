//! One client of what is under load: the service over gRPC or REST, or a peer in SQL. All speak of the same three calls, so
//! that one load generator drives them all.

mod grpc;
mod rest;
mod sql;

use bytes::Bytes;
use tonic::Status;

pub(super) use grpc::GrpcClient;
pub(super) use rest::RestClient;
pub(super) use sql::{PgmqClient, RawClient};

/// A queue of the load and its groups.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    /// UUID, or the name of a pgmq queue.
    pub queue_id: String,
    /// Ids of the groups, in the order of their numbers.
    pub group_ids: Vec<String>,
}

/// What acknowledges a delivery.
#[derive(Debug, Clone)]
pub(super) enum Receipt {
    /// A handler of the service.
    Handler(String),
    /// A message id of pgmq.
    Id(i64),
}

/// A delivered message.
#[derive(Debug)]
pub(super) struct Delivered {
    /// As it came back.
    pub body: Bytes,
    /// To acknowledge it with.
    pub receipt: Receipt,
}

/// A client with one call in flight. Errors of every system are told as gRPC statuses.
#[derive(Debug)]
pub(super) enum Client {
    /// Of the service.
    Grpc(Box<GrpcClient>),
    /// Of its gateway.
    Rest(Box<RestClient>),
    /// Of pgmq.
    Pgmq(PgmqClient),
    /// Of a plain table.
    Raw(RawClient),
}

impl Client {
    /// Sends a batch.
    pub(super) async fn send(&mut self, topic: &Topic, bodies: Vec<Bytes>) -> Result<(), Status> {
        match self {
            Client::Grpc(client) => client.send(topic, bodies).await,
            Client::Rest(client) => client.send(topic, bodies).await,
            Client::Pgmq(client) => client.send(topic, bodies).await,
            Client::Raw(client) => client.send(bodies).await,
        }
    }

    /// Consumes a batch of at most `max`, under a lease; waits a while when there is none.
    pub(super) async fn consume(&mut self, topic: &Topic, group: usize, max: u32) -> Result<Vec<Delivered>, Status> {
        match self {
            Client::Grpc(client) => client.consume(topic, group, max).await,
            Client::Rest(client) => client.consume(topic, group, max).await,
            Client::Pgmq(client) => client.consume(topic, max).await,
            Client::Raw(_) => Err(Status::unimplemented("plain INSERTs are not consumed")),
        }
    }

    /// Acknowledges with success; tells for each delivery whether it was accepted.
    pub(super) async fn ack(
        &mut self,
        topic: &Topic,
        group: usize,
        receipts: Vec<Receipt>,
    ) -> Result<Vec<bool>, Status> {
        match self {
            Client::Grpc(client) => client.ack(topic, group, receipts).await,
            Client::Rest(client) => client.ack(topic, group, receipts).await,
            Client::Pgmq(client) => client.ack(topic, &receipts).await,
            Client::Raw(_) => Err(Status::unimplemented("plain INSERTs are not consumed")),
        }
    }

    /// A call that does nothing.
    pub(super) async fn noop(&mut self) -> Result<(), Status> {
        match self {
            Client::Grpc(client) => client.noop().await,
            Client::Rest(_) | Client::Pgmq(_) | Client::Raw(_) => {
                Err(Status::unimplemented("only gRPC has a call that does nothing"))
            }
        }
    }
}

/// The handlers among receipts; there are no others from the service.
fn handlers(receipts: Vec<Receipt>) -> impl Iterator<Item = String> {
    receipts.into_iter().filter_map(|receipt| match receipt {
        Receipt::Handler(handler) => Some(handler),
        Receipt::Id(_) => None,
    })
}
