//! The gRPC services: protobuf to domain types, a broker call, and back. No SQL, no policy.

mod convert;
pub mod health;
mod layers;
mod message_service;
mod queue_service;
mod status;
mod tag_service;

use tonic::service::Routes;

use crate::broker::Broker;
use crate::proto::v1::dead_letter_service_server::{self, DeadLetterServiceServer};
use crate::proto::v1::message_service_server::{self, MessageServiceServer};
use crate::proto::v1::queue_service_server::{self, QueueServiceServer};
use crate::proto::v1::tag_service_server::{self, TagServiceServer};

/// The services by their full names.
pub const SERVICE_NAMES: [&str; 4] = [
    queue_service_server::SERVICE_NAME,
    message_service_server::SERVICE_NAME,
    dead_letter_service_server::SERVICE_NAME,
    tag_service_server::SERVICE_NAME,
];

/// The largest request: a full batch of 512 KB and what is around it.
const REQUEST_BYTES_MAX: usize = 1_536 * 1024;
/// Calls in flight, long polls included.
pub const CALLS_MAX: usize = 20_000;

/// All services behind their layers. Clones share one bound on calls in flight.
pub fn routes(broker: Broker) -> Routes {
    let queues = queue_service::Queues(broker.clone());
    let messages = message_service::Messages(broker.clone());
    let tags = tag_service::Tags(broker);
    let services = Routes::new(QueueServiceServer::new(queues).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(MessageServiceServer::new(messages.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(DeadLetterServiceServer::new(messages).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(TagServiceServer::new(tags).max_decoding_message_size(REQUEST_BYTES_MAX));
    let around = axum::middleware::from_fn_with_state(layers::Gate::new(CALLS_MAX), layers::around);
    services.into_axum_router().layer(around).into()
}
