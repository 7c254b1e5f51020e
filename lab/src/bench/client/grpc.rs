//! A gRPC client, on a connection that it shares with others.

use std::time::Duration;

use bytes::Bytes;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_client::v1::{AckEntry, AckMessagesRequest, AckOutcome, ConsumeMessagesRequest, SendMessagesRequest};
use tonic::Status;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Delivered, Receipt, Topic, handlers};
use crate::bench::consumer::{LEASE, WAIT};
use crate::harness::grpc;

/// See [`super::Client`].
#[derive(Debug, Clone)]
pub(crate) struct GrpcClient {
    /// How long a consume waits for messages.
    pub wait: Duration,
    project_id: String,
    messages: MessageServiceClient<Channel>,
    health: HealthClient<Channel>,
}

impl GrpcClient {
    /// A client of this project.
    pub(crate) fn new(project_id: String, channel: Channel) -> Self {
        let wait = WAIT;
        Self {
            wait,
            project_id,
            messages: MessageServiceClient::new(channel.clone()),
            health: HealthClient::new(channel),
        }
    }

    /// See [`super::Client::send`].
    pub(crate) async fn send(&mut self, topic: &Topic, bodies: Vec<Bytes>) -> Result<(), Status> {
        let request = SendMessagesRequest {
            project_id: self.project_id.clone(),
            queue_id: topic.queue_id.clone(),
            messages: grpc::messages(bodies, Duration::ZERO),
            return_ids: false,
        };
        self.messages.send_messages(request).await.map(drop)
    }

    /// See [`super::Client::consume`].
    pub(crate) async fn consume(&mut self, topic: &Topic, group: usize, max: u32) -> Result<Vec<Delivered>, Status> {
        let request = ConsumeMessagesRequest {
            project_id: self.project_id.clone(),
            queue_id: topic.queue_id.clone(),
            group_id: topic.group_ids[group].clone(),
            options: Some(grpc::consume_options(max, self.wait, LEASE)),
            ..ConsumeMessagesRequest::default()
        };
        let messages = self.messages.consume_messages(request).await?.into_inner().messages;
        let delivered = messages.into_iter().map(|leased| Delivered {
            body: leased.message.unwrap_or_default().body,
            receipt: Receipt::Handler(leased.handler),
        });
        Ok(delivered.collect())
    }

    /// See [`super::Client::ack`].
    pub(crate) async fn ack(
        &mut self,
        topic: &Topic,
        group: usize,
        receipts: Vec<Receipt>,
    ) -> Result<Vec<bool>, Status> {
        let entries = handlers(receipts).map(|handler| AckEntry { handler, ..AckEntry::default() });
        let request = AckMessagesRequest {
            project_id: self.project_id.clone(),
            queue_id: topic.queue_id.clone(),
            group_id: topic.group_ids[group].clone(),
            entries: entries.collect(),
        };
        let result = self.messages.ack_messages(request).await?.into_inner().result.unwrap_or_default();
        Ok(result.outcomes.into_iter().map(|outcome| outcome == AckOutcome::Acked as i32).collect())
    }

    /// The health check of the same server: HTTP/2 and tonic's coding of messages, without the layers and services of ours.
    pub(super) async fn noop(&mut self) -> Result<(), Status> {
        self.health.check(HealthCheckRequest::default()).await.map(drop)
    }
}
