//! The door of every call: who calls, whether that one may do this in that project, and whether the project has not asked for
//! too much. All are asked here and nowhere else; a service gets the project of a request only from [`admit`].

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dms_client::v1 as pb;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderName};
use prost::Message;
use tonic::{Request, Status};

use super::traffic::{InFlight, Traffic};
use crate::auth::credentials::{Credentials, Header};
use crate::auth::rights::{self, Right};
use crate::auth::{Authenticator, Principal};
use crate::domain::ids::ProjectId;
use crate::domain::signed_request::SignedRequest;
use crate::domain::{Error, Result};
use crate::memory::Owner;
use crate::net::Call;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Who calls, and what the method asks of them: an extension of the request, which nobody can set from outside.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    principal: Arc<Principal>,
    needs: Right,
    traffic: Traffic,
    in_flight: Held,
}

/// The call counts as in flight for as long as anybody has this.
pub(super) type Held = Arc<OnceLock<InFlight>>;

/// Finds out who calls; the layer around every method of ours, which keeps what is returned until the answer.
pub(super) fn identify<B>(auth: &Authenticator, traffic: &Traffic, request: &mut http::Request<B>) -> Result<Held> {
    let principal = auth.authenticate(&credentials(request.headers(), request.extensions()))?;
    tracing::Span::current().record("caller", principal.name());
    if let Some(call) = request.extensions().get::<Call>() {
        call.belongs_to(principal.name())?;
        call.was_known(principal.name());
    }
    let held = Held::default();
    // The router answers for a path that is no method.
    if let Some(needs) = rights::needed(request.uri().path()) {
        let caller = Caller { principal, needs, traffic: traffic.clone(), in_flight: Arc::clone(&held) };
        request.extensions_mut().insert(caller);
    }
    Ok(held)
}

/// The project of a request whose caller may do this there, now.
pub(super) fn admit<M: OfProject + Message>(request: &Request<M>) -> Result<ProjectId> {
    let project = ProjectId::parse(request.get_ref().project_id())?;
    let caller = request.extensions().get::<Caller>().ok_or_else(|| Error::internal("a call of nobody"))?;
    caller.principal.allow(&project, caller.needs)?;
    let bytes = if caller.traffic.counts_bytes() { request.get_ref().encoded_len() } else { 0 };
    let in_flight = caller.traffic.admit(&project, bytes, Instant::now())?;
    // Empty before: a call is admitted once.
    let _first = caller.in_flight.set(in_flight);
    Ok(project)
}

/// Who called, to count the answer.
pub(super) fn caller<M>(request: &Request<M>) -> Option<Caller> {
    request.extensions().get::<Caller>().cloned()
}

impl Caller {
    /// Whose the memory of the call is.
    pub(super) fn owner(&self) -> Owner {
        Owner::principal(self.principal.name())
    }

    /// Counts the bytes of messages delivered.
    pub(super) fn delivered<M: Message>(&self, messages: &[M]) {
        if let Some(in_flight) = self.in_flight.get().filter(|_| self.traffic.counts_bytes()) {
            in_flight.charge(messages.iter().map(Message::encoded_len).sum(), Instant::now());
        }
    }
}

/// Lets any caller pass who has good credentials: for what belongs to no project.
pub(super) fn anybody_known(auth: Authenticator) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| {
        let headers = request.metadata().clone().into_headers();
        known(&auth, &headers, None, request.extensions().get()).map_err(Status::from)?;
        Ok(request)
    }
}

/// Looks at the credentials of a request before its body has come, as far as they do not depend on it. `signed` is the request without
/// its body, where it is known.
pub(super) fn known(
    auth: &Authenticator,
    headers: &HeaderMap,
    signed: Option<&SignedRequest>,
    call: Option<&Call>,
) -> Result<()> {
    let nothing_signed = Extensions::new();
    let credentials = credentials(headers, &nothing_signed);
    if let (Credentials::Signature(authorization, _), Some(signed)) = (&credentials, signed) {
        return auth.may_be_signed(authorization, signed);
    }
    let principal = auth.authenticate(&credentials)?;
    if let Some(call) = call {
        call.belongs_to(principal.name())?;
        call.was_known(principal.name());
    }
    Ok(())
}

fn credentials<'a>(headers: &'a HeaderMap, extensions: &'a Extensions) -> Credentials<'a> {
    let header = |name: &HeaderName| Header::of(headers.get_all(name).iter().map(http::HeaderValue::as_bytes));
    Credentials::read(header(&AUTHORIZATION), header(&AUTH_TOKEN), extensions.get::<SignedRequest>())
}

/// A request that says which project it is about.
pub(super) trait OfProject {
    /// As the caller wrote it.
    fn project_id(&self) -> &str;
}

macro_rules! of_project {
    ($($request:ident)*) => {
        $(impl OfProject for pb::$request {
            fn project_id(&self) -> &str {
                &self.project_id
            }
        })*
    };
}

of_project! {
    SendMessagesRequest ConsumeMessagesRequest AckMessagesRequest
    ConsumeDeadLettersRequest AckDeadLettersRequest
    CreateQueueRequest GetQueueRequest ListQueuesRequest DeleteQueueRequest
    CreateConsumerGroupsRequest ListConsumerGroupsRequest DeleteConsumerGroupRequest GetQuotasRequest
    AddQueueTagRequest DeleteQueueTagRequest BatchQueueTagsRequest
    ListQueueTagsRequest ListProjectTagsRequest SearchQueuesRequest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TrafficLimits;
    use crate::domain::ErrorKind;
    use crate::observe::metrics::Metrics;

    const SEND: &str = "http://h/dms.v1.MessageService/SendMessages";

    fn called(path: &str, project_id: &str) -> Request<pb::SendMessagesRequest> {
        let auth = Authenticator::open();
        let mut request = http::Request::builder().uri(path).body(()).unwrap();
        let traffic = Traffic::new(TrafficLimits::default(), 1, Metrics::default());
        identify(&auth, &traffic, &mut request).unwrap();
        let mut call = Request::new(pb::SendMessagesRequest { project_id: project_id.into(), ..Default::default() });
        *call.extensions_mut() = request.extensions().clone();
        call
    }

    #[test]
    fn a_call_that_passed_the_layer_has_a_project() {
        assert_eq!(admit(&called(SEND, "p")).unwrap().as_str(), "p");
        assert_eq!(admit(&called(SEND, "")).unwrap_err().kind(), ErrorKind::ProjectIdInvalid);
    }

    #[test]
    fn a_call_that_did_not_is_refused() {
        let bare = Request::new(pb::SendMessagesRequest { project_id: "p".into(), ..Default::default() });
        assert_eq!(admit(&bare).unwrap_err().kind(), ErrorKind::Internal);
        // A method that the table of rights does not have.
        assert_eq!(admit(&called("http://h/dms.v1.MessageService/New", "p")).unwrap_err().kind(), ErrorKind::Internal);
    }
}
