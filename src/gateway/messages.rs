//! Messages and dead letters: send, consume, acknowledge.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dms_client::v1 as pb;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::value::RawValue;

use super::Answer;
use super::body::Plane;
use super::error::in_rest_words;
use super::ignored::Ignored;
use super::json::{Acked, Leased, Sent};
use super::object::{Object, shown};
use super::query::Query;
use super::target::Target;
use super::upstream::Upstream;
use crate::domain::limits::{CONSUME_MESSAGES, DELAY_MILLIS, LEASE_SECONDS, WAIT_DEFAULT, WAIT_SECONDS};
use crate::domain::{Error, ErrorKind, Result};

/// How much longer than its wait a consume call may take.
const CONSUME_MARGIN: Duration = Duration::from_secs(15);

/// Of an acknowledgement that ended at a handler which was not taken: why.
pub(super) const INVALID_HANDLER: HeaderName = HeaderName::from_static("x-dms-invalid-handler");

const FIELDS: ErrorKind = ErrorKind::MessageFields;

/// `POST /queues/{queue_id}/messages`
pub(super) async fn send(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let body = upstream.read(body, Plane::Data).await?;
    // The body itself is not kept until the answer.
    let request = send_request(target, &body, &upstream.ignored)?;
    drop(body);
    let answer = upstream.messages().send_messages(upstream.request(request)?).await?.into_inner();
    Ok((StatusCode::CREATED, Json(Sent::from(&answer.results[..]))).into_response())
}

/// `GET /queues/{queue_id}/groups/{group_id}/messages?max_msgs&time_wait&ack_wait&tag&tag_type`
pub(super) async fn consume(upstream: Upstream, target: Target, query: Query) -> Answer {
    let (options, deadline) = consume_options(&query)?;
    let Target { project_id, queue_id, group_id, .. } = target;
    let tags = query.all("tag").map(str::to_owned).collect();
    let tag_match = tag_match(&query)?.into();
    let request =
        pb::ConsumeMessagesRequest { project_id, queue_id, group_id, options: Some(options), tags, tag_match };
    let request = upstream.request_within(deadline, request)?;
    let mut service = upstream.messages();
    match upstream.while_caller_listens(service.consume_messages(request)).await {
        Some(answer) => leased(&answer?.into_inner().messages, upstream.traced),
        None => leased(&[], false),
    }
}

/// `GET /queues/{queue_id}/groups/{group_id}/deadletters?max_msgs&time_wait&ack_wait`
pub(super) async fn consume_dead_letters(upstream: Upstream, target: Target, query: Query) -> Answer {
    let (options, deadline) = consume_options(&query)?;
    let Target { project_id, queue_id, group_id, .. } = target;
    let request = pb::ConsumeDeadLettersRequest { project_id, queue_id, group_id, options: Some(options) };
    let request = upstream.request_within(deadline, request)?;
    let mut service = upstream.dead_letters();
    match upstream.while_caller_listens(service.consume_dead_letters(request)).await {
        Some(answer) => leased(&answer?.into_inner().messages, upstream.traced),
        None => leased(&[], false),
    }
}

/// `POST /queues/{queue_id}/groups/{group_id}/ack`
pub(super) async fn ack(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let entries = ack_entries(&mut upstream, body).await?;
    let Target { project_id, queue_id, group_id, .. } = target;
    let request = upstream.request(pb::AckMessagesRequest { project_id, queue_id, group_id, entries })?;
    let answer = upstream.messages().ack_messages(request).await?.into_inner();
    Ok(acked(answer.result.unwrap_or_default()))
}

/// `POST /queues/{queue_id}/groups/{group_id}/deadletters/ack`
pub(super) async fn ack_dead_letters(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let entries = ack_entries(&mut upstream, body).await?;
    let Target { project_id, queue_id, group_id, .. } = target;
    let request = upstream.request(pb::AckDeadLettersRequest { project_id, queue_id, group_id, entries })?;
    let answer = upstream.dead_letters().ack_dead_letters(request).await?.into_inner();
    Ok(acked(answer.result.unwrap_or_default()))
}

fn send_request(target: Target, body: &Bytes, ignored: &Ignored) -> Result<pb::SendMessagesRequest> {
    let root = Object::parse(body, Plane::Data)?;
    let messages = root.items("messages", FIELDS, "an array of objects")?;
    let request = pb::SendMessagesRequest {
        project_id: target.project_id,
        queue_id: target.queue_id,
        messages: messages.iter().map(|message| new_message(body, message)).collect::<Result<_>>()?,
        return_ids: return_ids(&root)?,
    };
    [&root].into_iter().chain(&messages).for_each(|object| object.tell_unread(ignored));
    Ok(request)
}

fn new_message(request: &Bytes, message: &Object<'_>) -> Result<pb::NewMessage> {
    // The objects were read from `request`, so their text is a part of it, shared and not copied.
    let text = |value: &RawValue| request.slice_ref(value.get().as_bytes());
    let body = message.raw("body");
    Ok(pb::NewMessage {
        body: text(body.ok_or_else(|| message.missing("body", FIELDS, "any JSON value"))?),
        attributes: attributes(message)?.map(text).unwrap_or_default(),
        tags: message.texts("tags", FIELDS, "an array of strings")?,
        delay: delay(message)?,
        // A REST message is of the trace of its request.
        traceparent: String::new(),
    })
}

fn attributes<'a>(message: &Object<'a>) -> Result<Option<&'a RawValue>> {
    let (key, allowed) = ("attributes", "a JSON object");
    match message.read::<&RawValue>(key, FIELDS, allowed)? {
        Some(value) if !value.get().starts_with('{') => Err(message.wrong(key, FIELDS, shown(value), allowed)),
        given => Ok(given),
    }
}

/// Milliseconds; a fraction is cut off.
fn delay(message: &Object<'_>) -> Result<Option<prost_types::Duration>> {
    let (kind, allowed) = (ErrorKind::RequestFormat, "0-604800000 ms (7 days)");
    for key in ["delayTime", "delay_time"] {
        let Some(value) = message.read::<&RawValue>(key, kind, allowed)? else { continue };
        let millis = whole(value.get()).filter(|millis| DELAY_MILLIS.contains(millis));
        let millis = millis.ok_or_else(|| message.wrong(key, kind, shown(value), allowed))?;
        let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap_or_default();
        return Ok(Some(prost_types::Duration { seconds: millis / 1000, nanos }));
    }
    Ok(None)
}

/// A JSON number without its fraction.
fn whole(number: &str) -> Option<i64> {
    // `as` saturates: what is too large stays too large.
    number.parse().ok().or_else(|| number.parse::<f64>().ok().map(|number| number.trunc() as i64))
}

fn return_ids(root: &Object<'_>) -> Result<bool> {
    let read = |key| root.read(key, FIELDS, "true or false");
    Ok(read("returnId")?.or(read("return_id")?).unwrap_or(false))
}

/// The options, and how long the call may take with them.
fn consume_options(query: &Query) -> Result<(pb::ConsumeOptions, Duration)> {
    let max_messages = query.integer("max_msgs", CONSUME_MESSAGES, ErrorKind::MaxMessagesOutOfRange)?;
    let wait = query.integer("time_wait", WAIT_SECONDS, ErrorKind::WaitOutOfRange)?;
    let lease = query.integer("ack_wait", LEASE_SECONDS, ErrorKind::LeaseOutOfRange)?;
    let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
    let deadline = wait.map_or(WAIT_DEFAULT, |wait| Duration::from_secs(wait.unsigned_abs())) + CONSUME_MARGIN;
    Ok((pb::ConsumeOptions { max_messages, wait: wait.map(seconds), lease: lease.map(seconds) }, deadline))
}

fn tag_match(query: &Query) -> Result<pb::TagMatch> {
    match query.get("tag_type") {
        None => Ok(pb::TagMatch::Unspecified),
        Some("or") => Ok(pb::TagMatch::Any),
        Some("and") => Ok(pb::TagMatch::All),
        Some(other) => Err(Error::field(ErrorKind::TagTypeInvalid, "tag_type", other, "'or' or 'and'")),
    }
}

/// The documented answer says nothing about a handler that is not the first and was not taken: why, and which, is in a header.
fn acked(result: pb::AckResult) -> Response {
    let why = in_rest_words(ErrorKind::HandlerInvalid, &result.invalid_handler);
    let mut response = Json(Acked::from(result)).into_response();
    if let Some(why) = HeaderValue::from_str(&why).ok().filter(|why| !why.is_empty()) {
        response.headers_mut().insert(INVALID_HANDLER, why);
    }
    response
}

/// Traces of producers are only for callers who are in one: the documented answer has no such field.
fn leased(messages: &[pb::LeasedMessage], with_traces: bool) -> Answer {
    let leased = |message| Leased::new(message, with_traces);
    let messages: Vec<Leased<'_>> = messages.iter().map(leased).collect::<Result<_>>()?;
    Ok(Json(messages).into_response())
}

async fn ack_entries(upstream: &mut Upstream, body: Body) -> Result<Vec<pb::AckEntry>> {
    let body = upstream.read(body, Plane::Data).await?;
    let root = Object::parse(&body, Plane::Data)?;
    let entries = root.items("message", FIELDS, "an array of objects with a handler")?;
    let read = entries.iter().map(ack_entry).collect::<Result<_>>()?;
    [&root].into_iter().chain(&entries).for_each(|object| object.tell_unread(&upstream.ignored));
    Ok(read)
}

fn ack_entry(entry: &Object<'_>) -> Result<pb::AckEntry> {
    let handler = entry.require("handler", FIELDS, "a string")?;
    let (kind, allowed) = (ErrorKind::AckStatusInvalid, "'success' or 'fail'");
    let status = match entry.read::<String>("status", kind, allowed)?.as_deref() {
        None | Some("success") => pb::AckStatus::Success,
        Some("fail") => pb::AckStatus::Fail,
        Some(other) => return Err(entry.wrong("status", kind, other, allowed)),
    };
    Ok(pb::AckEntry { handler, status: status.into() })
}
