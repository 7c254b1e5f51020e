//! Domain errors as `tonic::Status`: the only place that builds one.
//!
//! Every status carries `google.rpc.ErrorInfo`; `BadRequest` names the field to blame, `RetryInfo` says when to try again,
//! `QuotaFailure` which limit is used up.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::compression;
use crate::domain::error::{Error, ErrorKind, RpcCode};

/// `google.rpc.ErrorInfo.domain` of every error.
pub(super) const ERROR_DOMAIN: &str = "dms";

const HIDDEN: &str = "internal error: the log of the service has more under the x-request-id of this answer";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = rpc_code(error.kind().row().rpc);
        Status::with_error_details(code, shown(&error, code), details(&error))
    }
}

/// The caller's deadline passed before there was an answer.
pub(super) fn deadline_exceeded() -> Status {
    let error = Error::new(ErrorKind::Unavailable, "the deadline of the call passed before there was an answer");
    let details = details(&error);
    Status::with_error_details(Code::DeadlineExceeded, error.message(), details)
}

/// A code as the gRPC documentation writes it.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A call whose caller has gone away before its request was complete.
pub(super) fn given_up() -> Status {
    let text = "given up by its caller";
    Status::with_error_details(Code::Cancelled, text, details(&Error::new(ErrorKind::RequestFormat, text)))
}

/// A status that the gRPC library made itself, so without details, as one of ours.
pub(super) fn from_library(status: &Status) -> Status {
    let text = status.message();
    match status.code() {
        // The specification wants this code, and these words are for the caller.
        code if compression::is_flag_without_encoding(status) => {
            let text = "request cannot be decoded: its Compressed-Flag is set, and grpc-encoding names no compression";
            Status::with_error_details(code, text, details(&Error::new(ErrorKind::RequestFormat, text)))
        }
        Code::Unimplemented => Error::new(ErrorKind::PathNotFound, "no such gRPC method").into(),
        Code::OutOfRange => Error::new(ErrorKind::MessageTooLarge, format!("request too large: {text}")).into(),
        // Its word for a request that cannot be decoded: not protobuf, not UTF-8, compressed, cut off.
        Code::Internal => Error::new(ErrorKind::RequestFormat, format!("request cannot be decoded: {text}")).into(),
        code => {
            let details = details(&Error::new(ErrorKind::RequestFormat, text));
            Status::with_error_details(code, text, details)
        }
    }
}

/// What the caller may read; what it may not is logged here, once, inside the span of the call.
fn shown(error: &Error, code: Code) -> String {
    let dms_code = error.kind().row().code;
    match code {
        Code::Internal | Code::DataLoss => {
            tracing::error!(dms_code, error = error.message(), "internal error");
            HIDDEN.to_owned()
        }
        _ => error.message().to_owned(),
    }
}

fn details(error: &Error) -> ErrorDetails {
    let row = error.kind().row();
    let mut metadata = HashMap::from([
        ("dms_code".to_owned(), format!("DMS.{}", row.code)),
        ("http_status".to_owned(), row.http.to_string()),
    ]);
    metadata.extend(error.field_name().map(|field| ("field".to_owned(), field.to_owned())));
    let mut details = ErrorDetails::with_error_info(row.reason, ERROR_DOMAIN, metadata);
    if let Some(field) = error.field_name() {
        details.add_bad_request_violation(field, error.message());
    }
    if let Some(after) = error.retry_hint() {
        details.set_retry_info(Some(after));
    }
    if row.rpc == RpcCode::ResourceExhausted && error.kind() != ErrorKind::Overloaded {
        details.add_quota_failure_violation(row.meaning, error.message());
    }
    details
}

const fn rpc_code(code: RpcCode) -> Code {
    match code {
        RpcCode::InvalidArgument => Code::InvalidArgument,
        RpcCode::FailedPrecondition => Code::FailedPrecondition,
        RpcCode::AlreadyExists => Code::AlreadyExists,
        RpcCode::NotFound => Code::NotFound,
        RpcCode::ResourceExhausted => Code::ResourceExhausted,
        RpcCode::Unauthenticated => Code::Unauthenticated,
        RpcCode::PermissionDenied => Code::PermissionDenied,
        RpcCode::Unimplemented => Code::Unimplemented,
        RpcCode::Unavailable => Code::Unavailable,
        RpcCode::DataLoss => Code::DataLoss,
        RpcCode::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_carries_its_row() {
        for &kind in ErrorKind::ALL {
            let status = Status::from(Error::new(kind, "text"));
            let details = status.get_error_details();
            let info = details.error_info().expect("always there");
            let row = kind.row();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (row.reason, "dms"));
            assert_eq!(info.metadata["dms_code"], format!("DMS.{}", row.code));
            assert_eq!(info.metadata["http_status"], row.http.to_string());
            assert_eq!(ErrorKind::from_reason(&info.reason), Some(kind));
            assert_eq!(format!("{:?}", status.code()), format!("{:?}", row.rpc));
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        let error = Error::field(ErrorKind::MaxMessagesOutOfRange, "max_messages", 11, "an integer from 1 to 10");
        let status = Status::from(error);
        let details = status.get_error_details();
        let violation = &details.bad_request().expect("a field is known").field_violations[0];
        assert_eq!(violation.field, "max_messages");
        assert_eq!(violation.description, "max_messages: '11' is not an integer from 1 to 10");
        assert_eq!(details.error_info().expect("always there").metadata["field"], "max_messages");
        assert!(details.retry_info().is_none() && details.quota_failure().is_none());
    }

    #[test]
    fn overload_says_when_to_come_back_and_a_quota_which_it_is() {
        let overload = Status::from(Error::overloaded("busy")).get_error_details();
        let retry = overload.retry_info().expect("a hint").retry_delay;
        assert_eq!(retry, Some(Duration::from_millis(200)));
        assert!(overload.quota_failure().is_none());
        let quota = Status::from(Error::new(ErrorKind::QueueQuota, "30 of 30 queues are used")).get_error_details();
        assert_eq!(quota.quota_failure().expect("a quota").violations.len(), 1);
    }

    #[test]
    fn internal_text_stays_inside() {
        for kind in [ErrorKind::Internal, ErrorKind::InternalOther, ErrorKind::DataCorrupt] {
            let status = Status::from(Error::new(kind, "SELECT secret"));
            assert!(!format!("{status:?}").contains("secret"), "{status:?}");
        }
    }

    #[test]
    fn statuses_of_the_library_get_details_too() {
        let cases = [
            (Status::unimplemented(""), Code::Unimplemented, "DMS.10240406"),
            (Status::out_of_range("too large"), Code::InvalidArgument, "DMS.10540011"),
            (Status::internal("invalid utf-8"), Code::InvalidArgument, "DMS.10540010"),
            (Status::cancelled("gone"), Code::Cancelled, "DMS.10540010"),
            (deadline_exceeded(), Code::DeadlineExceeded, "DMS.10250003"),
        ];
        for (from, code, dms_code) in cases {
            let status = if from.details().is_empty() { from_library(&from) } else { from };
            assert_eq!(status.code(), code);
            let details = status.get_error_details();
            assert_eq!(details.error_info().expect("always there").metadata["dms_code"], dms_code);
        }
    }
}
