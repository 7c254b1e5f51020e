//! A gRPC transport that keeps the request and gives a prepared answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service;

use crate::domain::ErrorKind;
use crate::domain::signed_request::SignedRequest;

/// One call as the service got it.
#[derive(Clone)]
pub(super) struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub signed: Option<SignedRequest>,
    message: Bytes,
}

/// The stand-in.
#[derive(Clone)]
pub(super) struct Fake {
    answer: Result<Bytes, Status>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub(super) fn answering(message: impl Message) -> Self {
        Self { answer: Ok(message.encode_to_vec().into()), seen: Arc::default() }
    }

    /// Whose answer says nothing, or nothing that matters.
    pub(super) fn silent() -> Self {
        Self::answering(())
    }

    pub(super) fn failing(status: Status) -> Self {
        Self { answer: Err(status), seen: Arc::default() }
    }

    /// Fails as the service does.
    pub(super) fn refusing(kind: ErrorKind, message: &str, retry: Option<Duration>) -> Self {
        let mut details = ErrorDetails::with_error_info(
            kind.row().reason,
            "dms",
            [("dms_code".to_owned(), kind.row().code.to_owned())],
        );
        details.set_retry_info(retry);
        Self::failing(Status::with_error_details(Code::InvalidArgument, message, details))
    }

    pub(super) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    /// The request of the last call.
    pub(super) fn request<M: Message + Default>(&self) -> M {
        M::decode(self.seen().message).unwrap()
    }
}

impl Service<Request<Body>> for Fake {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { answer, seen } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let frame = axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await.unwrap();
            let path = parts.uri.path().to_owned();
            let signed = parts.extensions.get().cloned();
            seen.lock().unwrap().push(Seen { path, headers: parts.headers, signed, message: frame.slice(5..) });
            Ok(match answer {
                Ok(message) => unary(&message),
                Err(status) => status.into_http(),
            })
        })
    }
}

/// A frame is a flag, a length and the message.
fn unary(message: &Bytes) -> Response<Body> {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    let body = Body::new(axum::body::Body::from(frame.freeze()));
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
    response.body(body).unwrap()
}
