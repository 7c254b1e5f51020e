//! Plain calls: one request, one answer.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::v1::dead_letter_service_client::DeadLetterServiceClient;
use crate::v1::message_service_client::MessageServiceClient;
use crate::v1::queue_service_client::QueueServiceClient;
use crate::v1::tag_service_client::TagServiceClient;
use crate::v1::*;
use crate::{Error, Options};

/// The largest answer taken: a list of 100,000 queues, the largest quota, stays below it.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Connections of a [`Client`]: they show its token with every call. The clients in [`crate::v1`] take one too.
pub type Connection = InterceptedService<Channel, Authorization>;

/// Adds the token, if there is one.
#[derive(Debug, Clone)]
pub struct Authorization(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A client of the service. Clones share one connection, which takes as many calls at a time as the service allows.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Options that cannot be meant, and a service that is not reached within the limit.
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        let authorization = Authorization(options.authorization()?);
        Ok(Self::over(options.endpoint()?.connect().await?, authorization))
    }

    /// Connects with the first call, and again with the first one after a connection has ended. Needs a runtime.
    ///
    /// # Errors
    /// Options that cannot be meant.
    pub fn lazy(options: &Options) -> Result<Self, Error> {
        let authorization = Authorization(options.authorization()?);
        Ok(Self::over(options.endpoint()?.connect_lazy(), authorization))
    }

    fn over(channel: Channel, authorization: Authorization) -> Self {
        Self { connection: InterceptedService::new(channel, authorization) }
    }

    /// The connection, for a client of [`crate::v1`] or of another service at the same address.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }
}

/// One method a call, by the service that has it.
macro_rules! calls {
    ($($service:ident { $($(#[doc = $doc:literal])* $call:ident($request:ident) -> $response:ident;)* })*) => {
        impl Client {$($(
            $(#[doc = $doc])*
            ///
            /// # Errors
            /// What the service refuses, and what kept its answer from coming.
            pub async fn $call(&self, request: $request) -> Result<$response, Error> {
                let mut client = $service::new(self.connection.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
                Ok(client.$call(request).await?.into_inner())
            }
        )*)*}
    };
}

calls! {
    QueueServiceClient {
        /// Creates a queue.
        create_queue(CreateQueueRequest) -> CreateQueueResponse;
        /// Shows a queue.
        get_queue(GetQueueRequest) -> GetQueueResponse;
        /// Lists the queues of a project by creation time.
        list_queues(ListQueuesRequest) -> ListQueuesResponse;
        /// Deletes a queue with its messages, groups and dead letters.
        delete_queue(DeleteQueueRequest) -> DeleteQueueResponse;
        /// Creates consumer groups, all or none.
        create_consumer_groups(CreateConsumerGroupsRequest) -> CreateConsumerGroupsResponse;
        /// Lists the consumer groups of a queue by creation time.
        list_consumer_groups(ListConsumerGroupsRequest) -> ListConsumerGroupsResponse;
        /// Deletes a consumer group with its position and its dead letters.
        delete_consumer_group(DeleteConsumerGroupRequest) -> DeleteConsumerGroupResponse;
        /// Shows the quotas of a project.
        get_quotas(GetQuotasRequest) -> GetQuotasResponse;
    }
    MessageServiceClient {
        /// Sends 1-10 messages, all or none; answered after their commit.
        send_messages(SendMessagesRequest) -> SendMessagesResponse;
        /// Leases messages, and waits for the first as long as the request says. An empty answer is no error.
        consume_messages(ConsumeMessagesRequest) -> ConsumeMessagesResponse;
        /// Acknowledges deliveries in order: the first failure or invalid handler ends the walk.
        ack_messages(AckMessagesRequest) -> AckMessagesResponse;
    }
    DeadLetterServiceClient {
        /// As [`Client::consume_messages`], for the dead letters of a group.
        consume_dead_letters(ConsumeDeadLettersRequest) -> ConsumeDeadLettersResponse;
        /// As [`Client::ack_messages`], for the dead letters of a group.
        ack_dead_letters(AckDeadLettersRequest) -> AckDeadLettersResponse;
    }    TagServiceClient {
        /// Adds a tag to a queue, or overwrites its value.
        add_queue_tag(AddQueueTagRequest) -> AddQueueTagResponse;
        /// Deletes a tag of a queue.
        delete_queue_tag(DeleteQueueTagRequest) -> DeleteQueueTagResponse;
        /// Adds or deletes several tags of a queue, all or none.
        batch_queue_tags(BatchQueueTagsRequest) -> BatchQueueTagsResponse;
        /// Lists the tags of a queue by key.
        list_queue_tags(ListQueueTagsRequest) -> ListQueueTagsResponse;
        /// Lists the tags of all queues of a project.
        list_project_tags(ListProjectTagsRequest) -> ListProjectTagsResponse;
        /// Finds queues by their tags and names.
        search_queues(SearchQueuesRequest) -> SearchQueuesResponse;
    }
}
