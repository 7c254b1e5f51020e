//! Request bodies, read with a bound on size and time.

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use tokio::time::timeout_at;
use tokio_stream::StreamExt as _;

use crate::domain::{Error, ErrorKind, Result};
use crate::memory::Arrival;

/// The largest body taken: a full batch of 512 KB with room for JSON around it.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How much of a body that is too large is read and dropped, so that its sender gets the answer and not a reset.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A buffer for a body has this size at first, if the body may be as large.
const BUFFER_BYTES_MIN: usize = 16 * 1024;

/// The two families of calls; each has codes of its own for a bad body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Plane {
    /// Queues, groups, tags.
    Control,
    /// Messages and acknowledgements.
    Data,
}

impl Plane {
    /// A body that is no JSON at all.
    pub(super) fn not_json(self) -> ErrorKind {
        match self {
            Self::Control => ErrorKind::ControlBodyInvalid,
            Self::Data => ErrorKind::DataBodyInvalid,
        }
    }

    fn too_large(self) -> ErrorKind {
        match self {
            Self::Control => ErrorKind::ControlBodyInvalid,
            Self::Data => ErrorKind::MessageTooLarge,
        }
    }

    /// A value of the wrong JSON type, or missing, where the field has no code of its own.
    pub(super) fn bad_field(self) -> ErrorKind {
        match self {
            Self::Control => ErrorKind::ControlBodyInvalid,
            Self::Data => ErrorKind::MessageFields,
        }
    }
}

/// Reads a body of at most [`BODY_BYTES_MAX`] bytes into memory that is reserved for it.
pub(super) async fn read(body: Body, plane: Plane, arrival: &Arrival) -> Result<Bytes> {
    let mut arriving = Arriving::new(plane, arrival, &body);
    let mut stream = body.into_data_stream();
    loop {
        let next = timeout_at(arrival.deadline(arriving.arrived), stream.next()).await;
        let Some(piece) = next.map_err(|_elapsed| arriving.late())? else { break };
        arriving.take(&piece.map_err(|_| Error::new(plane.not_json(), "body: ended before it was complete"))?)?;
        if arriving.arrived > DRAINED_BYTES_MAX {
            break;
        }
    }
    arriving.whole()
}

/// A body in pieces, put together. The pieces are copied: a small one may be a slice of a large buffer of the connection.
struct Arriving<'a> {
    plane: Plane,
    arrival: &'a Arrival,
    buffer: BytesMut,
    arrived: usize,
    /// What the body says of its size, within the limit.
    expected: usize,
}

impl<'a> Arriving<'a> {
    fn new(plane: Plane, arrival: &'a Arrival, body: &Body) -> Self {
        let expected = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let expected = expected.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
        Self { plane, arrival, buffer: BytesMut::new(), arrived: 0, expected }
    }

    fn take(&mut self, piece: &Bytes) -> Result<()> {
        self.arrived += piece.len();
        if self.arrived > BODY_BYTES_MAX {
            self.buffer = BytesMut::new();
            return Ok(());
        }
        if self.buffer.capacity() < self.arrived {
            self.enlarge()?;
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// Twice the capacity is reserved: what is read of the body is written into the request to the service.
    fn enlarge(&mut self) -> Result<()> {
        let wanted = (2 * self.buffer.capacity()).max(BUFFER_BYTES_MIN).min(self.expected).max(self.arrived);
        self.arrival.grow(2 * (wanted - self.buffer.capacity()))?;
        self.buffer.reserve(wanted - self.buffer.len());
        Ok(())
    }

    fn late(&self) -> Error {
        Error::new(self.plane.not_json(), format!("body: not complete after {}", Arrival::least_rate()))
    }

    fn whole(self) -> Result<Bytes> {
        if self.arrived > BODY_BYTES_MAX {
            let message = format!("body: size is larger than the limit of {BODY_BYTES_MAX} bytes");
            return Err(Error::new(self.plane.too_large(), message));
        }
        Ok(self.buffer.freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::memory::{Memory, Owner, Use};

    fn arrivals() -> (Memory, impl Fn(&Memory, u8) -> Arrival) {
        let peer = |memory: &Memory, n: u8| Arrival::new(memory, Some(Owner::peer([10, 0, 0, n].into())));
        (Memory::of_gateway(1 << 27).unwrap(), peer)
    }

    #[tokio::test]
    async fn bodies_hold_what_their_buffers_do_until_their_calls_end() {
        let (memory, peer) = arrivals();
        let mut held = Vec::new();
        let refused = loop {
            let arrival = peer(&memory, 1);
            let pieces: Vec<_> = (0..1024).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1024]))).collect();
            match read(Body::from_stream(tokio_stream::iter(pieces)), Plane::Data, &arrival).await {
                Ok(body) => held.push((body, arrival)),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        let reserved = memory.part(Use::LargeRequests).reserved() + memory.part(Use::SmallRequests).reserved();
        assert!(reserved > held.len() * 2_000_000, "{reserved} for {}", held.len());
        // Another caller has room, for a large one too.
        read(Body::from(vec![b' '; 1 << 20]), Plane::Data, &peer(&memory, 2)).await.unwrap();
        drop(held);
        assert_eq!(memory.part(Use::LargeRequests).reserved(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up() {
        let (memory, peer) = arrivals();
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
        sender.send(Ok(Bytes::from_static(b"{"))).await.unwrap();
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let begun = tokio::time::Instant::now();
        let late = read(body, Plane::Data, &peer(&memory, 1)).await.unwrap_err();
        assert_eq!(late.message(), "body: not complete after 10 s without the least rate of 16 KiB/s");
        assert_eq!(begun.elapsed().as_secs(), Duration::from_secs(10).as_secs());
    }

    #[tokio::test]
    async fn a_small_piece_keeps_no_large_buffer() {
        let (memory, peer) = arrivals();
        let large = Bytes::from(vec![b'1'; 1 << 20]);
        let body = read(Body::from(large.slice(..2)), Plane::Data, &peer(&memory, 1)).await.unwrap();
        assert!(large.is_unique() && body == "11");
    }
}
