//! Compressed messages, as the gRPC specification has them: requests in whatever encoding of ours their callers chose, answers in the one
//! that they asked for. Calls without compression pay for two looks at their headers.
//!
//! The gRPC library could do it too, but would hold what comes out of a request without a reservation.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Frame;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use super::REQUEST_BYTES_MAX;
use crate::domain::{Error, ErrorKind, Result};
use crate::memory::{Answer, Arrival};
use crate::net::compression::{Encoding, Refused};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const IDENTITY: &str = "identity";
/// All that a caller may choose from.
const TAKEN: HeaderValue = HeaderValue::from_static("gzip,zstd,identity");

/// In front of each message: a flag, and its length in four bytes.
const HEAD_BYTES: usize = 5;
/// An answer below this is not worth the time.
const ANSWER_BYTES_MIN: usize = 1024;
/// A message that came out is copied by the gRPC library.
const COPIES: usize = 2;

/// What one call has compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    request: Option<Encoding>,
    answer: Option<Encoding>,
    /// Whether the caller speaks of compression at all.
    said: bool,
}

/// What the caller wants.
///
/// # Errors
/// `EncodingUnknown` when its request is in no encoding of ours.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Wanted> {
    let encodings = headers.get(&ENCODING);
    let accepted = headers.contains_key(&ACCEPT_ENCODING);
    if encodings.is_none() && !accepted {
        return Ok(Wanted { request: None, answer: None, said: false });
    }
    let request = encodings.map_or(Ok(None), encoding_of)?;
    Ok(Wanted { request, answer: answer_encoding(headers, request), said: true })
}

fn encoding_of(value: &HeaderValue) -> Result<Option<Encoding>> {
    match value.as_bytes() {
        b"" | b"identity" => Ok(None),
        name => known(name).map(Some).ok_or_else(|| {
            let shown = String::from_utf8_lossy(name);
            Error::field(ErrorKind::EncodingUnknown, ENCODING.as_str(), shown, "gzip, zstd or identity")
        }),
    }
}

fn known(name: &[u8]) -> Option<Encoding> {
    [Encoding::Gzip, Encoding::Zstd].into_iter().find(|encoding| encoding.name().as_bytes() == name)
}

/// That of the request if the caller takes it, else the first of ours that it takes. Libraries tell what they could read in every call;
/// those that put `identity` first have not been asked by anybody to have answers compressed.
fn answer_encoding(headers: &HeaderMap, request: Option<Encoding>) -> Option<Encoding> {
    let values = headers.get_all(&ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut names = values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).peekable();
    if request.is_none() && names.peek() == Some(&IDENTITY) {
        return None;
    }
    let mut taken = names.filter_map(|name| known(name.as_bytes()));
    match request {
        Some(_) => {
            let taken: Vec<_> = taken.take(8).collect();
            request.filter(|encoding| taken.contains(encoding)).or_else(|| taken.first().copied())
        }
        None => taken.next(),
    }
}

/// The answer to an encoding that is not taken.
pub(super) fn refusal(error: Error) -> Response {
    let mut response: Response = Status::from(error).into_http();
    response.headers_mut().insert(ACCEPT_ENCODING, TAKEN);
    response
}

impl Wanted {
    /// The request without compression.
    ///
    /// # Errors
    /// When a message is larger than it may be, or malformed, or there is no memory for it.
    pub(super) async fn plain(self, request: Request, arrival: &Arrival) -> Result<Request, Status> {
        let Some(encoding) = self.request else { return Ok(request) };
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(&ENCODING);
        let arrived = whole(body).await?;
        let messages = plain_messages(arrived, encoding, arrival)?;
        Ok(Request::from_parts(parts, Body::from_stream(tokio_stream::iter(messages.into_iter().map(Ok::<_, Status>)))))
    }

    /// The answer as the caller wants it.
    pub(super) fn answer(self, mut response: Response) -> Response {
        if !self.said {
            return response;
        }
        response.headers_mut().insert(ACCEPT_ENCODING, TAKEN);
        let Some(encoding) = self.answer.filter(|_| !response.headers().contains_key("grpc-status")) else {
            return response;
        };
        response.headers_mut().insert(ENCODING, HeaderValue::from_static(encoding.name()));
        let memory = response.extensions().get::<Answer>().cloned();
        response.map(|body| Body::new(Compressed { body, encoding, memory }))
    }
}

/// All of a body. Of a compressed one no more is looked at than of a plain one.
async fn whole(body: Body) -> Result<Bytes, Status> {
    let mut pieces = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Status::from_error(error.into()))?;
        if whole.len() + piece.len() > HEAD_BYTES + REQUEST_BYTES_MAX {
            return Err(too_large("compressed message"));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The messages of a body, each behind a head that says that it is plain.
fn plain_messages(mut body: Bytes, encoding: Encoding, arrival: &Arrival) -> Result<Vec<Bytes>, Status> {
    let mut messages = Vec::new();
    while body.len() >= HEAD_BYTES {
        let length = (&body[1..HEAD_BYTES]).get_u32() as usize;
        if body[0] != 1 || body.len() - HEAD_BYTES < length || messages.len() >= 2 {
            // Plain, or cut off, or more than a call has: that is for the library to judge.
            break;
        }
        body.advance(HEAD_BYTES);
        let compressed = body.split_to(length);
        let message = encoding.decompress(&compressed, REQUEST_BYTES_MAX, arrival, COPIES);
        let message = message.map_err(|refused| not_plain(refused, encoding))?;
        let mut head = BytesMut::zeroed(HEAD_BYTES);
        // The limit has 21 bits.
        head[1..].copy_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        messages.extend([head.freeze(), message]);
    }
    messages.push(body);
    Ok(messages)
}

fn too_large(what: &str) -> Status {
    let message = format!("request too large: its {what} is larger than the limit of {REQUEST_BYTES_MAX} bytes");
    Error::new(ErrorKind::MessageTooLarge, message).into()
}

fn not_plain(refused: Refused, encoding: Encoding) -> Status {
    match refused {
        Refused::TooLarge => too_large("message, once decompressed,"),
        Refused::NoMemory(error) => error.into(),
        Refused::Malformed(error) => {
            let message = format!("request cannot be decoded: not {}: {error}", encoding.name());
            Error::new(ErrorKind::RequestFormat, message).into()
        }
    }
}

/// The body of an answer: a message in each piece, and the trailers.
struct Compressed {
    body: Body,
    encoding: Encoding,
    memory: Option<Answer>,
}

impl Compressed {
    /// The same message compressed, if it is one, and that makes it smaller, and there is memory for it.
    fn compressed(&self, piece: Bytes) -> Bytes {
        let whole = piece.len() >= ANSWER_BYTES_MIN
            && piece[0] == 0
            && (&piece[1..HEAD_BYTES]).get_u32() as usize == piece.len() - HEAD_BYTES;
        if !whole || self.memory.as_ref().is_some_and(|memory| memory.grow(piece.len()).is_err()) {
            return piece;
        }
        match self.encoding.compress(&piece[HEAD_BYTES..], vec![0; HEAD_BYTES]) {
            Ok(mut compressed) if compressed.len() < piece.len() => {
                let length = u32::try_from(compressed.len() - HEAD_BYTES).unwrap_or_default();
                compressed[0] = 1;
                compressed[1..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
                compressed.into()
            }
            _ => piece,
        }
    }
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(|piece| self.compressed(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// What the library says of a message with its flag set in a call without an encoding.
pub(super) fn is_flag_without_encoding(status: &Status) -> bool {
    status.code() == Code::Internal && status.message().contains("compressed-flag but no grpc-encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_of(encoding: Option<&str>, accepted: &[&str]) -> Result<(Option<Encoding>, Option<Encoding>)> {
        let mut headers = HeaderMap::new();
        headers.extend(encoding.map(|value| (ENCODING, value.parse().unwrap())));
        for value in accepted {
            headers.append(ACCEPT_ENCODING, value.parse().unwrap());
        }
        wanted(&headers).map(|wanted| (wanted.request, wanted.answer))
    }

    #[test]
    fn answers_are_compressed_for_those_who_ask() {
        let (gzip, zstd) = (Some(Encoding::Gzip), Some(Encoding::Zstd));
        let cases: [(Option<&str>, &[&str], Option<Encoding>); 12] = [
            (None, &[], None),
            (None, &["gzip"], gzip),
            (None, &["zstd"], zstd),
            (None, &["deflate, zstd ,gzip"], zstd),
            (None, &["snappy", "gzip"], gzip),
            (None, &["identity, deflate, gzip"], None),
            (None, &["", "gzip,identity"], gzip),
            (None, &["snappy"], None),
            (Some("gzip"), &["identity,deflate,gzip"], gzip),
            (Some("gzip"), &["zstd,gzip"], gzip),
            (Some("gzip"), &["zstd"], zstd),
            (Some("gzip"), &[], None),
        ];
        for (encoding, accepted, expected) in cases {
            let (request, answer) = wanted_of(encoding, accepted).unwrap();
            assert_eq!(answer, expected, "{encoding:?} {accepted:?}");
            assert_eq!(request, encoding.and(gzip));
        }
        assert_eq!(wanted_of(Some("identity"), &[]).unwrap(), (None, None));
    }

    #[test]
    fn an_encoding_that_is_not_taken_is_named() {
        let error = wanted_of(Some("snappy"), &["gzip"]).unwrap_err();
        assert_eq!(error.message(), "grpc-encoding: 'snappy' is not gzip, zstd or identity");
        let response = refusal(error);
        assert_eq!(response.headers()["grpc-status"], "12");
        assert_eq!(response.headers()[ACCEPT_ENCODING], "gzip,zstd,identity");
        assert!(wanted_of(Some("GZIP"), &[]).is_err() && wanted_of(Some("gzip, gzip"), &[]).is_err());
    }
}
