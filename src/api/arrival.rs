//! Requests on their way in: bounded in bytes, each caller's together, and each in time.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use tokio::time::{Sleep, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

use super::status;
use crate::memory::Arrival;
use crate::observe::metrics::{Metrics, Refusal};

/// Of a piece that has come this much more is held: it is copied into a buffer that is a little larger than the request.
const COPIED_PART: usize = 4;
/// What gRPC puts before a message: a flag and the length. The library allocates the whole message when it has read them, and
/// with the first bytes of the message behind them it would move those to a buffer twice as large.
const PREFIX_BYTES: usize = 5;

/// The same body within the bounds. Whoever has `arrival` decides how long the bytes are held.
pub(super) fn bounded(body: Body, arrival: Arc<Arrival>, metrics: Metrics) -> Body {
    Body::from_stream(Arriving {
        body: body.into_data_stream(),
        arrival,
        arrived: 0,
        behind_prefix: Bytes::new(),
        metrics,
        limit: None,
    })
}

/// A body in pieces.
struct Arriving {
    body: BodyDataStream,
    arrival: Arc<Arrival>,
    arrived: usize,
    /// The rest of the first piece, whose first bytes are handed over alone.
    behind_prefix: Bytes,
    metrics: Metrics,
    /// Most requests are there at once, and need no timer.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    fn take(&mut self, mut piece: Bytes) -> Result<Bytes, Status> {
        let is_first = self.arrived == 0;
        self.arrived += piece.len();
        self.arrival.grow(piece.len() + piece.len() / COPIED_PART).map_err(|error| {
            self.metrics.calls().refused(Refusal::Memory);
            Status::from(error)
        })?;
        if is_first && piece.len() > PREFIX_BYTES {
            self.behind_prefix = piece.split_off(PREFIX_BYTES);
        }
        Ok(piece)
    }

    /// Whether it is too slow by now.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.arrival.deadline(self.arrived);
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if limit.deadline() != deadline {
            limit.as_mut().reset(deadline);
        }
        limit.as_mut().poll(cx)
    }
}

impl Stream for Arriving {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.behind_prefix.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.behind_prefix))));
        }
        match Pin::new(&mut self.body).poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => Poll::Ready(Some(self.take(piece))),
            // Its caller, or its caller's connection, is gone.
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(status::given_up()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_late(cx).map(|()| Some(Err(status::deadline_exceeded()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;
    use crate::memory::{Memory, Owner, Use};

    fn memory() -> Memory {
        Memory::of_gateway(1 << 27).unwrap()
    }

    fn arriving(memory: &Memory, body: Body) -> BodyDataStream {
        let arrival = Arrival::new(memory, Some(Owner::principal("caller")));
        bounded(body, Arc::new(arrival), Metrics::default()).into_data_stream()
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
    async fn bytes_are_bounded_over_all_bodies_of_a_caller_until_they_are_dropped() {
        let memory = memory();
        let whole = || Body::from(vec![0; 1 << 20]);
        let (mut held, mut ended) = (Vec::new(), None);
        while ended.is_none() {
            let mut body = arriving(&memory, whole());
            ended = read(&mut body).await.1;
            held.push(body);
        }
        assert_eq!(ended, Some(Code::ResourceExhausted));
        let share = memory.part(Use::LargeRequests).max() / 5 * 4;
        assert!((share >> 20) * 4 / 5 <= held.len() && held.len() <= share >> 20, "{}", held.len());
        drop(held);
        assert_eq!(read(&mut arriving(&memory, whole())).await, (1 << 20, None));
    }

    /// How much comes of a body that sends so many bytes each second.
    async fn at_rate(bytes_per_second: usize, size: usize) -> (usize, Option<Code>) {
        let slow = tokio_stream::iter(0..size / bytes_per_second).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, Status>(Bytes::from(vec![0; bytes_per_second]))
        });
        read(&mut arriving(&memory(), Body::from_stream(slow))).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_too_slowly_is_cut_off() {
        let (size, ended) = at_rate(1, 100).await;
        assert!((9..=10).contains(&size) && ended == Some(Code::DeadlineExceeded), "{size}");
        let (size, ended) = at_rate(4_000, 400_000).await;
        assert!(size < 60_000 && ended == Some(Code::DeadlineExceeded), "{size}");
        assert_eq!(at_rate(20_000, 1_000_000).await, (1_000_000, None));
    }
}
