//! The body of a request on HTTP/1, for [`super::ending`] to know whether it has come as a whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::call::Call;

/// A body that may wait for more.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    call: Call,
}

impl Arriving {
    /// That of this call.
    pub(super) fn new(body: Incoming, call: Call) -> Self {
        Self { body, call }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() {
            self.call.body_waits();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
