//! Answers on their way to REST callers: held in reserved memory until their last byte has left.
//!
//! A service in the same process has reserved it before. What comes from a remote one is counted as it arrives: once as protobuf,
//! of which the messages are slices, once as JSON, and once on its way into the buffer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::peer;
use crate::domain::Error;
use crate::memory::{Answer, Memory, Relayed, holding};

/// Times that the bytes of an answer are in memory.
const COPIES: usize = 3;
/// Of an answer so much is part of what a call costs.
const FREE_BYTES: usize = 1024;

/// The layer around every REST call.
pub(super) async fn held(mut request: Request, next: Next) -> Response {
    let relayed = Relayed::by(peer::owner(request.extensions()));
    request.extensions_mut().insert(relayed.clone());
    let response = next.run(request).await;
    match relayed.answer() {
        Some(answer) => response.map(|body| holding(body, answer.clone())),
        None => response,
    }
}

/// The answer of a service, counted unless the service is in this process and has done so.
pub(super) fn counted(
    response: http::Response<Body>,
    relayed: Option<&Relayed>,
    memory: &Memory,
) -> http::Response<Body> {
    let Some(relayed) = relayed.filter(|relayed| relayed.answer().is_none()) else { return response };
    let answer = relayed.answer_from_afar(memory);
    response.map(|body| Body::new(Arriving { body, answer, arrived: 0 }))
}

struct Arriving {
    body: Body,
    answer: Answer,
    arrived: usize,
}

impl Arriving {
    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        let before = self.arrived;
        self.arrived += frame.data_ref().map_or(0, Bytes::len);
        let beyond = |bytes: usize| bytes.saturating_sub(FREE_BYTES);
        self.answer.grow(COPIES * (beyond(self.arrived) - beyond(before))).map_err(|error| refusal(&error))?;
        Ok(frame)
    }
}

impl axum::body::HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.and_then(|frame| self.take(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As the service would have written it.
fn refusal(error: &Error) -> Status {
    let hint: Option<Duration> = error.retry_hint();
    let mut details = ErrorDetails::with_retry_info(hint);
    details.set_error_info(error.kind().row().reason, "dms", std::collections::HashMap::new());
    Status::with_error_details(Code::ResourceExhausted, error.message(), details)
}
