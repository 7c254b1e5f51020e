//! Errors in the documented shape: `{"error_code":"DMS.xxxxxxxx","error_msg":"..."}`.
//!
//! Code and HTTP status come from the table in [`crate::domain::error`], found by `ErrorInfo.reason`: DMS statuses follow
//! no general gRPC-to-HTTP rule.

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};

use super::announced;
use crate::domain::{Error, ErrorKind};

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct Failure {
    error: Error,
    unanswered: Option<Unanswered>,
}

/// What the transport said where no service did, for the log: an extension of the answer.
#[derive(Debug, Clone)]
pub(super) struct Unanswered {
    /// The status that the transport made up.
    pub code: Code,
    /// Its words.
    pub words: String,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    error_code: String,
    error_msg: &'a str,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, unanswered: None }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let answer = dms_client::Error::from(status);
        let Some(reason) = answer.reason() else { return without_details(answer.status()) };
        let kind = ErrorKind::from_reason(reason).unwrap_or(ErrorKind::InternalOther);
        let error = Error::new(kind, in_rest_words(kind, answer.message()));
        match answer.retry_after() {
            Some(delay) => error.retry_after(delay).into(),
            None => error.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { error, unanswered } = self;
        let row = error.kind().row();
        let body = FailureBody { error_code: format!("DMS.{}", row.code), error_msg: error.message() };
        let status = StatusCode::from_u16(row.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if error.kind() == ErrorKind::EncodingUnknown {
            response.headers_mut().insert(header::ACCEPT_ENCODING, announced::TAKEN);
        }
        if let Some(delay) = error.retry_hint() {
            // Whole seconds, rounded up: "0" would invite a storm.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(unanswered) = unanswered {
            response.extensions_mut().insert(unanswered);
        }
        response
    }
}

/// A status that no service wrote: the transport did, whose words are for the log.
fn without_details(status: &Status) -> Failure {
    let kind = match status.code() {
        // The request is above the service's decoding limit.
        Code::OutOfRange => ErrorKind::MessageTooLarge,
        _ => ErrorKind::UpstreamUnavailable,
    };
    let unanswered = Unanswered { code: status.code(), words: status.message().to_owned() };
    Failure { error: Error::new(kind, kind.row().meaning), unanswered: Some(unanswered) }
}

/// A message that begins with `{field}: ` begins with the field's REST name instead.
pub(super) fn in_rest_words(kind: ErrorKind, message: &str) -> String {
    match message.split_once(": ") {
        Some((field, rest)) => format!("{}: {rest}", rest_name(kind, field)),
        None => message.to_owned(),
    }
}

/// What REST calls a field of the gRPC API, such as `messages[2].delay`; most have one name in both.
fn rest_name(kind: ErrorKind, field: &str) -> String {
    let (head, tail) = field.split_at(field.find(['[', '.']).unwrap_or(field.len()));
    let head = match head {
        "max_messages" => "max_msgs",
        "wait" => "time_wait",
        "lease" => "ack_wait",
        // Resource tags are `tags` in both APIs; only the labels to consume by are not.
        "tags" if matches!(kind, ErrorKind::LabelInvalid | ErrorKind::ConsumeFailed) => "tag",
        "tag_match" => "tag_type",
        "entries" => "message",
        "names" => "groups",
        "resource_name" => "matches.value",
        same => same,
    };
    let more = match (head, tail) {
        // A group has nothing but a name in gRPC.
        ("groups", index) if !index.is_empty() => ".name",
        _ if tail.ends_with(".delay") => "Time",
        _ => "",
    };
    format!("{head}{tail}{more}")
}

/// The answer to a path that is not in the table.
pub(super) fn path_not_found(path: &str) -> Error {
    Error::field(ErrorKind::PathNotFound, "url", path, "a path of this API")
}

/// Fallback for unknown paths.
pub(super) async fn no_such_path(request: Request) -> Failure {
    path_not_found(request.uri().path()).into()
}

/// Fallback for unknown methods; axum adds the `Allow` header.
pub(super) async fn method_not_allowed() -> Failure {
    let message = "method: not allowed on this URL; the Allow header names those that are";
    Error::new(ErrorKind::MethodNotAllowed, message).into()
}
