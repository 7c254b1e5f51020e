//! An answer that holds something until its last byte has left the process.
//!
//! It is not enough to hold it until the body is dropped: an HTTP library takes a whole piece out of a body as soon as the other
//! side would read a single byte, and keeps it in a buffer of its own. So each piece holds it too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// The same body; `held` is dropped when neither the body nor any piece of it is left.
pub(crate) fn holding<T: Send + Sync + 'static>(body: Body, held: T) -> Body {
    Body::new(HeldBody { body, held: Arc::new(held) })
}

struct HeldBody<T> {
    body: Body,
    held: Arc<T>,
}

struct Piece<T> {
    data: Bytes,
    _held: Arc<T>,
}

impl<T> AsRef<[u8]> for Piece<T> {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl<T: Send + Sync + 'static> HttpBody for HeldBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let hold = |data| Bytes::from_owner(Piece { data, _held: Arc::clone(&self.held) });
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::memory::ByteBudget;

    #[tokio::test]
    async fn it_is_held_until_the_last_piece_is_gone() {
        let budget = ByteBudget::new(100, "tests");
        let mut body = holding(Body::from("answer"), budget.reserve(None, 6).unwrap());
        assert_eq!(body.size_hint().exact(), Some(6));
        let mut piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.frame().await.is_none());
        drop(body);
        let last = piece.split_off(3);
        drop(piece);
        assert_eq!((budget.reserved(), &last[..]), (6, &b"wer"[..]));
        drop(last);
        assert_eq!(budget.reserved(), 0);
    }

    #[tokio::test]
    async fn it_is_held_no_longer_when_nobody_reads() {
        let budget = ByteBudget::new(100, "tests");
        drop(holding(Body::from("answer"), budget.reserve(None, 6).unwrap()));
        assert_eq!(budget.reserved(), 0);
    }
}
