//! Messages in JSON: bodies and attributes are written as the text they were sent as.

use dms_client::v1 as pb;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{Error, ErrorKind, Result};

/// The answer to a send.
#[derive(Serialize)]
pub(crate) struct Sent<'a> {
    messages: Vec<SentMessage<'a>>,
}

impl<'a> From<&'a [pb::SendResult]> for Sent<'a> {
    fn from(results: &'a [pb::SendResult]) -> Self {
        Self { messages: results.iter().map(SentMessage::from).collect() }
    }
}

/// One message of a send. A send stores all messages or none, so `error` is always null and `state` 0.
#[derive(Serialize)]
struct SentMessage<'a> {
    error: Option<&'static str>,
    error_code: Option<i32>,
    state: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
}

impl<'a> From<&'a pb::SendResult> for SentMessage<'a> {
    fn from(result: &'a pb::SendResult) -> Self {
        Self { error: None, error_code: None, state: 0, id: &result.message_id }
    }
}

/// A message under a lease.
#[derive(Serialize)]
pub(crate) struct Leased<'a> {
    message: Message<'a>,
    handler: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    body: &'a RawValue,
    attributes: &'a RawValue,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    traceparent: &'a str,
}

impl<'a> Leased<'a> {
    /// With the trace of its producer if it is wanted.
    pub(crate) fn new(leased: &'a pb::LeasedMessage, with_trace: bool) -> Result<Self> {
        let Some(message) = &leased.message else { return Err(unreadable()) };
        let attributes = if message.attributes.is_empty() { b"{}" } else { &message.attributes[..] };
        let message = Message {
            body: json_text(&message.body)?,
            attributes: json_text(attributes)?,
            tags: &message.tags,
            traceparent: if with_trace { &message.traceparent } else { "" },
        };
        Ok(Self { message, handler: &leased.handler })
    }
}

/// How much of an acknowledgement was accepted.
#[derive(Serialize)]
pub(crate) struct Acked {
    success: i32,
    fail: i32,
}

impl From<pb::AckResult> for Acked {
    fn from(result: pb::AckResult) -> Self {
        Self { success: result.success_count, fail: result.fail_count }
    }
}

/// Checks that it is JSON (the service did before) without building anything.
fn json_text(text: &[u8]) -> Result<&RawValue> {
    serde_json::from_slice(text).map_err(|_| unreadable())
}

fn unreadable() -> Error {
    Error::new(ErrorKind::DataCorrupt, "a message of the answer cannot be read")
}
