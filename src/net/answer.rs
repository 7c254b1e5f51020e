//! The body of an answer. Its bytes hold the place of their call until they are sent: a caller who does not read pays for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::call::Call;

/// Larger answers are handed over piece by piece, so that the HTTP library holds little of what nobody reads.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Pieces of one answer that it may hold.
const PIECES_MAX: usize = 4;

/// A body on its way to its caller.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    call: Call,
    /// What is left of the last bytes of the body.
    rest: Bytes,
    /// In pieces. Its end is told only when all of it was taken: until then the stream can be ended.
    large: bool,
}

impl Answer {
    /// The answer of this call.
    pub(super) fn new(body: Body, call: Call) -> Self {
        Self { body, call, rest: Bytes::new(), large: false }
    }

    fn piece(&mut self) -> Frame<Piece> {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE_BYTES_MAX));
        self.call.piece_begins();
        Frame::data(Piece { bytes, call: self.call.clone() })
    }
}

impl HttpBody for Answer {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        if !self.rest.is_empty() {
            ready!(self.call.poll_sent(cx, PIECES_MAX - 1));
            return Poll::Ready(Some(Ok(self.piece())));
        }
        if self.large {
            ready!(self.call.poll_sent(cx, 0));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(match frame.into_data() {
            Ok(bytes) => {
                self.large |= bytes.len() > PIECE_BYTES_MAX;
                self.rest = bytes;
                Ok(self.piece())
            }
            Err(frame) => {
                frame.into_trailers().map(Frame::trailers).map_err(|_| Status::internal("a frame of no kind"))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.large && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that hold the place of their call.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    call: Call,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.bytes.copy_to_bytes(len)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.call.piece_ends();
    }
}
