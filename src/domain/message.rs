//! Messages on their way in and out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::clock::Timestamp;
use super::error::{Error, ErrorKind, Result};
use super::ids::{GroupId, MessageId, ProjectId, QueueId};
use super::labels::{self, LabelRule};
use super::limits::{BATCH_BYTES_MAX, DELAY_MILLIS, SEND_MESSAGES};
use super::queue::QueueMode;
use super::trace::TraceContext;

/// A message to send; body and attributes are JSON text that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Any JSON value.
    pub body: Bytes,
    /// A JSON object, or empty for `{}`.
    pub attributes: Bytes,
    /// Labels.
    pub tags: Vec<String>,
    /// How long it stays hidden.
    pub delay: Duration,
    /// Where it was made, if its producer says so.
    pub trace: Option<TraceContext>,
}

impl NewMessage {
    /// Bytes that count against the 512 KB limits.
    pub(crate) fn size_bytes(&self) -> usize {
        self.body.len() + self.attributes.len() + self.tags.iter().map(String::len).sum::<usize>()
    }

    /// Made in this trace, unless it says itself where it was made.
    #[must_use]
    pub(crate) fn in_trace(self, trace: Option<TraceContext>) -> Self {
        Self { trace: self.trace.or(trace), ..self }
    }
}

/// Checks how many messages a send has: 1-10.
pub(crate) fn check_count(field: &str, count: usize) -> Result<()> {
    if SEND_MESSAGES.contains(&count) {
        return Ok(());
    }
    Err(Error::field(ErrorKind::RequestFormat, field, format!("{count} messages"), "1-10 messages"))
}

/// The rules that need the whole batch: 1-10 messages, 512 KB, labels, delays by queue mode.
pub(crate) fn check_batch(messages: &[NewMessage]) -> Result<()> {
    check_count("messages", messages.len())?;
    let bytes: usize = messages.iter().map(NewMessage::size_bytes).sum();
    if bytes > BATCH_BYTES_MAX {
        let message = format!("messages: size {bytes} bytes is larger than the limit of {BATCH_BYTES_MAX} bytes");
        return Err(Error::new(ErrorKind::MessageTooLarge, message).about("messages"));
    }
    for message in messages {
        labels::parse("messages.tags", &message.tags)?;
        let millis = i64::try_from(message.delay.as_millis()).unwrap_or(i64::MAX);
        if !DELAY_MILLIS.contains(&millis) {
            let allowed = "0-604800000 ms (7 days)";
            return Err(Error::field(ErrorKind::RequestFormat, "messages.delay", format!("{millis} ms"), allowed));
        }
    }
    Ok(())
}

/// Makes a batch fit the mode of its queue: Kafka queues refuse delays (DMS.10540010) and drop attributes.
pub(crate) fn apply_mode_rules(mode: QueueMode, messages: &mut [NewMessage]) -> Result<()> {
    if !mode.is_kafka() {
        return Ok(());
    }
    for message in messages {
        if !message.delay.is_zero() {
            let text = "messages.delay: kafka queue message could not have delayTime";
            return Err(Error::new(ErrorKind::RequestFormat, text).about("messages.delay"));
        }
        message.attributes = Bytes::new();
    }
    Ok(())
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The sender's JSON text.
    pub body: Bytes,
    /// The sender's JSON object, or empty for `{}`.
    pub attributes: Bytes,
    /// Labels.
    pub tags: Vec<String>,
    /// Whence it comes, in a dead-letter stream.
    pub dead_letter: Option<DeadLetterOrigin>,
    /// Where it was made, if its producer said so.
    pub trace: Option<TraceContext>,
}

impl Message {
    /// Bytes that count against the 512 KB limit of a consume answer.
    pub(crate) fn size_bytes(&self) -> usize {
        self.body.len() + self.attributes.len() + self.tags.iter().map(String::len).sum::<usize>()
    }
}

/// Copies bodies and attributes into one buffer of their own. A decoded message is a slice of the segment that it was read with,
/// and keeps all of it in memory.
pub fn detach(messages: &mut [&mut Message]) {
    let bytes = messages.iter().map(|message| message.body.len() + message.attributes.len()).sum();
    let mut buffer = BytesMut::with_capacity(bytes);
    for message in messages.iter() {
        buffer.extend_from_slice(&message.body);
        buffer.extend_from_slice(&message.attributes);
    }
    let mut buffer = buffer.freeze();
    for message in messages {
        message.body = buffer.split_to(message.body.len());
        message.attributes = buffer.split_to(message.attributes.len());
    }
}

/// The failure that made a message a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// An ack said fail, or stood behind a failed one.
    AckFail,
    /// The lease ran out.
    LeaseExpired,
}

/// Why and whence a message became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterOrigin {
    /// The last failure.
    pub reason: DeadLetterReason,
    /// Counted deliveries.
    pub attempts: i32,
    /// The queue it was sent to.
    pub queue: QueueId,
    /// Its offset there.
    pub offset: i64,
    /// When it was appended there.
    pub appended_at: Timestamp,
}

/// The normal messages of a queue, or the dead letters of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Normal messages.
    Normal,
    /// Dead letters.
    DeadLetters,
}

/// Whose messages are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAddress {
    /// The project.
    pub project: ProjectId,
    /// The queue.
    pub queue: QueueId,
    /// The group.
    pub group: GroupId,
    /// Its normal messages or its dead letters.
    pub source: Source,
}

/// How much to consume and for how long, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// 1-10.
    pub max_messages: usize,
    /// How long to hold the call when nothing is there.
    pub wait: Duration,
    /// How long the messages are hidden from the rest of the group.
    pub lease: Duration,
    /// The label rule, for normal messages.
    pub rule: Option<LabelRule>,
}

/// A message under a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Its offset in the stream.
    pub offset: i64,
    /// When it was appended.
    pub appended_at: Timestamp,
    /// The token to acknowledge it with.
    pub handler: String,
    /// When the lease ends.
    pub(crate) lease_expires_at: Timestamp,
    /// Counted deliveries, this one included.
    pub attempt: i32,
}
