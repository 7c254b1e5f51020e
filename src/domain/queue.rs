//! Queues and consumer groups: their modes, policies and name rules.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::clock::Timestamp;
use super::counters::GroupCounters;
use super::error::{Error, ErrorKind, Result};
use super::ids::{GroupId, ProjectId, QueueId, StreamId, SubscriptionId};
use super::labels::LabelRule;
use super::limits::{
    DESCRIPTION_CHARS_MAX, GROUP_NAME_CHARS, GROUPS_PER_QUEUE_MAX, MAX_CONSUME_COUNT, QUEUE_NAME_CHARS,
    RETENTION_HOURS, RETENTION_HOURS_DEFAULT, retention,
};
use super::text;

/// How a queue orders and keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueMode {
    /// Parallel consumers.
    Normal,
    /// Strict order per group.
    Fifo,
    /// Kafka-style, flushed.
    KafkaHa,
    /// Kafka-style, flushed later.
    KafkaHt,
}

impl QueueMode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Fifo, Self::KafkaHa, Self::KafkaHt];

    /// The documented name, also stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Fifo => "FIFO",
            Self::KafkaHa => "KAFKA_HA",
            Self::KafkaHt => "KAFKA_HT",
        }
    }

    /// The mode with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }

    /// Kafka queues have a retention of their own, and no dead letters, delays or attributes.
    pub const fn is_kafka(self) -> bool {
        matches!(self, Self::KafkaHa | Self::KafkaHt)
    }
}

/// A queue to create, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewQueue {
    /// 1-64 plain characters.
    pub name: String,
    /// Its mode.
    pub mode: QueueMode,
    /// At most 160 characters.
    pub description: String,
    /// Counted deliveries before a dead letter; `None` when redrive is disabled.
    pub max_consume_count: Option<i32>,
    /// Hours a message is kept.
    pub retention_hours: i32,
}

/// The fields of a create request as they came.
#[derive(Debug, Clone, Default)]
pub struct QueueDraft<'a> {
    /// Name.
    pub name: &'a str,
    /// Mode, NORMAL when absent.
    pub mode: Option<QueueMode>,
    /// Description.
    pub description: &'a str,
    /// Whether redrive was asked for.
    pub redrive: bool,
    /// Needed with redrive.
    pub max_consume_count: Option<i32>,
    /// Kafka only.
    pub retention_hours: Option<i32>,
}

impl NewQueue {
    /// Checks every rule of section 1.1 of the contract.
    pub fn parse(draft: &QueueDraft<'_>) -> Result<Self> {
        let mode = draft.mode.unwrap_or(QueueMode::Normal);
        Ok(Self {
            name: name("name", draft.name, QUEUE_NAME_CHARS, ErrorKind::QueueNameLength)?,
            mode,
            description: description(draft.description)?,
            max_consume_count: max_consume_count(draft, mode)?,
            retention_hours: retention_hours(draft, mode)?,
        })
    }
}

fn description(value: &str) -> Result<String> {
    if value.chars().count() > DESCRIPTION_CHARS_MAX {
        let allowed = "at most 160 characters";
        return Err(Error::field(ErrorKind::DescriptionLength, "description", value, allowed));
    }
    if value.contains(['<', '>', '\0']) {
        let allowed = "text without < and > and NUL";
        return Err(Error::field(ErrorKind::DescriptionCharacters, "description", value, allowed));
    }
    Ok(value.to_owned())
}

fn max_consume_count(draft: &QueueDraft<'_>, mode: QueueMode) -> Result<Option<i32>> {
    if mode.is_kafka() || !draft.redrive {
        return Ok(None);
    }
    let field = "max_consume_count";
    let allowed = "an integer from 1 to 100";
    match draft.max_consume_count {
        None => Err(Error::missing(ErrorKind::MaxConsumeCount, field, allowed)),
        Some(count) if MAX_CONSUME_COUNT.contains(&count) => Ok(Some(count)),
        Some(count) => Err(Error::field(ErrorKind::MaxConsumeCount, field, count, allowed)),
    }
}

fn retention_hours(draft: &QueueDraft<'_>, mode: QueueMode) -> Result<i32> {
    let field = "retention_hours";
    match draft.retention_hours {
        None => Ok(RETENTION_HOURS_DEFAULT),
        Some(hours) if !mode.is_kafka() => {
            Err(Error::field(ErrorKind::RetentionNotKafka, field, hours, "allowed for NORMAL and FIFO queues"))
        }
        Some(hours) if RETENTION_HOURS.contains(&hours) => Ok(hours),
        Some(hours) => Err(Error::field(ErrorKind::RetentionHours, field, hours, "an integer from 1 to 72")),
    }
}

/// Checks how many groups are created at a time: 1-100. How many more a queue may have is known to whoever knows the queue.
pub(crate) fn check_group_count(field: &str, count: usize) -> Result<()> {
    match usize::try_from(GROUPS_PER_QUEUE_MAX) {
        Ok(max) if count > max => {
            Err(Error::field(ErrorKind::TooManyGroups, field, format!("{count} names"), &format!("1-{max} names")))
        }
        _ if count == 0 => Err(Error::missing(ErrorKind::RequestFormat, field, "at least one group name")),
        _ => Ok(()),
    }
}

/// Checks a consumer group name; `field` is its place in the request.
pub(crate) fn group_name(field: &str, value: &str) -> Result<String> {
    name(field, value, GROUP_NAME_CHARS, ErrorKind::GroupNameLength)
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its id.
    pub id: QueueId,
    /// Its project.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its mode.
    pub mode: QueueMode,
    /// Counted deliveries before a dead letter; `None` when redrive is disabled.
    pub max_consume_count: Option<i32>,
    /// Hours a message is kept.
    pub retention_hours: i32,
    /// When it was created.
    pub created_at: Timestamp,
    /// The stream of its normal messages.
    pub stream: StreamId,
}

impl Queue {
    /// How long a message is kept.
    pub fn retention(&self) -> Duration {
        retention(self.retention_hours)
    }

    /// The topic that DMS shows for Kafka queues.
    pub fn kafka_topic(&self) -> Option<String> {
        self.mode.is_kafka().then(|| format!("k-{}-{}", self.project, self.id))
    }
}

/// A queue with what its list entry shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSummary {
    /// The queue.
    pub queue: Queue,
    /// Messages in it, expired ones excluded.
    pub produced: i64,
    /// Its groups.
    pub group_count: i32,
}

/// A group with what its list entry shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupSummary {
    /// The group.
    pub group: Group,
    /// The label rule that it is bound to.
    pub rule: Option<LabelRule>,
    /// Messages that the rule has passed over.
    pub passed_over: i64,
    /// Only when they were asked for.
    pub counters: Option<GroupCounters>,
}

impl From<Group> for GroupSummary {
    fn from(group: Group) -> Self {
        Self { group, rule: None, passed_over: 0, counters: None }
    }
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its queue.
    pub queue: QueueId,
    /// Its name.
    pub name: String,
    /// Its subscription, on the queue's stream and on its own dead-letter stream alike.
    pub subscription: SubscriptionId,
    /// The stream of its dead letters; none when redrive is disabled.
    pub dead_letters: Option<StreamId>,
}
/// A name of `A-Z a-z 0-9 _ -` whose length is in range; the length has its own error code.
fn name(field: &str, value: &str, chars: RangeInclusive<usize>, length_kind: ErrorKind) -> Result<String> {
    let (min, max) = (chars.start(), chars.end());
    if !chars.contains(&value.chars().count()) {
        return Err(Error::field(length_kind, field, value, &format!("{min}-{max} characters of A-Z a-z 0-9 _ -")));
    }
    if !text::is_plain(value) {
        let allowed = format!("{min}-{max} characters of A-Z a-z 0-9 _ -");
        return Err(Error::field(ErrorKind::NameCharacters, field, value, &allowed));
    }
    Ok(value.to_owned())
}
