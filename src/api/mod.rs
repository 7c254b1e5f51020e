//! The gRPC services: protobuf to domain types, a broker call, and back. No SQL, no policy.

mod access;
mod answer;
mod arrival;
mod compression;
mod convert;
pub mod health;
mod layers;
mod message_service;
mod queue_service;
mod status;
mod tag_service;
mod trace;
mod traffic;

use dms_client::DESCRIPTOR_SET;
use http::HeaderMap;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic_reflection::server::Builder;

use self::traffic::Traffic;
pub use self::traffic::TrafficLimits;
use crate::auth::{Authenticator, rights};
use crate::broker::Broker;
use crate::domain::signed_request::SignedRequest;
use crate::domain::{Error, Result};
use crate::net::{Call, Door};
use crate::proto::v1::dead_letter_service_server::{self, DeadLetterServiceServer};
use crate::proto::v1::message_service_server::{self, MessageServiceServer};
use crate::proto::v1::queue_service_server::{self, QueueServiceServer};
use crate::proto::v1::tag_service_server::{self, TagServiceServer};

/// The services by their full names.
pub(crate) const SERVICE_NAMES: [&str; 4] = [
    queue_service_server::SERVICE_NAME,
    message_service_server::SERVICE_NAME,
    dead_letter_service_server::SERVICE_NAME,
    tag_service_server::SERVICE_NAME,
];

/// The largest request: a full batch of 512 KB and what is around it.
const REQUEST_BYTES_MAX: usize = 1_536 * 1024;

/// All services behind their layers, for callers with good credentials. Clones share one bound on calls in flight.
pub fn routes(broker: Broker, auth: Authenticator, limits: TrafficLimits, calls_max: usize) -> Routes {
    let (metrics, memory) = (broker.metrics().clone(), broker.memory().clone());
    let queues = queue_service::Queues(broker.clone());
    let messages = message_service::Messages(broker.clone());
    let tags = tag_service::Tags(broker);
    let services = Routes::new(QueueServiceServer::new(queues).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(MessageServiceServer::new(messages.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(DeadLetterServiceServer::new(messages).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(TagServiceServer::new(tags).max_decoding_message_size(REQUEST_BYTES_MAX));
    metrics.calls().expect(rights::NEEDED.iter().map(|(method, _)| *method));
    let traffic = Traffic::new(limits, calls_max, metrics.clone());
    let gate = layers::Gate::new(calls_max, auth, traffic, memory, metrics);
    let around = axum::middleware::from_fn_with_state(gate, layers::around);
    services.into_axum_router().layer(around).into()
}

/// The door of the gateway of the same process: refuses bad credentials before the body of their request has come. What is let
/// through is looked at again by the services.
#[derive(Debug)]
pub struct ServiceDoor(pub Authenticator);

impl Door for ServiceDoor {
    fn before_body(&self, shown: &HeaderMap, signed: Option<&SignedRequest>, call: Option<&Call>) -> Result<()> {
        access::known(&self.0, shown, signed, call)
    }

    fn before_call(&self, _: &HeaderMap, _: Option<&Call>) -> Result<()> {
        Ok(())
    }
}

/// Adds reflection, which says nothing to callers without credentials, but nothing secret to any.
pub(crate) fn with_reflection(routes: Routes, auth: &Authenticator) -> Result<Routes> {
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error| Error::internal(format!("descriptor set: {error}"));
    let v1 = described().build_v1().map_err(broken)?;
    let v1alpha = described().build_v1alpha().map_err(broken)?;
    let known = access::anybody_known(auth.clone());
    Ok(routes
        .add_service(InterceptedService::new(v1, known.clone()))
        .add_service(InterceptedService::new(v1alpha, known)))
}
