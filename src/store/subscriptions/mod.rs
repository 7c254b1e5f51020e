//! Readers of streams: their state, their label rule, their row locks.

pub mod claims;
pub mod failed_expiry;
pub mod leases;
pub mod locks;
pub mod retries;
pub(crate) mod settlement;

use sqlx::PgConnection;

use crate::domain::clock::Timestamp;
use crate::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
use crate::domain::labels::LabelRule;
use crate::domain::lease::SubscriptionState;
use crate::domain::place::Place;
use crate::store::sql::{Sql, Statement, parameters, read_as, row, statements};

pub(in crate::store) fn all_statements() -> Vec<Statement> {
    [
        statements(),
        claims::statements(),
        failed_expiry::statements(),
        leases::statements(),
        locks::statements(),
        retries::statements(),
    ]
    .concat()
}

/// Splits keys into the two arrays that `unnest` joins again.
pub(in crate::store) fn key_columns<'a>(keys: impl Iterator<Item = &'a SubscriptionKey>) -> (Vec<i64>, Vec<i64>) {
    keys.map(|key| (key.stream.0, key.subscription.0)).unzip()
}

row! {
    struct StateRow {
        stream_id: i64,
        subscription_id: i64,
        place: Place,
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
            place: row.place,
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

statements![READ_STATES, BIND_RULE, ADD_SKIPPED, LOCK];

parameters! {
    struct ReadStates {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        exclusive: Vec<bool>,
    }
}

// Leases are looked for on behalf of exclusive readers only: of others there may be many, dead ones too.
// Looked up one by one, see `store/subscriptions/leases.rs`; of EXISTS the planner may make a hash of the whole table.
static READ_STATES: Sql<ReadStates, SubscriptionState> = Sql::new("
SELECT s.stream_id, s.subscription_id, s.place, s.version, s.cursor_offset, s.cursor_time, s.label_tags, s.label_all,
       s.retry_cursor, s.failed_next, t.next_offset,
       (SELECT true FROM retries AS r
        WHERE r.stream_id = s.stream_id AND r.subscription_id = s.subscription_id AND r.failure_id > s.retry_cursor
        LIMIT 1) IS NOT NULL AS has_retries,
       CASE WHEN k.exclusive THEN (SELECT true FROM leases AS l
        WHERE l.stream_id = s.stream_id AND l.subscription_id = s.subscription_id LIMIT 1) IS NOT NULL
            ELSE false END AS has_leases
FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $exclusive::boolean[]) AS k (stream_id, subscription_id, exclusive)
CROSS JOIN LATERAL (
    SELECT f.*, f.ctid AS place FROM subscriptions AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id
    OFFSET 0
) AS s
CROSS JOIN LATERAL (SELECT f.next_offset FROM streams AS f WHERE f.stream_id = k.stream_id OFFSET 0) AS t");

/// The state of several subscriptions at one instant, each with whether it is exclusive; one that does not exist is missing
/// in the answer.
pub async fn read_states(
    conn: &mut PgConnection,
    readers: &[(SubscriptionKey, bool)],
) -> sqlx::Result<Vec<SubscriptionState>> {
    let (stream_ids, subscription_ids) = key_columns(readers.iter().map(|(key, _)| key));
    let exclusive = readers.iter().map(|(_, exclusive)| *exclusive).collect();
    READ_STATES.rows(ReadStates { stream_ids, subscription_ids, exclusive }).fetch_all(conn).await
}

parameters! {
    struct BindRule<'a> {
        stream_id: i64,
        subscription_id: i64,
        label_tags: &'a [String],
        label_all: bool,
    }
}

static BIND_RULE: Sql<BindRule<'static>, ()> = Sql::new(
    "
UPDATE subscriptions SET label_tags = $label_tags, label_all = $label_all, version = version + 1
WHERE stream_id = $stream_id AND subscription_id = $subscription_id AND label_tags IS NULL",
);

/// Binds a subscription to a label rule, unless it has one.
pub(crate) async fn bind_rule(conn: &mut PgConnection, key: SubscriptionKey, rule: &LabelRule) -> sqlx::Result<()> {
    let parameters = BindRule {
        stream_id: key.stream.0,
        subscription_id: key.subscription.0,
        label_tags: rule.labels(),
        label_all: rule.all(),
    };
    BIND_RULE.run(parameters).execute(conn).await?;
    Ok(())
}

/// The key of a row.
pub(in crate::store) fn key(stream: i64, subscription: i64) -> SubscriptionKey {
    SubscriptionKey { stream: StreamId(stream), subscription: SubscriptionId(subscription) }
}

/// 1-based bounds of parts of a flat array, both included, by the lengths of the parts.
pub(super) fn slice_bounds(lengths: impl Iterator<Item = usize>) -> (Vec<i32>, Vec<i32>) {
    let mut end = 0;
    lengths
        .map(|length| {
            let first = end + 1;
            end += i32::try_from(length).unwrap_or(i32::MAX);
            (first, end)
        })
        .unzip()
}

parameters! {
    struct AddSkipped {
        stream_id: i64,
        subscription_id: i64,
        count: i64,
    }
}

static ADD_SKIPPED: Sql<AddSkipped, ()> = Sql::new(
    "UPDATE subscriptions SET skipped = skipped + $count WHERE stream_id = $stream_id AND subscription_id = $subscription_id",
);

/// Counts offsets that left a subscription without success. Takes its row lock: call it before leases are locked.
pub(crate) async fn add_skipped(conn: &mut PgConnection, key: SubscriptionKey, count: i64) -> sqlx::Result<()> {
    let parameters = AddSkipped { stream_id: key.stream.0, subscription_id: key.subscription.0, count };
    ADD_SKIPPED.run(parameters).execute(conn).await?;
    Ok(())
}

parameters! {
    struct Lock {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
    }
}

static LOCK: Sql<Lock, ()> = Sql::new("
SELECT
FROM (SELECT * FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[]) AS k (stream_id, subscription_id) ORDER BY 1, 2) AS k
CROSS JOIN LATERAL (
    SELECT FROM subscriptions AS f WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id
    FOR NO KEY UPDATE
) AS s");

/// Locks subscriptions in key order, to settle what failed in them.
pub async fn lock(conn: &mut PgConnection, keys: &[SubscriptionKey]) -> sqlx::Result<()> {
    let (stream_ids, subscription_ids) = key_columns(keys.iter());
    LOCK.run(Lock { stream_ids, subscription_ids }).execute(conn).await?;
    Ok(())
}
