//! Failed messages of a subscription, redelivered at once.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::{key, key_columns};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::domain::lease::MessageRef;
use crate::store::sql::{Sql, parameters, row, statements};

statements![INSERT, READ];

parameters! {
    struct Insert {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        message_offsets: Vec<i64>,
        attempts: Vec<i32>,
        appended_ats: Vec<Timestamp>,
    }
}

static INSERT: Sql<Insert, ()> = Sql::new("
INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
SELECT * FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $message_offsets::bigint[], $attempts::integer[], $appended_ats::timestamptz[])");

/// Adds failed messages, behind all that have failed before: the caller holds the locks of their subscriptions.
pub async fn insert(conn: &mut PgConnection, failed: &[(SubscriptionKey, MessageRef)]) -> sqlx::Result<()> {
    let (stream_ids, subscription_ids) = key_columns(failed.iter().map(|(key, _)| key));
    let parameters = Insert {
        stream_ids,
        subscription_ids,
        message_offsets: failed.iter().map(|(_, message)| message.offset).collect(),
        attempts: failed.iter().map(|(_, message)| message.attempts).collect(),
        appended_ats: failed.iter().map(|(_, message)| message.appended_at).collect(),
    };
    INSERT.run(parameters).execute(conn).await?;
    Ok(())
}

/// Whose failed messages to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadFailed {
    /// The subscription.
    pub key: SubscriptionKey,
    /// See [`SubscriptionState::retry_cursor`](crate::store::subscriptions::SubscriptionState::retry_cursor).
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

parameters! {
    struct Read {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        after: Vec<i64>,
        limits: Vec<i64>,
    }
}

row! {
    struct FailedRow {
        stream_id: i64,
        subscription_id: i64,
        message_offset: i64,
        attempts: i32,
        appended_at: Timestamp,
        failure_id: i64,
    }
}

// From the cursor on, so that dead rows of those delivered since are not walked again and again.
static READ: Sql<Read, FailedRow> = Sql::new("
SELECT k.stream_id, k.subscription_id, r.message_offset, r.attempts, r.appended_at, r.failure_id
FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $after::bigint[], $limits::bigint[]) AS k (stream_id, subscription_id, after, messages_max)
CROSS JOIN LATERAL (
    SELECT f.message_offset, f.attempts, f.appended_at, f.failure_id FROM retries AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.failure_id > k.after
    ORDER BY f.failure_id
    LIMIT k.messages_max
) AS r");

/// The failed messages of several subscriptions, the oldest failures first.
pub async fn read(
    conn: &mut PgConnection,
    asked: &[ReadFailed],
) -> sqlx::Result<BTreeMap<SubscriptionKey, Vec<FailedMessage>>> {
    let (stream_ids, subscription_ids) = key_columns(asked.iter().map(|asked| &asked.key));
    let after = asked.iter().map(|asked| asked.after).collect();
    let limits = asked.iter().map(|asked| asked.limit).collect();
    let rows = READ.rows(Read { stream_ids, subscription_ids, after, limits }).fetch_all(conn).await?;
    let mut failed: BTreeMap<SubscriptionKey, Vec<FailedMessage>> = BTreeMap::new();
    for row in rows {
        let message = MessageRef { offset: row.message_offset, attempts: row.attempts, appended_at: row.appended_at };
        let of_reader = failed.entry(key(row.stream_id, row.subscription_id)).or_default();
        of_reader.push(FailedMessage { message, failure: row.failure_id });
    }
    Ok(failed)
}
