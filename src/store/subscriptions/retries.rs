//! Failed messages of a subscription, due again at once.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::{key, key_columns};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::domain::lease::MessageRef;

const INSERT: &str = "
INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::timestamptz[])";

/// Adds failed messages, behind all that have failed before: the caller holds the locks of their subscriptions.
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

/// Whose failed messages to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadFailed {
    /// The subscription.
    pub key: SubscriptionKey,
    /// See [`SubscriptionState::retry_cursor`](crate::domain::lease::SubscriptionState::retry_cursor).
    pub after: i64,
    /// At most so many.
    pub limit: i64,
}

/// A failed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedMessage {
    /// The message, with the deliveries counted so far.
    pub message: MessageRef,
    /// Its place in the order of failures.
    pub failure: i64,
}

// From the cursor on, so that dead rows of those delivered since are not walked again and again.
/// The statement of [`read`]; public for the test of its plan.
pub const READ: &str = "
SELECT k.stream_id, k.subscription_id, r.message_offset, r.attempts, r.appended_at, r.failure_id
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS k (stream_id, subscription_id, after, messages_max)
CROSS JOIN LATERAL (
    SELECT f.message_offset, f.attempts, f.appended_at, f.failure_id FROM retries AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.failure_id > k.after
    ORDER BY f.failure_id
    LIMIT k.messages_max
) AS r";

/// The failed messages of several subscriptions, the oldest failures first.
pub async fn read(
    conn: &mut PgConnection,
    asked: &[ReadFailed],
) -> sqlx::Result<BTreeMap<SubscriptionKey, Vec<FailedMessage>>> {
    let (streams, subscriptions) = key_columns(asked.iter().map(|asked| &asked.key));
    let rows: Vec<(i64, i64, i64, i32, Timestamp, i64)> = sqlx::query_as(READ)
        .bind(streams)
        .bind(subscriptions)
        .bind(asked.iter().map(|asked| asked.after).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| asked.limit).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    let mut failed: BTreeMap<SubscriptionKey, Vec<FailedMessage>> = BTreeMap::new();
    for (stream, subscription, offset, attempts, appended_at, failure) in rows {
        let message = MessageRef { offset, attempts, appended_at };
        failed.entry(key(stream, subscription)).or_default().push(FailedMessage { message, failure });
    }
    Ok(failed)
}
