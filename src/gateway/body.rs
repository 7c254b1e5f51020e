//! Request bodies, read with a bound on size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use tokio_stream::StreamExt as _;

use crate::domain::{Error, ErrorKind, Result};

/// The largest body taken: a full batch of 512 KB with room for JSON around it.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How much of a body that is too large is read and dropped, so that its sender gets the answer and not a reset.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    tokio::time::timeout(ARRIVAL_MAX, collect(body, plane)).await.map_err(late)?
}

async fn collect(body: Body, plane: Plane) -> Result<Bytes> {
    let mut stream = body.into_data_stream();
    // A body in one piece is not copied.
    let (mut first, mut rest, mut size) = (Bytes::new(), BytesMut::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Error::new(plane.not_json(), "body: ended before it was complete"))?;
        size += chunk.len();
        if size > DRAINED_BYTES_MAX {
            break;
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
