//! The state of subscriptions, as claims are planned from it.

use sqlx::PgConnection;

use super::key_columns;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
use crate::domain::labels::LabelRule;
use crate::store::row_location::RowLocation;
use crate::store::sql::{Sql, parameters, read_as, row, statements};

/// A subscription as the broker last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// Whose it is.
    pub key: SubscriptionKey,
    /// Where its row is.
    pub location: RowLocation,
    /// Moved by every claim: the compare-and-set guard.
    pub version: i64,
    /// Next offset never claimed.
    pub cursor: i64,
    /// No segment from the cursor on was appended earlier.
    pub cursor_time: Timestamp,
    /// The label rule the group is bound to.
    pub rule: Option<LabelRule>,
    /// The end of the stream when the row was read.
    pub(crate) tail: i64,
    /// Whether failed messages wait.
    pub(crate) has_retries: bool,
    /// No failed message at or before this position in the order of failures waits.
    pub retry_cursor: i64,
    /// Whether a failed message may be delivered before the next new one, where both share the deliveries.
    pub failed_next: bool,
    /// Whether a batch is in flight; only looked at for subscriptions that may have one at a time.
    pub has_leases: bool,
}

row! {
    struct StateRow {
        stream_id: i64,
        subscription_id: i64,
        location: RowLocation,
        version: i64,
        cursor_offset: i64,
        cursor_time: Timestamp,
        label_tags: Option<Vec<String>>,
        label_all: bool,
        next_offset: i64,
        has_retries: bool,
        has_leases: bool,
        retry_cursor: i64,
        failed_next: bool,
    }
}

impl From<StateRow> for SubscriptionState {
    fn from(row: StateRow) -> Self {
        Self {
            key: SubscriptionKey { stream: StreamId(row.stream_id), subscription: SubscriptionId(row.subscription_id) },
            location: row.location,
            version: row.version,
            cursor: row.cursor_offset,
            cursor_time: row.cursor_time,
            rule: row.label_tags.and_then(|tags| LabelRule::new(tags, row.label_all)),
            tail: row.next_offset,
            has_retries: row.has_retries,
            has_leases: row.has_leases,
            retry_cursor: row.retry_cursor,
            failed_next: row.failed_next,
        }
    }
}

read_as!(StateRow => SubscriptionState);

statements![READ_STATES];

parameters! {
    struct ReadStates {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        exclusive: Vec<bool>,
    }
}

// Leases are looked for on behalf of exclusive subscriptions only: of others there may be many, dead ones too.
// Looked up one by one, see `store/subscriptions/leases.rs`; of EXISTS the planner may make a hash of the whole table.
static READ_STATES: Sql<ReadStates, SubscriptionState> = Sql::new("
SELECT s.stream_id, s.subscription_id, s.location, s.version, s.cursor_offset, s.cursor_time, s.label_tags, s.label_all,
       s.retry_cursor, s.failed_next, t.next_offset,
       (SELECT true FROM retries AS r
        WHERE r.stream_id = s.stream_id AND r.subscription_id = s.subscription_id AND r.failure_id > s.retry_cursor
        LIMIT 1) IS NOT NULL AS has_retries,
       CASE WHEN k.exclusive THEN (SELECT true FROM leases AS l
        WHERE l.stream_id = s.stream_id AND l.subscription_id = s.subscription_id LIMIT 1) IS NOT NULL
            ELSE false END AS has_leases
FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $exclusive::boolean[]) AS k (stream_id, subscription_id, exclusive)
CROSS JOIN LATERAL (
    SELECT f.*, f.ctid AS location FROM subscriptions AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id
    OFFSET 0
) AS s
CROSS JOIN LATERAL (SELECT f.next_offset FROM streams AS f WHERE f.stream_id = k.stream_id OFFSET 0) AS t");

/// The state of several subscriptions at one instant, each with whether it is exclusive; one that does not exist is missing
/// in the answer.
pub async fn read_states(
    conn: &mut PgConnection,
    subscriptions: &[(SubscriptionKey, bool)],
) -> sqlx::Result<Vec<SubscriptionState>> {
    let (stream_ids, subscription_ids) = key_columns(subscriptions.iter().map(|(key, _)| key));
    let exclusive = subscriptions.iter().map(|(_, exclusive)| *exclusive).collect();
    READ_STATES.rows(ReadStates { stream_ids, subscription_ids, exclusive }).fetch_all(conn).await
}
