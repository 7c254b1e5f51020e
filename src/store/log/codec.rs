//! Segment payloads: length-delimited records, one per message (`proto/dms/storage/v1/segment.proto`).

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use uuid::Uuid;

use crate::domain::clock::Timestamp;
use crate::domain::ids::{MessageId, QueueId};
use crate::domain::message::{DeadLetterOrigin, DeadLetterReason, Message, NewMessage};
use crate::domain::trace::{self, TraceContext};

#[expect(unreachable_pub, reason = "generated code")]
mod storage {
    tonic::include_proto!("dms.storage.v1");
}

/// More than a record takes beside body, attributes, labels and trace, for few labels and no dead letter.
const RECORD_OVERHEAD_BYTES: usize = 48;
/// Payload is the records, one after the other.
pub const CODEC_PLAIN: i16 = 0;

const REASON_ACK_FAIL: u32 = 1;
const REASON_LEASE_EXPIRED: u32 = 2;

/// A payload that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("segment payload cannot be decoded: {0}")]
pub struct CorruptPayload(String);

/// Room for the record of a message with few labels.
pub(crate) fn record_capacity(message: &NewMessage) -> usize {
    let trace = message.trace.map_or(0, |_| trace::STORED_BYTES + 2);
    message.size_bytes() + RECORD_OVERHEAD_BYTES + trace
}

/// Appends the record of a message to a payload.
pub fn encode(message: &Message, payload: &mut BytesMut) {
    let record = storage::Record {
        message_id: Bytes::copy_from_slice(message.id.0.as_bytes()),
        body: message.body.clone(),
        attributes: message.attributes.clone(),
        tags: message.tags.clone(),
        dead_letter: message.dead_letter.as_ref().map(encode_origin),
        trace: message.trace.map_or_else(Bytes::new, |trace| Bytes::copy_from_slice(&trace.to_bytes())),
    };
    payload.reserve(record.encoded_len() + 10);
    // BytesMut grows, so this cannot fail.
    let _ = record.encode_length_delimited(payload);
}

fn encode_origin(origin: &DeadLetterOrigin) -> storage::DeadLetter {
    storage::DeadLetter {
        reason: match origin.reason {
            DeadLetterReason::AckFail => REASON_ACK_FAIL,
            DeadLetterReason::LeaseExpired => REASON_LEASE_EXPIRED,
        },
        attempts: origin.attempts.unsigned_abs(),
        queue_id: Bytes::copy_from_slice(origin.queue.0.as_bytes()),
        message_offset: origin.offset,
        appended_at_micros: origin.appended_at.0,
    }
}

/// A record of a payload, read or not.
pub type Decoded = Result<Message, CorruptPayload>;

/// Reads the records of a payload; bodies are slices of it. A record that cannot be read is an error in its place; when not even
/// its length can be, it is the last one.
pub fn decode(codec: i16, mut payload: Bytes) -> Vec<Decoded> {
    if codec != CODEC_PLAIN {
        return vec![Err(CorruptPayload(format!("codec {codec} is not known")))];
    }
    let mut messages = Vec::new();
    while !payload.is_empty() {
        let length = prost::decode_length_delimiter(&mut payload).ok().filter(|length| *length <= payload.len());
        let Some(length) = length else {
            messages.push(Err(CorruptPayload("a record of an impossible length".into())));
            break;
        };
        let record = storage::Record::decode(payload.split_to(length));
        messages.push(record.map_err(|error| CorruptPayload(error.to_string())).and_then(decode_record));
    }
    messages
}

fn decode_record(record: storage::Record) -> Result<Message, CorruptPayload> {
    Ok(Message {
        id: MessageId(uuid(&record.message_id)?),
        body: record.body,
        attributes: record.attributes,
        tags: record.tags,
        dead_letter: record.dead_letter.as_ref().map(decode_origin).transpose()?,
        // A message is worth more than its trace.
        trace: TraceContext::from_bytes(&record.trace),
    })
}

fn decode_origin(origin: &storage::DeadLetter) -> Result<DeadLetterOrigin, CorruptPayload> {
    let reason = match origin.reason {
        REASON_ACK_FAIL => DeadLetterReason::AckFail,
        REASON_LEASE_EXPIRED => DeadLetterReason::LeaseExpired,
        other => return Err(CorruptPayload(format!("dead-letter reason {other} is not known"))),
    };
    Ok(DeadLetterOrigin {
        reason,
        attempts: i32::try_from(origin.attempts).unwrap_or(i32::MAX),
        queue: QueueId(uuid(&origin.queue_id)?),
        offset: origin.message_offset,
        appended_at: Timestamp(origin.appended_at_micros),
    })
}

fn uuid(bytes: &[u8]) -> Result<Uuid, CorruptPayload> {
    Uuid::from_slice(bytes).map_err(|error| CorruptPayload(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &'static str) -> Message {
        Message {
            id: MessageId(Uuid::from_u128(7)),
            body: Bytes::from_static(body.as_bytes()),
            attributes: Bytes::new(),
            tags: vec!["a".into()],
            dead_letter: Some(DeadLetterOrigin {
                reason: DeadLetterReason::LeaseExpired,
                attempts: 3,
                queue: QueueId(Uuid::from_u128(8)),
                offset: 41,
                appended_at: Timestamp(5),
            }),
            trace: None,
        }
    }

    fn traced(body: &'static str) -> Message {
        let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert!(trace.is_some());
        Message { trace, ..message(body) }
    }

    fn encoded(message: &Message) -> Bytes {
        let mut payload = BytesMut::new();
        encode(message, &mut payload);
        payload.freeze()
    }

    #[test]
    fn records_come_back_as_they_were() {
        let messages = [message("1"), traced("2"), message("\"\\ud800\"")];
        let mut payload = BytesMut::new();
        messages.iter().for_each(|message| encode(message, &mut payload));
        let decoded: Result<Vec<_>, _> = decode(CODEC_PLAIN, payload.freeze()).into_iter().collect();
        assert_eq!(decoded.expect("decodes"), messages);
    }

    /// A record as versions before traces knew it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct OlderRecord {
        #[prost(bytes = "bytes", tag = "1")]
        message_id: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        body: Bytes,
    }

    #[test]
    fn a_trace_costs_nothing_where_there_is_none_and_older_versions_pass_over_it() {
        let (bare, with_trace) = (encoded(&message("1")), encoded(&traced("1")));
        assert_eq!(with_trace.len(), bare.len() + 2 + trace::STORED_BYTES);
        let older = |payload: &Bytes| OlderRecord::decode_length_delimited(payload.clone()).expect("decodes");
        assert_eq!((older(&bare).body, older(&with_trace)), (Bytes::from("1"), older(&bare)));
    }

    #[test]
    fn a_malformed_trace_is_none() {
        let mut payload = encoded(&traced("1")).to_vec();
        // The record ends with it.
        let trace_at = payload.len() - trace::STORED_BYTES;
        payload[trace_at..trace_at + 16].fill(0);
        let decoded = decode(CODEC_PLAIN, payload.into());
        assert_eq!(decoded[0].as_ref().expect("decodes"), &message("1"));
    }

    #[test]
    fn broken_payloads_are_errors() {
        let mut payload = BytesMut::new();
        encode(&message("1"), &mut payload);
        let whole = payload.freeze();
        for cut in 1..whole.len() {
            let decoded = decode(CODEC_PLAIN, whole.slice(..cut));
            assert!(matches!(decoded[..], [Err(_)]), "cut at {cut}: {decoded:?}");
        }
        assert!(matches!(decode(9, whole)[..], [Err(_)]));
    }

    #[test]
    fn a_broken_record_leaves_those_beside_it_readable() {
        let mut payload = BytesMut::new();
        let mut ends = Vec::new();
        for body in ["1", "2", "3"] {
            encode(&message(body), &mut payload);
            ends.push(payload.len());
        }
        // The field number of the id of the second one.
        payload[ends[0] + 1] = 0xff;
        let decoded = decode(CODEC_PLAIN, payload.freeze());
        let readable: Vec<_> = decoded.iter().map(|message| message.as_ref().ok()).collect();
        assert_eq!(readable, [Some(&message("1")), None, Some(&message("3"))]);
    }
}
