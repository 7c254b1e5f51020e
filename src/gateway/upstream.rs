//! The gRPC service behind the gateway: clients, the caller's metadata, deadlines.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use bytes::Bytes;
use dms_client::v1::dead_letter_service_client::DeadLetterServiceClient;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_client::v1::queue_service_client::QueueServiceClient;
use dms_client::v1::tag_service_client::TagServiceClient;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::MetadataMap;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use super::announced::Announced;
use super::answers;
use super::body::{self, Plane};
use super::error::Failure;
use super::ignored::Ignored;
use super::request_id::X_REQUEST_ID;
use super::signed;
use super::trace::RequestTrace;
use crate::domain::signed_request::SignedRequest;
use crate::domain::{Error, ErrorKind, Result};
use crate::memory::{Arrival, Memory, Relayed};
use crate::net::{Call, Door};

type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// The largest gRPC answer taken: a list of 100,000 queues, the largest quota, stays below it.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The deadline of a call that does not wait.
const DEADLINE: Duration = Duration::from_secs(30);

/// A caller who has ended its direction of the connection waits for what is there, and is taken for gone after this.
const GLANCE: Duration = Duration::from_millis(100);

/// Headers that go along as metadata, beside the trace: who asks.
const FORWARDED: [HeaderName; 3] = [X_REQUEST_ID, header::AUTHORIZATION, HeaderName::from_static("x-auth-token")];

/// Each of these headers, and all of them together. The connection to the service is shared by all callers; it would end with a
/// request whose headers are far above the 16 KiB that the service takes.
const FORWARDED_BYTES_MAX: usize = 8 * 1024;

/// The state of the router.
#[derive(Clone)]
pub(super) struct Gateway {
    transport: Transport,
    memory: Memory,
    door: Arc<dyn Door>,
}

impl Gateway {
    /// A gateway to whatever is behind the transport, for those whom the door lets through.
    pub(super) fn new<T>(transport: T, memory: Memory, door: Arc<dyn Door>) -> Self
    where
        T: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
        T::Error: Into<StdError> + Send,
        T::Future: Send + 'static,
    {
        let reserving = memory.clone();
        let counted = tower::service_fn(move |request: http::Request<Body>| {
            let (transport, memory) = (transport.clone(), reserving.clone());
            async move {
                let relayed = request.extensions().get::<Relayed>().cloned();
                let response = transport.oneshot(request).await.map_err(|error| Status::from_error(error.into()))?;
                Ok(answers::counted(response, relayed.as_ref(), &memory))
            }
        });
        let transport = BoxCloneSyncService::new(counted);
        Self { transport, memory, door }
    }
}

/// The service, called on behalf of one REST caller.
pub(super) struct Upstream {
    transport: Transport,
    door: Arc<dyn Door>,
    call: Option<Call>,
    metadata: HeaderMap,
    signed: Option<SignedRequest>,
    /// How the body comes; an error is told after the credentials were looked at.
    announced: Result<Announced>,
    /// What the body of the request holds, until the answer.
    arrival: Arc<Arrival>,
    relayed: Relayed,
    /// Whether the caller is in a trace, and understands traces of others.
    pub traced: bool,
    /// What of the request is not read.
    pub ignored: Ignored,
}

impl FromRequestParts<Gateway> for Upstream {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Failure> {
        let mut metadata = HeaderMap::new();
        for name in FORWARDED {
            // All of a name: a repeated credential is for the service to refuse.
            for value in parts.headers.get_all(&name) {
                metadata.append(name.clone(), value.clone());
            }
            within_bounds(&name, &metadata)?;
        }
        let trace = parts.extensions.get::<RequestTrace>();
        trace.into_iter().for_each(|trace| trace.pass_on(&parts.headers, &mut metadata));
        let traced = trace.is_some_and(|trace| trace.parent.is_some());
        let Gateway { transport, memory, door } = gateway.clone();
        let call = parts.extensions.get::<Call>().cloned();
        let relayed = parts.extensions.get::<Relayed>().cloned().unwrap_or_else(|| Relayed::by(None));
        let arrival = Arc::new(Arrival::new(&memory, relayed.caller()));
        arrival.begin(&parts.headers)?;
        let (signed, announced) = (signed::head(parts), Announced::of(&parts.headers));
        let ignored = parts.extensions.get::<Ignored>().cloned().unwrap_or_default();
        ignored.expect_no_query(&parts.uri);
        Ok(Self { transport, door, call, metadata, signed, announced, arrival, relayed, traced, ignored })
    }
}

/// Refuses a header that brings all that is passed on above the bound.
fn within_bounds(name: &HeaderName, metadata: &HeaderMap) -> Result<()> {
    let bytes: usize = metadata.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes <= FORWARDED_BYTES_MAX {
        return Ok(());
    }
    let headers = "x-request-id, authorization and x-auth-token together";
    let message = format!("{name}: {headers} are larger than the limit of {FORWARDED_BYTES_MAX} bytes");
    Err(Error::new(ErrorKind::RequestFormat, message))
}

impl Upstream {
    /// Reads the body of the caller's request; a signature covers it as it comes, compressed or not.
    pub(super) async fn read(&mut self, body: axum::body::Body, plane: Plane) -> Result<Bytes> {
        self.door.before_body(&self.metadata, self.signed.as_ref(), self.call.as_ref())?;
        let announced = self.announced.clone()?;
        let body = body::read(body, plane, &self.arrival).await?;
        if let Some(signed) = &mut self.signed {
            signed.body = body.clone();
        }
        announced.plain(body, plane, &self.arrival)
    }

    /// A request with the caller's metadata and the usual deadline, if the caller may make one now.
    pub(super) fn request<M>(&self, message: M) -> Result<tonic::Request<M>> {
        self.request_within(DEADLINE, message)
    }

    /// A request with the caller's metadata and a deadline, if the caller may make one now.
    pub(super) fn request_within<M>(&self, deadline: Duration, message: M) -> Result<tonic::Request<M>> {
        self.door.before_call(&self.metadata, self.call.as_ref())?;
        let metadata = MetadataMap::from_headers(self.metadata.clone());
        let mut request = tonic::Request::from_parts(metadata, tonic::Extensions::default(), message);
        if let Some(signed) = &self.signed {
            request.extensions_mut().insert(signed.clone());
        }
        if let Some(call) = &self.call {
            request.extensions_mut().insert(call.clone());
        }
        request.extensions_mut().insert(self.relayed.clone());
        request.extensions_mut().insert(Arc::clone(&self.arrival));
        request.set_timeout(deadline);
        Ok(request)
    }

    /// What comes of a call that may wait for long, or `None` when its caller has ended its direction of the connection meanwhile: most
    /// callers who did are gone, and nothing may be leased to them.
    pub(super) async fn while_caller_listens<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let Some(call) = &self.call else { return Some(answer.await) };
        let begun = Instant::now();
        let left = async {
            call.was_left().await;
            tokio::time::sleep_until(begun + GLANCE).await;
        };
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = left => None,
        }
    }

    /// Queues, groups, quotas.
    pub(super) fn queues(&self) -> QueueServiceClient<Transport> {
        QueueServiceClient::new(self.transport.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Normal messages.
    pub(super) fn messages(&self) -> MessageServiceClient<Transport> {
        MessageServiceClient::new(self.transport.clone())
    }

    /// Dead letters.
    pub(super) fn dead_letters(&self) -> DeadLetterServiceClient<Transport> {
        DeadLetterServiceClient::new(self.transport.clone())
    }

    /// Resource tags.
    pub(super) fn tags(&self) -> TagServiceClient<Transport> {
        TagServiceClient::new(self.transport.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}
