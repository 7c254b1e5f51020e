//! Request bodies, read with a bound on size and time.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use tokio_stream::StreamExt as _;

use crate::domain::{Error, ErrorKind, Result};
use crate::room::Room;

/// The largest body taken: a full batch of 512 KB with room for JSON around it.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How much of a body that is too large is read and dropped, so that its sender gets the answer and not a reset.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of all bodies that are not whole yet; whoever needs more is refused.
const ARRIVING_BYTES_MAX: usize = 256 * 1024 * 1024;
static ARRIVING: LazyLock<Room> = LazyLock::new(|| Room::new(ARRIVING_BYTES_MAX, "bodies"));

/// How long a body may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// The two families of calls; each has codes of its own for a bad body.
#[derive(Debug, Clone, Copy)]
pub enum Plane {
    /// Queues, groups, tags.
    Control,
    /// Messages and acknowledgements.
    Data,
}

impl Plane {
    /// A body that is no JSON at all.
    pub fn not_json(self) -> ErrorKind {
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
    pub fn bad_field(self) -> ErrorKind {
        match self {
            Self::Control => ErrorKind::ControlBodyInvalid,
            Self::Data => ErrorKind::MessageFields,
        }
    }
}

/// Reads a body of at most [`BODY_BYTES_MAX`] bytes.
pub async fn read(body: Body, plane: Plane) -> Result<Bytes> {
    let late = |_| Error::new(plane.not_json(), format!("body: not complete within {} s", ARRIVAL_MAX.as_secs()));
    tokio::time::timeout(ARRIVAL_MAX, collect(body, plane, &ARRIVING)).await.map_err(late)?
}

async fn collect(body: Body, plane: Plane, room: &Room) -> Result<Bytes> {
    let mut stream = body.into_data_stream();
    let mut share = room.share();
    // A body in one piece is not copied.
    let (mut first, mut rest, mut size) = (Bytes::new(), BytesMut::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Error::new(plane.not_json(), "body: ended before it was complete"))?;
        size += chunk.len();
        if size > DRAINED_BYTES_MAX {
            break;
        }
        if size <= BODY_BYTES_MAX {
            share.grow(chunk.len())?;
        }
        if first.is_empty() {
            first = chunk;
        } else if size <= BODY_BYTES_MAX {
            rest.extend_from_slice(&chunk);
        }
    }
    if size > BODY_BYTES_MAX {
        let message = format!("body: size is larger than the limit of {BODY_BYTES_MAX} bytes");
        return Err(Error::new(plane.too_large(), message));
    }
    Ok(if rest.is_empty() { first } else { [&first[..], &rest].concat().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_bodies_together_are_bounded_while_they_arrive() {
        let room = Room::new(100, "bodies");
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let pieces = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let slow = Body::from_stream(pieces.map(|size: usize| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; size]))));
        let send = async {
            for size in [30, 30] {
                sender.send(size).await.unwrap();
                tokio::task::yield_now().await;
            }
            // The second piece may still be on its way.
            while room.left() > 40 {
                tokio::task::yield_now().await;
            }
            let other = collect(Body::from(vec![b'x'; 41]), Plane::Data, &room).await.unwrap_err();
            assert_eq!(other.kind(), ErrorKind::Overloaded);
            assert_eq!(collect(Body::from(vec![b'x'; 40]), Plane::Data, &room).await.unwrap().len(), 40);
            drop(sender);
        };
        let (whole, ()) = tokio::join!(collect(slow, Plane::Data, &room), send);
        assert_eq!((whole.unwrap().len(), room.left()), (60, 100));
    }
}
