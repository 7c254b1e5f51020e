//! `MessageService` and `DeadLetterService`: one implementation over the two sources of a group.

use std::sync::Arc;

use dms_client::v1::{
    AckDeadLettersRequest, AckDeadLettersResponse, AckMessagesRequest, AckMessagesResponse, AckResult,
    ConsumeDeadLettersRequest, ConsumeDeadLettersResponse, ConsumeMessagesRequest, ConsumeMessagesResponse,
    LeasedMessage, SendMessagesRequest, SendMessagesResponse,
};
use tonic::{Request, Response, Status};

use super::access::{admit, caller};
use super::answer::holding;
use super::convert::messages as convert;
use super::layers::Deadline;
use super::trace;
use crate::broker::Broker;
use crate::domain::Result;
use crate::domain::message::Source;
use crate::memory::{Answer, Arrival};
use crate::proto::v1::dead_letter_service_server::DeadLetterService;
use crate::proto::v1::message_service_server::MessageService;

/// Both services.
#[derive(Clone)]
pub(super) struct Messages(pub Broker);

impl Messages {
    async fn consume(
        &self,
        request: Request<ConsumeMessagesRequest>,
        source: Source,
    ) -> Result<(Vec<LeasedMessage>, Answer)> {
        let project = admit(&request)?;
        let caller = caller(&request);
        let deadline = request.extensions().get::<Deadline>().copied();
        let (address, mut options) = convert::consume(project, request.into_inner(), source)?;
        options.wait = deadline.map_or(options.wait, |deadline| deadline.shorten(options.wait));
        let memory = self.0.answer(&address.project);
        let deliveries = self.0.consume(&address, options, &memory).await?;
        trace::link(&deliveries);
        let messages: Vec<_> = deliveries.into_iter().map(convert::leased_message).collect();
        caller.iter().for_each(|caller| caller.delivered(&messages));
        Ok((messages, memory))
    }

    async fn ack(&self, request: Request<AckMessagesRequest>, source: Source) -> Result<Option<AckResult>> {
        let project = admit(&request)?;
        let (address, entries) = convert::ack(project, request.into_inner(), source)?;
        let (outcomes, invalid) = self.0.ack(&address, entries).await?;
        Ok(Some(convert::ack_result(&outcomes, invalid.as_ref())))
    }
}

#[tonic::async_trait]
impl MessageService for Messages {
    async fn send_messages(
        &self,
        request: Request<SendMessagesRequest>,
    ) -> Result<Response<SendMessagesResponse>, Status> {
        let project = admit(&request)?;
        let producer = trace::producer(&request);
        let arrival = request.extensions().get::<Arc<Arrival>>().cloned();
        let send = convert::send(request.into_inner(), producer)?;
        let ids = self.0.send(&project, send.queue, send.messages, arrival).await?;
        Ok(Response::new(convert::send_response(&ids, send.return_ids)))
    }

    async fn consume_messages(
        &self,
        request: Request<ConsumeMessagesRequest>,
    ) -> Result<Response<ConsumeMessagesResponse>, Status> {
        let (messages, memory) = self.consume(request, Source::Normal).await?;
        Ok(holding(ConsumeMessagesResponse { messages }, memory))
    }

    async fn ack_messages(
        &self,
        request: Request<AckMessagesRequest>,
    ) -> Result<Response<AckMessagesResponse>, Status> {
        let result = self.ack(request, Source::Normal).await?;
        Ok(Response::new(AckMessagesResponse { result }))
    }
}

#[tonic::async_trait]
impl DeadLetterService for Messages {
    async fn consume_dead_letters(
        &self,
        request: Request<ConsumeDeadLettersRequest>,
    ) -> Result<Response<ConsumeDeadLettersResponse>, Status> {
        let (messages, memory) =
            self.consume(request.map(convert::consume_of_dead_letters), Source::DeadLetters).await?;
        Ok(holding(ConsumeDeadLettersResponse { messages }, memory))
    }

    async fn ack_dead_letters(
        &self,
        request: Request<AckDeadLettersRequest>,
    ) -> Result<Response<AckDeadLettersResponse>, Status> {
        let result = self.ack(request.map(convert::ack_of_dead_letters), Source::DeadLetters).await?;
        Ok(Response::new(AckDeadLettersResponse { result }))
    }
}
