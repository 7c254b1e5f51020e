//! Queues, groups and quotas in JSON.

use dms_client::v1 as pb;
use prost_types::Timestamp;
use serde::Serialize;

/// A queue just created.
#[derive(Serialize)]
pub(crate) struct CreatedQueue<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    kafka_topic: &'a str,
}

impl<'a> CreatedQueue<'a> {
    /// With its redrive policy if the caller may believe in another one.
    pub(crate) fn new(queue: &'a pb::Queue, with_redrive_policy: bool) -> Self {
        let redrive_policy = redrive_policy(queue).filter(|_| with_redrive_policy);
        Self { id: &queue.id, name: &queue.name, redrive_policy, kafka_topic: &queue.kafka_topic }
    }
}

/// A queue in a list, or shown alone.
#[derive(Serialize)]
pub(crate) struct Queue<'a> {
    id: &'a str,
    name: &'a str,
    description: &'a str,
    queue_mode: &'static str,
    reservation: i32,
    created: i64,
    eff_date: i64,
    max_msg_size_byte: i32,
    produced_messages: i64,
    group_count: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_consume_count: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_topic: Option<&'a str>,
}

impl<'a> Queue<'a> {
    /// A list entry; `include_deadletter` adds the redrive fields.
    pub(crate) fn listed(queue: &'a pb::Queue, include_deadletter: bool) -> Self {
        let created = queue.create_time.as_ref().map_or(0, millis);
        let redrive_policy = redrive_policy(queue).filter(|_| include_deadletter);
        Self {
            id: &queue.id,
            name: &queue.name,
            description: &queue.description,
            queue_mode: mode_name(queue.queue_mode()),
            reservation: queue.reservation_minutes,
            created,
            eff_date: created,
            max_msg_size_byte: queue.max_message_bytes,
            produced_messages: queue.produced_messages,
            group_count: queue.group_count,
            redrive_policy,
            max_consume_count: redrive_policy.is_some_and(|policy| policy == ENABLE).then_some(queue.max_consume_count),
            kafka_topic: None,
        }
    }

    /// A queue shown alone; the topic of a Kafka queue is only here.
    pub(crate) fn shown(queue: &'a pb::Queue, include_deadletter: bool) -> Self {
        let kafka_topic = Some(queue.kafka_topic.as_str()).filter(|topic| !topic.is_empty());
        Self { kafka_topic, ..Self::listed(queue, include_deadletter) }
    }
}

/// All queues of a project.
#[derive(Serialize)]
pub(crate) struct Queues<'a> {
    queues: Vec<Queue<'a>>,
    total: usize,
}

impl<'a> Queues<'a> {
    /// The list and its length.
    pub(crate) fn new(queues: &'a [pb::Queue], include_deadletter: bool) -> Self {
        let list = queues.iter().map(|queue| Queue::listed(queue, include_deadletter));
        Self { queues: list.collect(), total: queues.len() }
    }
}

/// Groups just created.
#[derive(Serialize)]
pub(crate) struct CreatedGroups<'a> {
    groups: Vec<CreatedGroup<'a>>,
}

#[derive(Serialize)]
struct CreatedGroup<'a> {
    id: &'a str,
    name: &'a str,
}

impl<'a> From<&'a [pb::ConsumerGroup]> for CreatedGroups<'a> {
    fn from(groups: &'a [pb::ConsumerGroup]) -> Self {
        Self { groups: groups.iter().map(|group| CreatedGroup { id: &group.id, name: &group.name }).collect() }
    }
}

/// The groups of a queue.
#[derive(Serialize)]
pub(crate) struct QueueGroups<'a> {
    queue_id: &'a str,
    queue_name: &'a str,
    groups: Vec<Group<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_policy: Option<&'static str>,
}

impl<'a> QueueGroups<'a> {
    /// `include_deadletter` adds the redrive policy and the dead-letter counters, where there are dead letters at all.
    pub(crate) fn new(queue: &'a pb::Queue, groups: &'a [pb::ConsumerGroup], include_deadletter: bool) -> Self {
        let redrive_policy = redrive_policy(queue).filter(|_| include_deadletter);
        let groups = groups.iter().map(|group| Group::new(group, redrive_policy.is_some())).collect();
        Self { queue_id: &queue.id, queue_name: &queue.name, groups, redrive_policy }
    }
}

/// A group of a list. Counters that were not asked for are 0.
#[derive(Serialize)]
struct Group<'a> {
    id: &'a str,
    name: &'a str,
    produced_messages: i64,
    consumed_messages: i64,
    available_messages: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    produced_deadletters: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_deadletters: Option<i64>,
    /// The documented entry knows nothing of label rules, so these are there only for a group that is bound to one.
    #[serde(flatten)]
    label_rule: Option<LabelRule<'a>>,
}

/// In the words that a retrieval asks for it.
#[derive(Serialize)]
struct LabelRule<'a> {
    tag: &'a [String],
    tag_type: &'static str,
    passed_over_messages: i64,
}

impl<'a> LabelRule<'a> {
    fn of(group: &'a pb::ConsumerGroup) -> Option<Self> {
        let rule = group.label_rule.as_ref()?;
        let tag_type = if rule.tag_match() == pb::TagMatch::All { "and" } else { "or" };
        Some(Self { tag: &rule.tags, tag_type, passed_over_messages: group.passed_over_messages })
    }
}

impl<'a> Group<'a> {
    fn new(group: &'a pb::ConsumerGroup, dead_letters: bool) -> Self {
        let counters = group.counters.unwrap_or_default();
        Self {
            id: &group.id,
            name: &group.name,
            produced_messages: counters.produced_messages,
            consumed_messages: counters.consumed_messages,
            available_messages: counters.available_messages,
            produced_deadletters: dead_letters.then_some(counters.produced_dead_letters),
            available_deadletters: dead_letters.then_some(counters.available_dead_letters),
            label_rule: LabelRule::of(group),
        }
    }
}

/// The quotas of a project.
#[derive(Serialize)]
pub(crate) struct Quotas<'a> {
    quotas: Resources<'a>,
}

#[derive(Serialize)]
struct Resources<'a> {
    resources: Vec<Quota<'a>>,
}

#[derive(Serialize)]
struct Quota<'a> {
    r#type: &'a str,
    quota: i32,
    used: i32,
    min: i32,
    max: i32,
}

impl<'a> From<&'a [pb::Quota]> for Quotas<'a> {
    fn from(quotas: &'a [pb::Quota]) -> Self {
        let row = |row: &'a pb::Quota| Quota {
            r#type: &row.r#type,
            quota: row.quota,
            used: row.used,
            min: row.min,
            max: row.max,
        };
        Self { quotas: Resources { resources: quotas.iter().map(row).collect() } }
    }
}

const ENABLE: &str = "enable";

/// `None` for Kafka queues, which have no dead letters.
fn redrive_policy(queue: &pb::Queue) -> Option<&'static str> {
    match queue.redrive_policy() {
        pb::RedrivePolicy::Enable => Some(ENABLE),
        pb::RedrivePolicy::Disable => Some("disable"),
        pb::RedrivePolicy::Unspecified => None,
    }
}

fn mode_name(mode: pb::QueueMode) -> &'static str {
    match mode {
        pb::QueueMode::Unspecified | pb::QueueMode::Normal => "NORMAL",
        pb::QueueMode::Fifo => "FIFO",
        pb::QueueMode::KafkaHa => "KAFKA_HA",
        pb::QueueMode::KafkaHt => "KAFKA_HT",
    }
}

fn millis(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}
