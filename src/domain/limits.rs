//! Every documented number of the DMS contract, unit last.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Characters of a queue name.
pub(crate) const QUEUE_NAME_CHARS: RangeInclusive<usize> = 1..=64;
/// Characters of a consumer group name.
pub(crate) const GROUP_NAME_CHARS: RangeInclusive<usize> = 1..=32;
/// Characters of a project id.
pub(crate) const PROJECT_ID_CHARS: RangeInclusive<usize> = 1..=64;
/// Characters of a queue description.
pub(crate) const DESCRIPTION_CHARS_MAX: usize = 160;
/// Counted deliveries before a message becomes a dead letter.
pub(crate) const MAX_CONSUME_COUNT: RangeInclusive<i32> = 1..=100;
/// Retention of Kafka queues, hours.
pub(crate) const RETENTION_HOURS: RangeInclusive<i32> = 1..=72;
/// Retention of NORMAL and FIFO queues, of dead letters, and the default of Kafka queues.
pub(crate) const RETENTION_HOURS_DEFAULT: i32 = 72;
/// The same as a duration: nothing is kept longer.
pub(crate) const RETENTION_DEFAULT: Duration = retention(RETENTION_HOURS_DEFAULT);

/// How long a message is kept.
pub(crate) const fn retention(hours: i32) -> Duration {
    Duration::from_secs(hours.unsigned_abs() as u64 * 3600)
}
/// Messages in one send.
pub(crate) const SEND_MESSAGES: RangeInclusive<usize> = 1..=10;
/// Bodies, attributes and labels of one message, of one send, of one consume answer, bytes.
pub(crate) const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Labels of one message, and of one label rule.
pub(crate) const LABELS_MAX: usize = 3;
/// Characters of a label.
pub(crate) const LABEL_CHARS: RangeInclusive<usize> = 1..=64;
/// Delay of a message, milliseconds (7 days).
pub(crate) const DELAY_MILLIS: RangeInclusive<i64> = 0..=604_800_000;
/// Messages in one consume answer.
pub(crate) const CONSUME_MESSAGES: RangeInclusive<i32> = 1..=10;
/// Messages in one consume answer when nothing is said.
pub(crate) const CONSUME_MESSAGES_DEFAULT: i32 = 10;
/// Long poll, seconds.
pub(crate) const WAIT_SECONDS: RangeInclusive<i64> = 1..=60;
/// Long poll when nothing is said.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(3);
/// Lease, seconds.
pub(crate) const LEASE_SECONDS: RangeInclusive<i64> = 15..=300;
/// Lease when nothing is said.
pub(crate) const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// Entries in one acknowledgement. DMS names no number; ours keeps one call bounded.
pub(crate) const ACK_ENTRIES: RangeInclusive<usize> = 1..=1000;
/// Queues of a project, unless configured.
pub(crate) const QUEUES_PER_PROJECT_DEFAULT: i32 = 30;
/// The largest queue quota an operator may set.
pub(crate) const QUEUES_PER_PROJECT_MAX: i32 = 100_000;
/// Groups of a queue, unless configured.
pub(crate) const GROUPS_PER_QUEUE_DEFAULT: i32 = 3;
/// The largest group quota an operator may set.
pub(crate) const GROUPS_PER_QUEUE_MAX: i32 = 100;
/// Tags of a queue.
pub(crate) const QUEUE_TAGS_MAX: usize = 10;
/// Characters of a tag key.
pub(crate) const TAG_KEY_CHARS: RangeInclusive<usize> = 1..=36;
/// Characters of a tag value.
pub(crate) const TAG_VALUE_CHARS_MAX: usize = 43;
/// Keys in one list of a search, and values of one key.
pub(crate) const SEARCH_KEYS_MAX: usize = 10;
/// Characters of a key in a search.
pub(crate) const SEARCH_KEY_CHARS_MAX: usize = 127;
/// Characters of a value in a search.
pub(crate) const SEARCH_VALUE_CHARS_MAX: usize = 255;
/// Items on one page of a list, where pages are asked for.
pub(crate) const PAGE_SIZE: RangeInclusive<usize> = 1..=1000;
/// Queues in one search answer.
pub(crate) const SEARCH_LIMIT: RangeInclusive<i32> = 1..=1000;
/// Queues in one search answer when nothing is said.
pub(crate) const SEARCH_LIMIT_DEFAULT: i32 = 1000;
