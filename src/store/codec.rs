//! Segment payloads: length-delimited records, one per message (`proto/dms/storage/v1/segment.proto`).

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use uuid::Uuid;

use crate::domain::clock::Timestamp;
use crate::domain::ids::{MessageId, QueueId};
use crate::domain::message::{DeadLetterOrigin, DeadLetterReason, Message};

mod storage {
    tonic::include_proto!("dms.storage.v1");
}

/// More than a record takes beside body, attributes and labels, for a message with few labels that is no dead letter.
pub const RECORD_OVERHEAD_BYTES: usize = 48;
/// Payload is the records, one after the other.
pub const CODEC_PLAIN: i16 = 0;

const REASON_ACK_FAIL: u32 = 1;
const REASON_LEASE_EXPIRED: u32 = 2;

/// A payload that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("segment payload cannot be decoded: {0}")]
pub struct CorruptPayload(String);

/// Appends the record of a message to a payload.
pub fn encode(message: &Message, payload: &mut BytesMut) {
    let record = storage::Record {
        message_id: Bytes::copy_from_slice(message.id.0.as_bytes()),
        body: message.body.clone(),
        attributes: message.attributes.clone(),
        tags: message.tags.clone(),
        dead_letter: message.dead_letter.as_ref().map(encode_origin),
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
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let messages = [message("1"), message("\"\\ud800\"")];
        let mut payload = BytesMut::new();
        messages.iter().for_each(|message| encode(message, &mut payload));
        let decoded: Result<Vec<_>, _> = decode(CODEC_PLAIN, payload.freeze()).into_iter().collect();
        assert_eq!(decoded.expect("decodes"), messages);
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
