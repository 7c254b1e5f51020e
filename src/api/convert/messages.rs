//! Messages, deliveries and acknowledgements.

use std::time::Duration;

use bytes::Bytes;
use dms_client::v1 as pb;
use serde_json::value::RawValue;

use super::{count, options, timestamp};
use crate::domain::ids::{GroupId, MessageId, ProjectId, QueueId};
use crate::domain::labels::{self, LabelRule};
use crate::domain::message::{
    self, ConsumeOptions, DeadLetterOrigin, DeadLetterReason, Delivery, GroupAddress, NewMessage, Source,
};
use crate::domain::settle::{self, AckEntry, AckOutcome, AckStatus};
use crate::domain::trace::TraceContext;
use crate::domain::{Error, ErrorKind, Result};

/// A send, checked.
#[derive(Debug)]
pub(crate) struct Send {
    /// The queue.
    pub queue: QueueId,
    /// 1-10 messages.
    pub messages: Vec<NewMessage>,
    /// Whether the answer names the messages.
    pub return_ids: bool,
}

/// Checks a send; messages that do not say in which trace they were made were in that of the call.
pub(crate) fn send(request: pb::SendMessagesRequest, trace: Option<TraceContext>) -> Result<Send> {
    let queue = QueueId::parse(&request.queue_id)?;
    let checked = |message| new_message(message).map(|message| message.in_trace(trace));
    let messages = request.messages.into_iter().enumerate().map(checked).collect::<Result<Vec<_>>>()?;
    message::check_batch(&messages)?;
    Ok(Send { queue, messages, return_ids: request.return_ids })
}

fn new_message((index, message): (usize, pb::NewMessage)) -> Result<NewMessage> {
    // Named only when something is wrong with it.
    let field = |name: &str| format!("messages[{index}].{name}");
    check_json(|| field("body"), &message.body)?;
    check_attributes(|| field("attributes"), &message.attributes)?;
    let delay = match message.delay {
        None => Duration::ZERO,
        given => options::delay(&field("delay"), given)?,
    };
    let trace = TraceContext::parse(&message.traceparent);
    Ok(NewMessage { body: message.body, attributes: message.attributes, tags: message.tags, delay, trace })
}

/// Any JSON value. The syntax is checked without building it, so what no tree can hold (a lone surrogate, 1e400) is fine.
fn check_json(field: impl FnOnce() -> String, text: &[u8]) -> Result<()> {
    let wrong = |error| {
        let field = field();
        // Its text has a place in the JSON, nothing of the JSON itself.
        Error::new(ErrorKind::DataBodyInvalid, format!("{field}: not valid JSON: {error}")).about(&field)
    };
    serde_json::from_slice::<&RawValue>(text).map(drop).map_err(wrong)
}

fn check_attributes(field: impl Fn() -> String, text: &[u8]) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    check_json(&field, text)?;
    match text.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => {
            let field = field();
            Err(Error::new(ErrorKind::MessageFields, format!("{field}: not a JSON object")).about(&field))
        }
    }
}

/// The answer to a send.
pub(crate) fn send_response(ids: &[MessageId], return_ids: bool) -> pb::SendMessagesResponse {
    let message_id = |id: &MessageId| if return_ids { id.to_string() } else { String::new() };
    let results = ids.iter().map(|id| pb::SendResult { message_id: message_id(id) }).collect();
    pb::SendMessagesResponse { results }
}

/// A retrieval of dead letters in the words of one of messages: without labels.
pub(crate) fn consume_of_dead_letters(request: pb::ConsumeDeadLettersRequest) -> pb::ConsumeMessagesRequest {
    let pb::ConsumeDeadLettersRequest { project_id, queue_id, group_id, options } = request;
    pb::ConsumeMessagesRequest { project_id, queue_id, group_id, options, ..Default::default() }
}

/// An acknowledgement of dead letters in the words of one of messages.
pub(crate) fn ack_of_dead_letters(request: pb::AckDeadLettersRequest) -> pb::AckMessagesRequest {
    let pb::AckDeadLettersRequest { project_id, queue_id, group_id, entries } = request;
    pb::AckMessagesRequest { project_id, queue_id, group_id, entries }
}

/// Checks a retrieval.
pub(crate) fn consume(
    project: ProjectId,
    request: pb::ConsumeMessagesRequest,
    source: Source,
) -> Result<(GroupAddress, ConsumeOptions)> {
    let address = group_address(project, &request.queue_id, &request.group_id, source)?;
    let given = request.options.unwrap_or_default();
    let options = ConsumeOptions {
        max_messages: options::max_messages(given.max_messages)?,
        wait: options::wait(given.wait)?,
        lease: options::lease(given.lease)?,
        rule: rule(request.tags, request.tag_match)?,
    };
    Ok((address, options))
}

fn group_address(project: ProjectId, queue_id: &str, group_id: &str, source: Source) -> Result<GroupAddress> {
    let queue = QueueId::parse(queue_id)?;
    Ok(GroupAddress { project, queue, group: GroupId::parse(group_id)?, source })
}

fn rule(tags: Vec<String>, tag_match: i32) -> Result<Option<LabelRule>> {
    labels::parse("tags", &tags)?;
    let all = match pb::TagMatch::try_from(tag_match) {
        Ok(pb::TagMatch::Unspecified | pb::TagMatch::Any) => false,
        Ok(pb::TagMatch::All) => true,
        Err(_) => return Err(Error::field(ErrorKind::TagTypeInvalid, "tag_match", tag_match, "ANY or ALL")),
    };
    Ok(LabelRule::new(tags, all))
}

/// A delivery for the wire; body and attributes move.
pub(crate) fn leased_message(delivery: Delivery) -> pb::LeasedMessage {
    let message = delivery.message;
    let attributes = if message.attributes.is_empty() { Bytes::from_static(b"{}") } else { message.attributes };
    pb::LeasedMessage {
        message: Some(pb::Message {
            id: message.id.to_string(),
            body: message.body,
            attributes,
            tags: message.tags,
            append_time: timestamp(delivery.appended_at),
            offset: delivery.offset,
            dead_letter: message.dead_letter.map(dead_letter),
            traceparent: message.trace.map(|trace| trace.to_string()).unwrap_or_default(),
        }),
        handler: delivery.handler,
        lease_expire_time: timestamp(delivery.lease_expires_at),
        delivery_attempt: delivery.attempt,
    }
}

fn dead_letter(origin: DeadLetterOrigin) -> pb::DeadLetterOrigin {
    let reason = match origin.reason {
        DeadLetterReason::AckFail => pb::DeadLetterReason::AckFail,
        DeadLetterReason::LeaseExpired => pb::DeadLetterReason::LeaseExpired,
    };
    pb::DeadLetterOrigin {
        reason: reason.into(),
        delivery_attempts: origin.attempts,
        queue_id: origin.queue.to_string(),
        offset: origin.offset,
        append_time: timestamp(origin.appended_at),
    }
}

/// Checks an acknowledgement.
pub(crate) fn ack(
    project: ProjectId,
    request: pb::AckMessagesRequest,
    source: Source,
) -> Result<(GroupAddress, Vec<AckEntry>)> {
    let address = group_address(project, &request.queue_id, &request.group_id, source)?;
    settle::check_count("entries", request.entries.len())?;
    let entries = request.entries.into_iter().enumerate().map(ack_entry).collect::<Result<_>>()?;
    Ok((address, entries))
}

fn ack_entry((index, entry): (usize, pb::AckEntry)) -> Result<AckEntry> {
    let status = match pb::AckStatus::try_from(entry.status) {
        Ok(pb::AckStatus::Unspecified | pb::AckStatus::Success) => AckStatus::Success,
        Ok(pb::AckStatus::Fail) => AckStatus::Fail,
        Err(_) => {
            let field = format!("entries[{index}].status");
            return Err(Error::field(ErrorKind::AckStatusInvalid, &field, entry.status, "SUCCESS or FAIL"));
        }
    };
    Ok(AckEntry { handler: entry.handler, status })
}

/// What became of an acknowledgement.
pub(crate) fn ack_result(outcomes: &[AckOutcome], invalid: Option<&Error>) -> pb::AckResult {
    let acked = outcomes.iter().filter(|outcome| **outcome == AckOutcome::Acked).count();
    pb::AckResult {
        success_count: count(acked),
        fail_count: count(outcomes.len() - acked),
        outcomes: outcomes.iter().map(|outcome| ack_outcome(*outcome).into()).collect(),
        invalid_handler: invalid.map(|why| why.message().to_owned()).unwrap_or_default(),
    }
}

const fn ack_outcome(outcome: AckOutcome) -> pb::AckOutcome {
    match outcome {
        AckOutcome::Acked => pb::AckOutcome::Acked,
        AckOutcome::Failed => pb::AckOutcome::Failed,
        AckOutcome::InvalidHandler => pb::AckOutcome::InvalidHandler,
        AckOutcome::AfterFailure => pb::AckOutcome::AfterFailure,
    }
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
