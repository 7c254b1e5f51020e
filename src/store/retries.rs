//! Failed messages of a subscription, due again at once.

use sqlx::{PgConnection, PgPool};

use super::subscriptions::key_columns;
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::domain::lease::MessageRef;

const INSERT: &str = "
INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::timestamptz[])";

/// Adds failed messages.
pub async fn insert(conn: &mut PgConnection, failed: &[(SubscriptionKey, MessageRef)]) -> sqlx::Result<()> {
    let (streams, subscriptions) = key_columns(failed.iter().map(|(key, _)| key));
    sqlx::query(INSERT)
        .bind(streams)
        .bind(subscriptions)
        .bind(failed.iter().map(|(_, message)| message.offset).collect::<Vec<_>>())
        .bind(failed.iter().map(|(_, message)| message.attempts).collect::<Vec<_>>())
        .bind(failed.iter().map(|(_, message)| message.appended_at).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

const READ: &str = "
SELECT message_offset, attempts, appended_at FROM retries
WHERE stream_id = $1 AND subscription_id = $2 ORDER BY message_offset LIMIT $3";

/// The failed messages of a subscription by offset, at most `limit`.
pub async fn read(conn: &mut PgConnection, key: SubscriptionKey, limit: i64) -> sqlx::Result<Vec<MessageRef>> {
    let rows: Vec<(i64, i32, Timestamp)> =
        sqlx::query_as(READ).bind(key.stream.0).bind(key.subscription.0).bind(limit).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(offset, attempts, appended_at)| MessageRef { offset, attempts, appended_at }).collect())
}

// The version moves with it, so that no claim planned before takes what is gone.
const DROP_EXPIRED: &str = "
WITH readers AS (
    SELECT s.stream_id, s.subscription_id FROM subscriptions AS s
    WHERE EXISTS (SELECT FROM retries AS r WHERE r.stream_id = s.stream_id AND r.subscription_id = s.subscription_id
                  AND r.appended_at <= $1)
    ORDER BY s.stream_id, s.subscription_id
    FOR NO KEY UPDATE
), gone AS (
    DELETE FROM retries AS r USING readers AS s
    WHERE r.stream_id = s.stream_id AND r.subscription_id = s.subscription_id AND r.appended_at <= $1
    RETURNING r.stream_id, r.subscription_id
), counted AS (
    SELECT stream_id, subscription_id, count(*) AS messages FROM gone GROUP BY stream_id, subscription_id
), passed AS (
    UPDATE subscriptions AS s SET skipped = s.skipped + c.messages, version = s.version + 1
    FROM counted AS c WHERE s.stream_id = c.stream_id AND s.subscription_id = c.subscription_id
    RETURNING c.messages
)
SELECT coalesce(sum(messages), 0)::bigint FROM passed";

/// Drops failed messages that were appended at `horizon` or before, whether or not their group still consumes; says how many.
#[tracing::instrument(name = "retries::drop_expired", level = "debug", skip_all)]
pub async fn drop_expired(pool: &PgPool, horizon: Timestamp) -> sqlx::Result<i64> {
    sqlx::query_scalar(DROP_EXPIRED).bind(horizon).fetch_one(pool).await
}
