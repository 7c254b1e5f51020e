//! Queues, consumer groups and quotas.

use dms_client::v1 as pb;

use super::timestamp;
use crate::domain::counters::{GroupCounters, QueueQuota};
use crate::domain::labels::LabelRule;
use crate::domain::limits::BATCH_BYTES_MAX;
use crate::domain::page::{GroupPage, ListPage};
use crate::domain::queue::{self, GroupSummary, NewQueue, Queue, QueueDraft, QueueMode, QueueSummary};
use crate::domain::{Error, ErrorKind, Result};

const QUOTA_TYPE: &str = "queue";
/// The documented ends of what an operator may set; a larger quota moves the upper one.
const QUOTA_MIN: i32 = 0;
const QUOTA_MAX: i32 = 500;

/// Checks a queue to create.
pub(crate) fn create(request: &pb::CreateQueueRequest) -> Result<NewQueue> {
    let draft = QueueDraft {
        name: &request.name,
        mode: mode(request.queue_mode)?,
        description: &request.description,
        redrive: redrive(request.redrive_policy)?,
        max_consume_count: request.max_consume_count,
        retention_hours: request.retention_hours,
    };
    NewQueue::parse(&draft)
}

fn mode(given: i32) -> Result<Option<QueueMode>> {
    let allowed = "NORMAL, FIFO, KAFKA_HA or KAFKA_HT";
    match pb::QueueMode::try_from(given) {
        Ok(pb::QueueMode::Unspecified) => Ok(None),
        Ok(pb::QueueMode::Normal) => Ok(Some(QueueMode::Normal)),
        Ok(pb::QueueMode::Fifo) => Ok(Some(QueueMode::Fifo)),
        Ok(pb::QueueMode::KafkaHa) => Ok(Some(QueueMode::KafkaHa)),
        Ok(pb::QueueMode::KafkaHt) => Ok(Some(QueueMode::KafkaHt)),
        Err(_) => Err(Error::field(ErrorKind::RequestFormat, "queue_mode", given, allowed)),
    }
}

fn redrive(given: i32) -> Result<bool> {
    match pb::RedrivePolicy::try_from(given) {
        Ok(policy) => Ok(policy == pb::RedrivePolicy::Enable),
        Err(_) => Err(Error::field(ErrorKind::RequestFormat, "redrive_policy", given, "ENABLE or DISABLE")),
    }
}

const fn pb_mode(mode: QueueMode) -> pb::QueueMode {
    match mode {
        QueueMode::Normal => pb::QueueMode::Normal,
        QueueMode::Fifo => pb::QueueMode::Fifo,
        QueueMode::KafkaHa => pb::QueueMode::KafkaHa,
        QueueMode::KafkaHt => pb::QueueMode::KafkaHt,
    }
}

const fn pb_redrive(queue: &Queue) -> pb::RedrivePolicy {
    match (queue.mode.is_kafka(), queue.max_consume_count) {
        (true, _) => pb::RedrivePolicy::Unspecified,
        (false, Some(_)) => pb::RedrivePolicy::Enable,
        (false, None) => pb::RedrivePolicy::Disable,
    }
}

/// A queue without counters.
pub(crate) fn queue(queue: Queue) -> pb::Queue {
    pb::Queue {
        id: queue.id.to_string(),
        kafka_topic: queue.kafka_topic().unwrap_or_default(),
        queue_mode: pb_mode(queue.mode).into(),
        redrive_policy: pb_redrive(&queue).into(),
        max_consume_count: queue.max_consume_count.unwrap_or_default(),
        reservation_minutes: queue.retention_hours * 60,
        create_time: timestamp(queue.created_at),
        max_message_bytes: super::count(BATCH_BYTES_MAX),
        name: queue.name,
        description: queue.description,
        ..pb::Queue::default()
    }
}

/// A queue with counters.
pub(crate) fn summary(summary: QueueSummary) -> pb::Queue {
    pb::Queue { produced_messages: summary.produced, group_count: summary.group_count, ..queue(summary.queue) }
}

/// Checks the names of groups to create; how many a queue may have is the broker's to know.
pub(crate) fn group_names(names: &[String]) -> Result<Vec<String>> {
    queue::check_group_count("names", names.len())?;
    names.iter().enumerate().map(|(index, name)| queue::group_name(&format!("names[{index}]"), name)).collect()
}

/// A group.
pub(crate) fn group(summary: GroupSummary) -> pb::ConsumerGroup {
    let GroupSummary { group, rule, passed_over, counters } = summary;
    pb::ConsumerGroup {
        id: group.id.to_string(),
        name: group.name,
        counters: counters.map(group_counters),
        label_rule: rule.map(label_rule),
        passed_over_messages: passed_over,
    }
}

fn label_rule(rule: LabelRule) -> pb::LabelRule {
    let tag_match = if rule.all() { pb::TagMatch::All } else { pb::TagMatch::Any };
    pb::LabelRule { tags: rule.labels().to_vec(), tag_match: tag_match.into() }
}

fn group_counters(counters: GroupCounters) -> pb::GroupCounters {
    pb::GroupCounters {
        produced_messages: counters.produced,
        consumed_messages: counters.consumed,
        available_messages: counters.available,
        produced_dead_letters: counters.produced_dead_letters,
        available_dead_letters: counters.available_dead_letters,
    }
}

/// Checks which page of the groups of a queue is wanted: a numbered one, as DMS has it, or the one behind a token.
pub(crate) fn group_page(request: &pb::ListConsumerGroupsRequest) -> Result<GroupPage> {
    match request.current_page {
        None => ListPage::parse(&request.queue_id, request.page_size, &request.page_token).map(GroupPage::After),
        Some(number) if request.page_token.is_empty() => Ok(GroupPage::numbered(request.page_size, number)),
        Some(_) => {
            let message = "page_token: not together with current_page; give one of them";
            Err(Error::new(ErrorKind::SearchOffset, message).about("page_token"))
        }
    }
}

/// The quota of queues.
pub(crate) fn quota(quota: QueueQuota) -> pb::Quota {
    let QueueQuota { quota, used } = quota;
    pb::Quota { r#type: QUOTA_TYPE.into(), quota, used, min: QUOTA_MIN, max: QUOTA_MAX.max(quota) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::domain::ids::{ProjectId, QueueId, StreamId};

    fn create_with(change: impl FnOnce(&mut pb::CreateQueueRequest)) -> Result<NewQueue> {
        let mut request =
            pb::CreateQueueRequest { project_id: "p".into(), name: "q".into(), ..pb::CreateQueueRequest::default() };
        change(&mut request);
        create(&request)
    }

    fn refusal(change: impl FnOnce(&mut pb::CreateQueueRequest)) -> Option<ErrorKind> {
        create_with(change).err().map(|error| error.kind())
    }

    #[test]
    fn a_name_is_enough() {
        let new = create_with(|_| ()).unwrap();
        assert_eq!((new.mode, new.max_consume_count, new.retention_hours), (QueueMode::Normal, None, 72));
    }

    #[test]
    fn unknown_numbers_are_refused() {
        assert_eq!(refusal(|request| request.queue_mode = 5), Some(ErrorKind::RequestFormat));
        assert_eq!(refusal(|request| request.redrive_policy = -1), Some(ErrorKind::RequestFormat));
        assert_eq!(refusal(|request| request.redrive_policy = 1), Some(ErrorKind::MaxConsumeCount));
        assert_eq!(refusal(|request| request.retention_hours = Some(1)), Some(ErrorKind::RetentionNotKafka));
        assert_eq!(refusal(|request| request.description = "a\0".into()), Some(ErrorKind::DescriptionCharacters));
    }

    fn stored(mode: QueueMode, max_consume_count: Option<i32>) -> Queue {
        Queue {
            id: QueueId(Uuid::nil()),
            project: ProjectId::parse("p").unwrap(),
            name: "q".into(),
            description: String::new(),
            mode,
            max_consume_count,
            retention_hours: 36,
            created_at: Timestamp(0),
            stream: StreamId(1),
        }
    }

    #[test]
    fn queues_show_what_their_mode_has() {
        let redrive = |mode, count| queue(stored(mode, count)).redrive_policy();
        assert_eq!(redrive(QueueMode::Normal, Some(3)), pb::RedrivePolicy::Enable);
        assert_eq!(redrive(QueueMode::Fifo, None), pb::RedrivePolicy::Disable);
        assert_eq!(redrive(QueueMode::KafkaHa, None), pb::RedrivePolicy::Unspecified);
        let kafka = queue(stored(QueueMode::KafkaHt, None));
        assert_eq!((kafka.reservation_minutes, kafka.max_message_bytes), (2160, 524_288));
        assert_eq!(kafka.kafka_topic, "k-p-00000000-0000-0000-0000-000000000000");
        assert_eq!(queue(stored(QueueMode::Normal, None)).kafka_topic, "");
    }

    #[test]
    fn a_page_is_behind_a_token_or_has_a_number() {
        let page = |current_page, page_token: &str| {
            let page_token = page_token.to_owned();
            let request =
                pb::ListConsumerGroupsRequest { page_size: Some(2), current_page, page_token, ..Default::default() };
            group_page(&request).map_err(|error| (error.kind(), error.field_name().map(str::to_owned)))
        };
        let refused = Err((ErrorKind::SearchOffset, Some("page_token".to_owned())));
        assert_eq!(page(Some(3), ""), Ok(GroupPage::Numbered(2, 3)));
        assert!(matches!(page(None, ""), Ok(GroupPage::After(_))));
        assert_eq!((page(Some(1), "x"), page(None, "x")), (refused.clone(), refused));
    }

    #[test]
    fn a_large_quota_moves_its_maximum() {
        assert_eq!(quota(QueueQuota { quota: 30, used: 5 }).max, 500);
        assert_eq!(quota(QueueQuota { quota: 900, used: 5 }).max, 900);
    }
}
