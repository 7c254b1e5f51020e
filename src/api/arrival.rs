//! Requests on their way in: all together are bounded in bytes, and each in time.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

use super::status;
use crate::room::{Room, Share};

/// Bytes of requests that are not whole yet; whoever needs more is refused. Whole ones are bounded in front of the lanes.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a request may take to arrive.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Room for requests that arrive. Clones share it.
#[derive(Debug, Clone)]
pub struct Arrivals(Room);

impl Arrivals {
    /// Room for the usual number of bytes.
    pub fn new() -> Self {
        Self::of(BYTES_MAX)
    }

    fn of(bytes: usize) -> Self {
        Self(Room::new(bytes, "requests"))
    }

    /// The same body within the bounds.
    pub fn bounded(&self, body: Body) -> Body {
        let (body, share) = (body.into_data_stream(), self.0.share());
        Body::from_stream(Arriving { body, share, deadline: Instant::now() + TIME_MAX, limit: None })
    }
}

/// A body in pieces. What it has taken is free again when it is dropped: decoded, or given up.
struct Arriving {
    body: BodyDataStream,
    share: Share,
    deadline: Instant,
    /// Most requests are there at once, and need no timer.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Stream for Arriving {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match Pin::new(&mut self.body).poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                let room = self.share.grow(chunk.len()).map_err(Status::from);
                Poll::Ready(Some(room.map(|()| chunk)))
            }
            // Its caller, or its caller's connection, is gone.
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(status::given_up()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let deadline = self.deadline;
                let limit = self.limit.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                limit.as_mut().poll(cx).map(|()| Some(Err(status::deadline_exceeded())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;

    fn pieces(sizes: &[usize]) -> Body {
        let pieces: Vec<_> = sizes.iter().map(|&size| Ok::<_, Status>(Bytes::from(vec![0; size]))).collect();
        Body::from_stream(tokio_stream::iter(pieces))
    }

    /// How much of a body comes, and what ends it.
    async fn read(stream: &mut BodyDataStream) -> (usize, Option<Code>) {
        let mut size = 0;
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => size += piece.len(),
                Err(error) => return (size, Some(Status::from_error(error.into()).code())),
            }
        }
        (size, None)
    }

    #[tokio::test]
    async fn bytes_are_bounded_over_all_bodies_until_they_are_dropped() {
        let arrivals = Arrivals::of(100);
        let mut first = arrivals.bounded(pieces(&[30, 30])).into_data_stream();
        assert_eq!(read(&mut first).await, (60, None));
        let mut second = arrivals.bounded(pieces(&[40, 1])).into_data_stream();
        assert_eq!(read(&mut second).await, (40, Some(Code::ResourceExhausted)));
        drop((first, second));
        assert_eq!(read(&mut arrivals.bounded(pieces(&[100])).into_data_stream()).await, (100, None));
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_too_slowly_is_cut_off() {
        let slow = tokio_stream::iter([10, 10]).then(async |size| {
            tokio::time::sleep(TIME_MAX * 2 / 3).await;
            Ok::<_, Status>(Bytes::from(vec![0; size]))
        });
        let mut body = Arrivals::new().bounded(Body::from_stream(slow)).into_data_stream();
        assert_eq!(read(&mut body).await, (10, Some(Code::DeadlineExceeded)));
    }
}
