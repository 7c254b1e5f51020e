//! Request bodies: read with a bound, then taken apart without a tree. Values stay the sender's own text until a handler
//! asks for one, so that the error can name the field.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
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
    fn not_json(self) -> ErrorKind {
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

/// A JSON object whose values are still text. Of a repeated key the last value counts.
#[derive(Debug)]
pub struct Object<'a>(Vec<(Cow<'a, [u8]>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The body as an object.
    pub fn parse(body: &'a [u8], plane: Plane) -> Result<Self> {
        let not_json = |reason: &dyn fmt::Display| Error::new(plane.not_json(), format!("body: not JSON: {reason}"));
        let text = std::str::from_utf8(body).map_err(|error| not_json(&error))?;
        serde_json::from_str(text).map_err(|_| match serde_json::from_str::<&RawValue>(text) {
            Err(syntax) => not_json(&syntax),
            Ok(value) => Error::field(plane.bad_field(), "body", shown(value), "a JSON object"),
        })
    }

    /// The text of a value, `null` included. The key is the last part of the dotted path.
    pub fn raw(&self, path: &str) -> Option<&'a RawValue> {
        let key = path.rsplit('.').next().unwrap_or(path).as_bytes();
        self.0.iter().rev().find(|(name, _)| **name == *key).map(|(_, value)| *value)
    }

    /// A value of a type, `None` when it is absent or `null`; `kind` and `allowed` speak of any other type.
    pub fn read<T: Deserialize<'a>>(&self, path: &str, kind: ErrorKind, allowed: &str) -> Result<Option<T>> {
        let Some(raw) = self.raw(path) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| Error::field(kind, path, shown(raw), allowed))
    }

    /// A value of a type that must be there.
    pub fn require<T: Deserialize<'a>>(&self, path: &str, kind: ErrorKind, allowed: &str) -> Result<T> {
        self.read(path, kind, allowed)?.ok_or_else(|| Error::missing(kind, path, allowed))
    }
}

/// A value as an error may show it: nothing of what an array or an object holds.
pub fn shown(value: &RawValue) -> &str {
    match value.get().as_bytes().first() {
        Some(b'{') => "{...}",
        Some(b'[') => "[...]",
        _ => value.get(),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((Key(name), value)) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(Object(fields))
    }
}

/// A key as bytes: one that is no valid text (a lone surrogate) is just an unknown key.
struct Key<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_bytes<E>(self, key: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}
