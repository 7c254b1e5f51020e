//! What the headers of a request say of its body: how it is compressed, and that it need not be sent.

use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::body::{BODY_BYTES_MAX, Plane};
use crate::domain::{Error, ErrorKind, Result};
use crate::memory::Arrival;
use crate::net::compression::{Encoding, Refused};

/// What comes out is written into the request to the service, as a body that was not compressed is.
const COPIES: usize = 2;
/// What a body may be compressed with, as an answer names it.
pub(super) const TAKEN: HeaderValue = HeaderValue::from_static("gzip, identity");

/// A body that is worth reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced(Option<Encoding>);

impl Announced {
    /// What the headers say.
    ///
    /// # Errors
    /// `EncodingUnknown` when the body is compressed with anything but gzip, and `BodyTooLarge` when it is too large and its sender asks
    /// before it sends it. One who does not ask is answered after the body, for it would not read before.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self> {
        let asks = headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let length = headers.get(CONTENT_LENGTH).filter(|_| asks).and_then(|length| length.to_str().ok());
        if let Some(length) = length.and_then(|length| length.parse::<u64>().ok())
            && length > BODY_BYTES_MAX as u64
        {
            let message = format!("Content-Length: {length} bytes is larger than the limit of {BODY_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::BodyTooLarge, message));
        }
        encoding(headers).map(Self)
    }

    /// The body as it was before it was compressed.
    pub(super) fn plain(self, body: Bytes, plane: Plane, arrival: &Arrival) -> Result<Bytes> {
        let Some(encoding) = self.0 else { return Ok(body) };
        encoding.decompress(&body, BODY_BYTES_MAX, arrival, COPIES).map_err(|refused| match refused {
            Refused::TooLarge => {
                let message =
                    format!("body: size once decompressed is larger than the limit of {BODY_BYTES_MAX} bytes");
                Error::new(ErrorKind::BodyTooLarge, message)
            }
            Refused::Malformed(error) => {
                Error::new(plane.not_json(), format!("body: not {}: {error}", encoding.name()))
            }
            Refused::NoMemory(error) => error,
        })
    }
}

/// That of the body; more than one on top of the other is not taken.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            if is(b"") || is(b"identity") {
                continue;
            }
            if !(is(b"gzip") || is(b"x-gzip")) || found.replace(Encoding::Gzip).is_some() {
                let shown = String::from_utf8_lossy(value.as_bytes());
                return Err(Error::field(ErrorKind::EncodingUnknown, "Content-Encoding", shown, "gzip or identity"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Result<Announced> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        map.extend(headers.map(|(name, value): (http::HeaderName, HeaderValue)| (name, value)));
        Announced::of(&map)
    }

    #[test]
    fn encodings_are_read_as_http_writes_them() {
        for (value, expected) in [
            ("gzip", Some(Encoding::Gzip)),
            ("GZip", Some(Encoding::Gzip)),
            ("x-gzip", Some(Encoding::Gzip)),
            ("identity, gzip", Some(Encoding::Gzip)),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(of(&[("content-encoding", value)]).unwrap().0, expected, "{value}");
        }
        for value in ["br", "zstd", "deflate", "gzip, gzip", "gzip;q=1", "gzip br"] {
            let error = of(&[("content-encoding", value)]).unwrap_err();
            assert_eq!(error.message(), format!("Content-Encoding: '{value}' is not gzip or identity"));
        }
    }

    #[test]
    fn only_who_asks_is_refused_before_the_body() {
        for (expect, length, refused) in [
            (Some("100-continue"), "1048577", true),
            (Some("100-Continue"), "99999999999", true),
            (Some("100-continue"), "1048576", false),
            (Some("other"), "1048577", false),
            (None, "1048577", false),
        ] {
            let expect = expect.map(|expect| ("expect", expect));
            let headers: Vec<_> = expect.into_iter().chain([("content-length", length)]).collect();
            assert_eq!(of(&headers).is_err(), refused, "{headers:?}");
        }
    }
}
