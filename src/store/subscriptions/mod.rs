//! Subscriptions to streams: their state, their label rule, their row locks.

pub mod claims;
pub mod failed_expiry;
pub mod leases;
pub mod locks;
pub mod retries;
pub(crate) mod settlement;
mod state;

pub use self::state::{SubscriptionState, read_states};

use sqlx::PgConnection;

use crate::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
use crate::domain::labels::LabelRule;
use crate::store::sql::{Sql, Statement, parameters, statements};

pub(in crate::store) fn all_statements() -> Vec<Statement> {
    [
        statements(),
        claims::statements(),
        failed_expiry::statements(),
        leases::statements(),
        locks::statements(),
        retries::statements(),
        state::statements(),
    ]
    .concat()
}

/// Splits keys into the two arrays that `unnest` joins again.
pub(in crate::store) fn key_columns<'a>(keys: impl Iterator<Item = &'a SubscriptionKey>) -> (Vec<i64>, Vec<i64>) {
    keys.map(|key| (key.stream.0, key.subscription.0)).unzip()
}

statements![BIND_RULE, ADD_SKIPPED, LOCK];

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
