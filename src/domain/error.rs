//! The one error type and the one table of error codes.
//!
//! `store` classifies database errors into it, `api` turns it into a `tonic::Status`, `gateway` into the REST body; nothing
//! else knows a code.

use std::time::Duration;

use super::text;

/// A result of the service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The gRPC status codes in use, by their canonical names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcCode {
    /// The request is wrong whatever the state.
    InvalidArgument,
    /// The request is refused in the present state.
    FailedPrecondition,
    /// A name is taken.
    AlreadyExists,
    /// No such thing.
    NotFound,
    /// A quota or a queue is full.
    ResourceExhausted,
    /// No or bad credentials.
    Unauthenticated,
    /// Not allowed.
    PermissionDenied,
    /// No such method.
    Unimplemented,
    /// Try again.
    Unavailable,
    /// Stored data cannot be read.
    DataLoss,
    /// Our fault.
    Internal,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorRow {
    /// HTTP status of the REST gateway.
    pub http: u16,
    /// Eight digits; REST shows them as `DMS.` + code.
    pub code: &'static str,
    /// gRPC status.
    pub rpc: RpcCode,
    /// `google.rpc.ErrorInfo.reason`.
    pub reason: &'static str,
    /// What the code means.
    pub meaning: &'static str,
}

macro_rules! error_table {
    ($($kind:ident = $http:literal $code:literal $rpc:ident $reason:literal $meaning:literal;)*) => {
        /// Everything that can go wrong, one kind per documented code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $(#[doc = $meaning] $kind,)* }

        impl ErrorKind {
            /// All kinds in the order of the table.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// The row of this kind.
            pub const fn row(self) -> ErrorRow {
                match self {
                    $(ErrorKind::$kind => ErrorRow {
                        http: $http, code: $code, rpc: RpcCode::$rpc, reason: $reason, meaning: $meaning,
                    },)*
                }
            }
        }
    };
}

error_table! {
    TooManyQueuesQueried = 400 "10240002" InvalidArgument "TOO_MANY_QUEUES_QUERIED" "too many queues queried";
    LabelInvalid = 400 "10240004" InvalidArgument "LABEL_INVALID" "message label invalid";
    ProjectIdInvalid = 400 "10240005" InvalidArgument "PROJECT_ID_INVALID" "project id malformed";
    NameCharacters = 400 "10240007" InvalidArgument "NAME_CHARACTERS" "name has characters outside A-Z a-z 0-9 _ -";
    ControlBodyInvalid = 400 "10240009" InvalidArgument "CONTROL_BODY_INVALID" "request body not valid JSON (queues, groups, tags)";
    DescriptionCharacters = 400 "10240010" InvalidArgument "DESCRIPTION_CHARACTERS" "description contains < or >";
    QueueNameLength = 400 "10240011" InvalidArgument "QUEUE_NAME_LENGTH" "queue name not 1-64 characters";
    GroupNameLength = 400 "10240012" InvalidArgument "GROUP_NAME_LENGTH" "group name not 1-32 characters";
    DescriptionLength = 400 "10240013" InvalidArgument "DESCRIPTION_LENGTH" "description longer than 160 characters";
    MaxMessagesOutOfRange = 400 "10240014" InvalidArgument "MAX_MESSAGES_OUT_OF_RANGE" "max_msgs not 1-10";
    QueueIdInvalid = 400 "10240015" InvalidArgument "QUEUE_ID_INVALID" "queue id malformed";
    GroupIdInvalid = 400 "10240016" InvalidArgument "GROUP_ID_INVALID" "group id malformed";
    QueueExists = 400 "10240017" AlreadyExists "QUEUE_EXISTS" "queue name taken";
    GroupExists = 400 "10240018" AlreadyExists "GROUP_EXISTS" "group name taken";
    TooManyGroups = 400 "10240019" ResourceExhausted "TOO_MANY_GROUPS" "too many groups";
    QueueQuota = 400 "10240020" ResourceExhausted "QUEUE_QUOTA" "queue quota used up";
    WaitOutOfRange = 400 "10240021" InvalidArgument "WAIT_OUT_OF_RANGE" "time_wait not 1-60 s";
    MaxConsumeCount = 400 "10240022" InvalidArgument "MAX_CONSUME_COUNT" "max_consume_count not 1-100";
    RetentionHours = 400 "10240027" InvalidArgument "RETENTION_HOURS" "retention_hours not 1-72";
    RetentionNotKafka = 400 "10240028" InvalidArgument "RETENTION_NOT_KAFKA" "retention_hours given for a queue that is not a Kafka queue";
    QueueBeingCreated = 400 "10240032" FailedPrecondition "QUEUE_BEING_CREATED" "queue still being created";
    TagKeyLength = 400 "10240035" InvalidArgument "TAG_KEY_LENGTH" "tag key empty or longer than 36 characters";
    TagKeyCharacters = 400 "10240036" InvalidArgument "TAG_KEY_CHARACTERS" "tag key has illegal characters";
    TagValueLength = 400 "10240038" InvalidArgument "TAG_VALUE_LENGTH" "tag value longer than 43 characters";
    TagValueCharacters = 400 "10240039" InvalidArgument "TAG_VALUE_CHARACTERS" "tag value has illegal characters";
    TagAction = 400 "10240040" InvalidArgument "TAG_ACTION" "tag action not create or delete";
    SearchAction = 400 "10240041" InvalidArgument "SEARCH_ACTION" "search action not filter or count";
    SearchLimit = 400 "10240042" InvalidArgument "SEARCH_LIMIT" "page size out of range";
    SearchOffset = 400 "10240043" InvalidArgument "SEARCH_OFFSET" "offset out of range";
    TooManyTags = 400 "10240044" ResourceExhausted "TOO_MANY_TAGS" "more than 10 tags";
    TagKeyRepeated = 400 "10240045" InvalidArgument "TAG_KEY_REPEATED" "tag key given twice";
    MessageFields = 400 "10540001" InvalidArgument "MESSAGE_FIELDS" "request body has invalid fields (messages, acks)";
    AckStatusInvalid = 400 "10540003" InvalidArgument "ACK_STATUS_INVALID" "ack status not success or fail";
    HandlerMismatch = 400 "10540004" InvalidArgument "HANDLER_MISMATCH" "handler is of another queue or group";
    RequestFormat = 400 "10540010" InvalidArgument "REQUEST_FORMAT" "request format wrong";
    ConsumeFormat = 400 "10540202" InvalidArgument "CONSUME_FORMAT" "consume request format wrong";
    AckFormat = 400 "10542214" InvalidArgument "ACK_FORMAT" "ack request format wrong";
    MessageTooLarge = 400 "10540011" InvalidArgument "MESSAGE_TOO_LARGE" "message or batch larger than 524288 bytes";
    DataBodyInvalid = 400 "10540012" InvalidArgument "DATA_BODY_INVALID" "request body not valid JSON (messages, acks)";
    UrlParameters = 400 "10540014" InvalidArgument "URL_PARAMETERS" "URL parameter invalid";
    ConsumeFailed = 400 "10542204" FailedPrecondition "CONSUME_FAILED" "consume failed";
    HandlerReleased = 400 "10542205" FailedPrecondition "HANDLER_RELEASED" "consumer instance of the handler was released";
    LeaseOutOfRange = 400 "10542206" InvalidArgument "LEASE_OUT_OF_RANGE" "ack_wait not 15-300 s";
    HandlerInvalid = 400 "10542209" FailedPrecondition "HANDLER_INVALID" "handler unparsable, expired, or settled before";
    TokenInvalid = 401 "10240101" Unauthenticated "TOKEN_INVALID" "token invalid";
    TokenExpired = 401 "10240102" Unauthenticated "TOKEN_EXPIRED" "token expired";
    TokenMissing = 401 "10240103" Unauthenticated "TOKEN_MISSING" "token missing";
    TokenProject = 401 "10240104" Unauthenticated "TOKEN_PROJECT" "token does not match the project";
    QuotaBelowUsed = 403 "10240304" FailedPrecondition "QUOTA_BELOW_USED" "new quota below used";
    TenantFrozen = 403 "10240306" PermissionDenied "TENANT_FROZEN" "tenant frozen";
    GroupQuotaRange = 403 "10240307" PermissionDenied "GROUP_QUOTA_RANGE" "group quota not 1-10";
    QueueQuotaRange = 403 "10240308" PermissionDenied "QUEUE_QUOTA_RANGE" "queue quota not 1-20";
    AccessDenied = 403 "10240309" PermissionDenied "ACCESS_DENIED" "access denied";
    TenantReadOnly = 403 "10240310" PermissionDenied "TENANT_READ_ONLY" "tenant is read-only";
    RoleLacksRight = 403 "10240311" PermissionDenied "ROLE_LACKS_RIGHT" "role lacks the right";
    TenantRestricted = 403 "10240312" PermissionDenied "TENANT_RESTRICTED" "tenant restricted";
    QueueNotFound = 404 "10240401" NotFound "QUEUE_NOT_FOUND" "no such queue";
    GroupNotFound = 404 "10240405" NotFound "GROUP_NOT_FOUND" "no such consumer group";
    PathNotFound = 404 "10240406" Unimplemented "PATH_NOT_FOUND" "no such URL or endpoint";
    Overloaded = 404 "10240407" ResourceExhausted "OVERLOADED" "flow control: retry later";
    TagNotFound = 404 "10240426" NotFound "TAG_NOT_FOUND" "no tag with that key";
    QueueNameNotFound = 404 "10540401" NotFound "QUEUE_NAME_NOT_FOUND" "no queue with that name";
    MethodNotAllowed = 405 "00405001" Unimplemented "METHOD_NOT_ALLOWED" "method not allowed on this URL";
    BodyTooLarge = 413 "00413001" InvalidArgument "BODY_TOO_LARGE" "request body larger than the limit, as announced or once decompressed";
    EncodingUnknown = 415 "00415001" Unimplemented "ENCODING_UNKNOWN" "request compressed in a way that is not taken";
    WrongPort = 421 "00421001" Unimplemented "WRONG_PORT" "another protocol is spoken on this port";
    Internal = 500 "10250002" Internal "INTERNAL" "internal error";
    Unavailable = 500 "10250003" Unavailable "UNAVAILABLE" "the database cannot be reached: retry later";
    DataCorrupt = 500 "10250004" DataLoss "DATA_CORRUPT" "stored data cannot be read";
    UpstreamUnavailable = 500 "10250005" Unavailable "UPSTREAM_UNAVAILABLE" "internal communication failed: retry later";
    InternalOther = 500 "10250006" Internal "INTERNAL_OTHER" "internal error";
    TagTypeInvalid = 500 "10550035" InvalidArgument "TAG_TYPE_INVALID" "tag_type not or / and";
}

impl ErrorKind {
    /// The kind with this `ErrorInfo.reason`.
    pub fn from_reason(reason: &str) -> Option<ErrorKind> {
        Self::ALL.iter().copied().find(|kind| kind.row().reason == reason)
    }
}

/// An error as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    field: Option<String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// An error with a message of its own. Never put a message body, a token or SQL into it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None, retry_after: None }
    }

    /// A field whose value is not allowed: `{field}: {value} is not {allowed}`. The value is cut and escaped.
    pub fn field(kind: ErrorKind, field: &str, value: impl std::fmt::Display, allowed: &str) -> Self {
        let message = format!("{field}: {} is not {allowed}", text::quoted(&value.to_string()));
        Self { field: Some(field.to_owned()), ..Self::new(kind, message) }
    }

    /// A field that must be given.
    pub fn missing(kind: ErrorKind, field: &str, allowed: &str) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(kind, format!("{field}: missing; give {allowed}")) }
    }

    /// Names the field that this error is about; the message must begin with it.
    #[must_use]
    pub fn about(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// An internal error. The details belong in the log, not in the answer.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what)
    }

    /// The database cannot be reached or is too slow.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, what).retry_after(Duration::from_secs(1))
    }

    /// A bounded queue of this service is full.
    pub(crate) fn overloaded(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Overloaded, what).retry_after(Duration::from_millis(200))
    }

    /// Its row in the table.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to tell the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The field to blame, as the gRPC request names it.
    pub(crate) fn field_name(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// When to try again.
    pub(crate) fn retry_hint(&self) -> Option<Duration> {
        self.retry_after
    }
}
