//! Failed messages that have expired before they were delivered again: dropped whether or not their group still consumes.

use sqlx::PgPool;

use super::key;
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::store::sql::{Sql, parameters, row, statements};

/// Failed messages dropped by one statement: their group waits no longer.
const BATCH_ROWS: i64 = 1_000;

statements![SUBSCRIPTIONS, DROP];

parameters! {
    struct Subscriptions {
        horizon: Timestamp,
        limit: i64,
    }
}

row! {
    struct SubscriptionRow {
        stream_id: i64,
        subscription_id: i64,
    }
}

/// One index step for each subscription that has failed messages, however many those are: within a stream the lowest offset is the oldest.
static SUBSCRIPTIONS: Sql<Subscriptions, SubscriptionRow> = Sql::new(
    "
WITH RECURSIVE subscription AS (
    (SELECT stream_id, subscription_id, appended_at FROM retries
     ORDER BY stream_id, subscription_id, message_offset LIMIT 1)
    UNION ALL
    SELECT next.* FROM subscription AS r CROSS JOIN LATERAL (
        SELECT f.stream_id, f.subscription_id, f.appended_at FROM retries AS f
        WHERE (f.stream_id, f.subscription_id) > (r.stream_id, r.subscription_id)
        ORDER BY f.stream_id, f.subscription_id, f.message_offset LIMIT 1
    ) AS next
)
SELECT stream_id, subscription_id FROM subscription WHERE appended_at <= $horizon LIMIT $limit",
);

parameters! {
    struct DropBatch {
        stream_id: i64,
        subscription_id: i64,
        horizon: Timestamp,
        limit: i64,
    }
}

/// The version moves with it, so that no claim planned before takes what is gone. A subscription whose row is locked is left for the next
/// round; what was left behind by one that is deleted goes too.
static DROP: Sql<DropBatch, (i64,)> = Sql::new("
WITH locked AS (
    SELECT FROM subscriptions WHERE stream_id = $stream_id AND subscription_id = $subscription_id FOR NO KEY UPDATE SKIP LOCKED
), oldest AS (
    SELECT ctid AS location, appended_at FROM retries WHERE stream_id = $stream_id AND subscription_id = $subscription_id
    ORDER BY stream_id, subscription_id, message_offset LIMIT $limit
), gone AS (
    DELETE FROM retries
    WHERE ctid = ANY (ARRAY(
              SELECT location FROM oldest WHERE appended_at <= $horizon
                AND ((SELECT count(*) FROM locked) = 1
                     OR (SELECT true FROM subscriptions WHERE stream_id = $stream_id AND subscription_id = $subscription_id) IS NULL)))
    RETURNING message_offset
), passed AS (
    UPDATE subscriptions SET skipped = skipped + (SELECT count(*) FROM gone), version = version + 1
    WHERE stream_id = $stream_id AND subscription_id = $subscription_id AND (SELECT count(*) FROM gone) > 0
)
SELECT count(*) FROM gone");

/// Subscriptions with failed messages that were appended at `horizon` or before, at most `limit`.
#[tracing::instrument(name = "failed_expiry::subscriptions", level = "debug", skip_all)]
pub async fn subscriptions(pool: &PgPool, horizon: Timestamp, limit: i64) -> sqlx::Result<Vec<SubscriptionKey>> {
    let rows = SUBSCRIPTIONS.rows(Subscriptions { horizon, limit }).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| key(row.stream_id, row.subscription_id)).collect())
}

/// Drops the failed messages of a subscription that were appended at `horizon` or before, at most a batch; says how many, and whether there may
/// be more.
#[tracing::instrument(name = "failed_expiry::drop_batch", level = "debug", skip_all)]
pub async fn drop_batch(pool: &PgPool, key: SubscriptionKey, horizon: Timestamp) -> sqlx::Result<(i64, bool)> {
    let parameters =
        DropBatch { stream_id: key.stream.0, subscription_id: key.subscription.0, horizon, limit: BATCH_ROWS };
    let dropped = DROP.scalar(parameters).fetch_one(pool).await?;
    Ok((dropped, dropped >= BATCH_ROWS))
}
