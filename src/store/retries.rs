//! Failed messages of a subscription, due again at once.

use sqlx::PgConnection;

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
