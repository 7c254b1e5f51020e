//! One client of the service, over gRPC or REST, and what it makes of answers: what was refused has not happened, of
//! everything else that failed nobody knows.

mod grpc;
mod rest;
mod roaming;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

pub(super) use grpc::{GrpcCaller, plain};
pub(super) use rest::RestCaller;
pub(super) use roaming::{Door, Doors, Roaming};

use crate::chaos::api::{AckOutcome, AckStatus, Source};

/// Longer than any answer takes when nothing is wrong, the longest poll left out.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A stream of a group by name.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The project.
    pub project: String,
    /// The queue's id.
    pub queue: String,
    /// The group's id.
    pub group: String,
    /// Which of its streams.
    pub source: Source,
}

/// How to consume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// At most so many.
    pub max: u32,
    /// How long to wait for them.
    pub wait: Duration,
    /// For how long they are leased.
    pub lease: Duration,
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Received {
    /// Its body.
    pub body: Bytes,
    /// What acknowledges it.
    pub handler: String,
    /// Counted deliveries, if the answer told: this one included, or those that made it a dead letter.
    pub attempts: Option<u8>,
}

/// One entry of an acknowledgement.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The handler.
    pub handler: String,
    /// What to say.
    pub status: AckStatus,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Refused with this code: nothing has happened.
    Refused(String),
    /// Whatever else, in a few words: it may have happened.
    Unknown(String),
}

impl Failure {
    /// Of a documented error.
    fn documented(code: String, http_status: u16) -> Self {
        if (400..500).contains(&http_status) { Self::Refused(code) } else { Self::Unknown(code) }
    }

    /// In a few words.
    pub(super) fn label(&self) -> &str {
        match self {
            Failure::Refused(label) | Failure::Unknown(label) => label,
        }
    }
}

/// A client with one call in flight.
#[derive(Debug)]
pub(super) enum Caller {
    /// Over gRPC.
    Grpc(Box<GrpcCaller>),
    /// Through the REST gateway.
    Rest(RestCaller),
}

impl Caller {
    /// Sends a batch.
    pub(super) async fn send(
        &mut self,
        project: &str,
        queue: &str,
        bodies: Vec<Bytes>,
        delay: Duration,
    ) -> Result<(), Failure> {
        within(CALL_LIMIT, async {
            match self {
                Caller::Grpc(caller) => caller.send(project, queue, bodies, delay).await,
                Caller::Rest(caller) => caller.send(project, queue, &bodies, delay).await,
            }
        })
        .await
    }

    /// Consumes a batch; none when there was nothing.
    pub(super) async fn consume(&mut self, target: &Target, ask: Ask) -> Result<Vec<Received>, Failure> {
        within(ask.wait + CALL_LIMIT, async {
            match self {
                Caller::Grpc(caller) => caller.consume(target, ask).await,
                Caller::Rest(caller) => caller.consume(target, ask).await,
            }
        })
        .await
    }

    /// Acknowledges; one outcome an entry. Where the answer does not tell why an entry was not acknowledged it is
    /// [`AckOutcome::AfterFailure`].
    pub(super) async fn ack(&mut self, target: &Target, entries: &[Entry]) -> Result<Vec<AckOutcome>, Failure> {
        within(CALL_LIMIT, async {
            match self {
                Caller::Grpc(caller) => caller.ack(target, entries).await,
                Caller::Rest(caller) => caller.ack(target, entries).await,
            }
        })
        .await
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(limit, call).await.unwrap_or_else(|_| Err(Failure::Unknown("no answer in time".to_owned())))
}
