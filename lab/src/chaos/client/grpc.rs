//! The gRPC API.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dms_client::v1::dead_letter_service_client::DeadLetterServiceClient;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_client::v1::{
    AckDeadLettersRequest, AckEntry, AckMessagesRequest, ConsumeDeadLettersRequest, ConsumeMessagesRequest,
    LeasedMessage, SendMessagesRequest,
};
use dms_client::{Client, Error, Options};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{Ask, Entry, Failure, Received, Target};
use crate::chaos::api::{AckOutcome, Source};
use crate::harness::grpc;

/// A connection that is made when it is needed, and given up soon when nothing comes back.
fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL");
    let endpoint = endpoint.connect_timeout(Duration::from_secs(2)).tcp_nodelay(true);
    let endpoint =
        endpoint.http2_keep_alive_interval(Duration::from_secs(2)).keep_alive_timeout(Duration::from_secs(3));
    endpoint.connect_lazy()
}

/// A client for what nothing goes wrong with: past all proxies.
pub(crate) fn plain(address: SocketAddr) -> Result<Client, Error> {
    Client::lazy(&Options::new(format!("http://{address}")))
}

/// See [`super::Caller`].
#[derive(Debug)]
pub(crate) struct GrpcCaller {
    messages: MessageServiceClient<Channel>,
    dead_letters: DeadLetterServiceClient<Channel>,
}

impl GrpcCaller {
    /// Connects with the first call.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let channel = channel(address);
        Self {
            messages: MessageServiceClient::new(channel.clone()),
            dead_letters: DeadLetterServiceClient::new(channel),
        }
    }

    pub(super) async fn send(
        &mut self,
        project: &str,
        queue: &str,
        bodies: Vec<Bytes>,
        delay: Duration,
    ) -> Result<(), Failure> {
        let messages = grpc::messages(bodies, delay);
        let (project_id, queue_id) = (project.to_owned(), queue.to_owned());
        let request = SendMessagesRequest { project_id, queue_id, messages, return_ids: false };
        self.messages.send_messages(request).await.map(drop).map_err(failure)
    }

    pub(super) async fn consume(&mut self, target: &Target, ask: Ask) -> Result<Vec<Received>, Failure> {
        let options = Some(grpc::consume_options(ask.max, ask.wait, ask.lease));
        let Target { project: project_id, queue: queue_id, group: group_id, source } = target.clone();
        let messages = match source {
            Source::Normal => {
                let request = ConsumeMessagesRequest { project_id, queue_id, group_id, options, ..Default::default() };
                self.messages.consume_messages(request).await.map_err(failure)?.into_inner().messages
            }
            Source::DeadLetters => {
                let request = ConsumeDeadLettersRequest { project_id, queue_id, group_id, options };
                self.dead_letters.consume_dead_letters(request).await.map_err(failure)?.into_inner().messages
            }
        };
        Ok(messages.into_iter().map(received).collect())
    }

    pub(super) async fn ack(&mut self, target: &Target, entries: &[Entry]) -> Result<Vec<AckOutcome>, Failure> {
        let entries = entries.iter().map(entry).collect();
        let Target { project: project_id, queue: queue_id, group: group_id, source } = target.clone();
        let result = match source {
            Source::Normal => {
                let request = AckMessagesRequest { project_id, queue_id, group_id, entries };
                self.messages.ack_messages(request).await.map_err(failure)?.into_inner().result
            }
            Source::DeadLetters => {
                let request = AckDeadLettersRequest { project_id, queue_id, group_id, entries };
                self.dead_letters.ack_dead_letters(request).await.map_err(failure)?.into_inner().result
            }
        };
        Ok(result.unwrap_or_default().outcomes().collect())
    }
}

fn received(leased: LeasedMessage) -> Received {
    let message = leased.message.unwrap_or_default();
    let counted = message.dead_letter.map_or(leased.delivery_attempt, |origin| origin.delivery_attempts);
    Received { body: message.body, handler: leased.handler, attempts: u8::try_from(counted).ok() }
}

fn entry(entry: &Entry) -> AckEntry {
    AckEntry { handler: entry.handler.clone(), status: entry.status.into() }
}

/// Errors of the service carry their code and what REST would answer; others are the transport's.
fn failure(status: Status) -> Failure {
    let error = Error::from(status);
    match (error.dms_code(), error.http_status()) {
        (Some(code), Some(http_status)) => Failure::documented(code.to_owned(), http_status),
        _ => Failure::Unknown(format!("transport {:?}", error.code())),
    }
}
