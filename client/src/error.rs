//! Why a call failed, in types.

use std::time::Duration;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, ErrorInfo, StatusExt as _};

/// `google.rpc.ErrorInfo.domain` of the errors that the service itself writes.
const DOMAIN: &str = "dms";
const TIMED_OUT: &str = "the deadline of the call passed before there was an answer";

/// A call that failed: what the service said, or what the transport did where no answer came.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.message())]
pub struct Error(Box<Failed>);

#[derive(Debug, Clone)]
struct Failed {
    status: Status,
    details: ErrorDetails,
}

impl Error {
    /// An option that cannot be meant; the text begins with its name.
    pub(crate) fn option(text: impl Into<String>) -> Self {
        Status::invalid_argument(text).into()
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.0.status.code()
    }

    /// What went wrong, for people.
    pub fn message(&self) -> &str {
        match self.0.status.message() {
            "" => self.code().description(),
            message => message,
        }
    }

    /// Which of the documented errors this is, such as `QUEUE_NOT_FOUND`; `None` when the service has not answered.
    pub fn reason(&self) -> Option<&str> {
        Some(self.info()?.reason.as_str())
    }

    /// The code of the original service, such as `DMS.10240401`; `None` when the service has not answered.
    pub fn dms_code(&self) -> Option<&str> {
        self.metadata("dms_code")
    }

    /// The status with which the REST API answers this error.
    pub fn http_status(&self) -> Option<u16> {
        self.metadata("http_status")?.parse().ok()
    }

    /// The field of the request that is to blame, such as `messages[2].delay`.
    pub fn field(&self) -> Option<&str> {
        self.metadata("field")
    }

    /// How long the service asks to wait before the call is made again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.details.retry_info()?.retry_delay
    }

    /// Whether the same call may succeed later without anything else being changed: the service is overloaded, or it or its
    /// database was not reached in time.
    ///
    /// A call that failed this way may have been carried out. Sending again can store a message twice, and acknowledging again
    /// can meet handlers that are settled.
    pub fn is_retryable(&self) -> bool {
        self.retry_after().is_some() || matches!(self.code(), Code::Unavailable | Code::DeadlineExceeded)
    }

    /// Whether the service refused the call for what it asked, so that nothing has happened. Anything else that failed may have
    /// been carried out.
    pub fn is_refusal(&self) -> bool {
        self.http_status().is_some_and(|status| (400..500).contains(&status))
    }

    /// The gRPC status.
    pub fn status(&self) -> &Status {
        &self.0.status
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.info()?.metadata.get(key).map(String::as_str)
    }

    /// Only of errors that the service wrote.
    fn info(&self) -> Option<&ErrorInfo> {
        self.0.details.error_info().filter(|info| info.domain == DOMAIN)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let status = unanswered(&status).unwrap_or(status);
        let details = status.get_error_details();
        Self(Box::new(Failed { status, details }))
    }
}

/// The status of a call without an answer; `None` for one that came from the service, which has no source.
///
/// To the library its own time limit is a cancellation, and the end of a connection a cancellation, an internal error or an unknown
/// one, depending on the moment.
fn unanswered(status: &Status) -> Option<Status> {
    let causes = || std::iter::successors(std::error::Error::source(status), |error| error.source());
    if causes().any(|error| error.is::<TimeoutExpired>()) {
        return Some(Status::deadline_exceeded(TIMED_OUT));
    }
    let (message, cause) = (status.message(), causes().last()?.to_string());
    Some(Status::unavailable(if message.contains(&cause) { message.to_owned() } else { format!("{message}: {cause}") }))
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.0.status
    }
}

impl From<tonic::transport::Error> for Error {
    fn from(error: tonic::transport::Error) -> Self {
        Status::from_error(Box::new(error)).into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;

    fn answered(code: Code, reason: &str, http_status: u16, retry_after: Option<Duration>) -> Error {
        let metadata = [("dms_code", "DMS.1"), ("field", "names"), ("http_status", &http_status.to_string())]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::from(metadata));
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Status::with_error_details(code, "names: too many", details).into()
    }

    #[test]
    fn what_the_service_says_is_typed() {
        let error = answered(Code::InvalidArgument, "GROUP_NAME_LENGTH", 400, None);
        assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some("GROUP_NAME_LENGTH")));
        assert_eq!((error.dms_code(), error.http_status(), error.field()), (Some("DMS.1"), Some(400), Some("names")));
        assert_eq!((error.to_string().as_str(), error.retry_after()), ("names: too many", None));
        assert!(error.is_refusal() && !error.is_retryable());
    }

    #[test]
    fn what_may_succeed_later_is_retryable_and_a_used_up_quota_is_not() {
        let hint = Some(Duration::from_millis(200));
        let overloaded = answered(Code::ResourceExhausted, "OVERLOADED", 404, hint);
        assert!(overloaded.is_retryable() && overloaded.is_refusal());
        assert_eq!(overloaded.retry_after(), hint);
        let away = answered(Code::Unavailable, "UNAVAILABLE", 500, Some(Duration::from_secs(1)));
        assert!(away.is_retryable() && !away.is_refusal());
        assert!(!answered(Code::ResourceExhausted, "QUEUE_QUOTA", 400, None).is_retryable());
        assert!(!answered(Code::Internal, "INTERNAL", 500, None).is_retryable());
    }

    #[test]
    fn what_the_transport_says_has_a_code_and_no_reason() {
        for (status, retryable) in [
            (Status::unavailable("connection refused"), true),
            (Status::deadline_exceeded(""), true),
            (Status::cancelled("Timeout expired"), false),
            (Status::unimplemented(""), false),
        ] {
            let error = Error::from(status);
            assert_eq!((error.reason(), error.dms_code(), error.is_refusal()), (None, None, false), "{error:?}");
            assert_eq!(error.is_retryable(), retryable, "{error:?}");
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_deadline_of_the_client_is_one() {
        let error = Error::from(Status::from_error(Box::new(TimeoutExpired(()))));
        assert_eq!((error.code(), error.is_retryable()), (Code::DeadlineExceeded, true));
    }

    #[test]
    fn the_end_of_a_connection_is_unavailable_whatever_the_library_makes_of_it() {
        for code in [Code::Cancelled, Code::Internal, Code::Unknown] {
            let mut status = Status::new(code, "transport error");
            status.set_source(Arc::new(std::io::Error::other("broken pipe")));
            let error = Error::from(status);
            assert_eq!((error.code(), error.message()), (Code::Unavailable, "transport error: broken pipe"));
            assert!(error.is_retryable() && !error.is_refusal());
        }
    }

    #[test]
    fn details_of_others_are_not_taken_for_those_of_the_service() {
        let details = ErrorDetails::with_error_info("OVERLOADED", "proxy.example", HashMap::new());
        let error = Error::from(Status::with_error_details(Code::Internal, "x", details));
        assert_eq!(error.reason(), None);
    }
}
