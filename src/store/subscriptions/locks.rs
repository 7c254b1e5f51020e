//! Which rows somebody else has locked. A look waits for nothing and holds nothing: it is a statement of its own.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::ids::{StreamId, SubscriptionKey};
use crate::store::subscriptions::leases::LeaseKey;
use crate::store::subscriptions::{key, key_columns};

/// The statement of [`streams`]; public for the test of its plan, as those below.
pub const STREAMS: &str = "
SELECT k.stream_id
FROM unnest($1::bigint[]) AS k (stream_id)
CROSS JOIN LATERAL (SELECT FROM streams AS f WHERE f.stream_id = k.stream_id OFFSET 0) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM streams AS f WHERE f.stream_id = k.stream_id FOR NO KEY UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL";

/// Those of the streams that are there and locked.
pub async fn streams(conn: &mut PgConnection, streams: &[StreamId]) -> sqlx::Result<BTreeSet<StreamId>> {
    let ids: Vec<i64> = streams.iter().map(|stream| stream.0).collect();
    let locked: Vec<i64> = sqlx::query_scalar(STREAMS).bind(ids).fetch_all(conn).await?;
    Ok(locked.into_iter().map(StreamId).collect())
}

/// The statement of [`subscriptions`].
pub const SUBSCRIPTIONS: &str = "
SELECT k.stream_id, k.subscription_id
FROM unnest($1::bigint[], $2::bigint[]) AS k (stream_id, subscription_id)
CROSS JOIN LATERAL (
    SELECT FROM subscriptions AS f WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id OFFSET 0
) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM subscriptions AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id
    FOR NO KEY UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL";

/// Those of the subscriptions that are there and locked.
pub async fn subscriptions(
    conn: &mut PgConnection,
    keys: impl IntoIterator<Item = &SubscriptionKey>,
) -> sqlx::Result<BTreeSet<SubscriptionKey>> {
    let (streams, subscriptions) = key_columns(keys.into_iter());
    let locked: Vec<(i64, i64)> =
        sqlx::query_as(SUBSCRIPTIONS).bind(streams).bind(subscriptions).fetch_all(conn).await?;
    Ok(locked.into_iter().map(|(stream, subscription)| key(stream, subscription)).collect())
}

/// The statement of [`settled`], for leases.
pub const LEASES: &str = "
SELECT k.stream_id, k.subscription_id
FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS k (stream_id, subscription_id, lease_id)
CROSS JOIN LATERAL (
    SELECT FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id OFFSET 0
) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id
    FOR UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL";

/// The statement of [`settled`], for the streams of dead letters.
pub const DEAD_LETTERS: &str = "
SELECT k.stream_id, k.subscription_id
FROM unnest($1::bigint[], $2::bigint[]) AS k (stream_id, subscription_id)
CROSS JOIN LATERAL (
    SELECT g.dead_letter_stream_id FROM consumer_groups AS g WHERE g.subscription_id = k.subscription_id OFFSET 0
) AS g
CROSS JOIN LATERAL (SELECT FROM streams AS f WHERE f.stream_id = g.dead_letter_stream_id OFFSET 0) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM streams AS f WHERE f.stream_id = g.dead_letter_stream_id FOR NO KEY UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL";

/// Subscriptions that cannot be settled now: those whose own row, whose stream of dead letters, or one of whose leases named
/// here, is locked.
pub async fn settled(conn: &mut PgConnection, leases: &[LeaseKey]) -> sqlx::Result<BTreeSet<SubscriptionKey>> {
    let readers: BTreeSet<SubscriptionKey> = leases.iter().map(|lease| lease.subscription).collect();
    let mut locked = subscriptions(&mut *conn, &readers).await?;
    let (streams, subscriptions) = key_columns(readers.iter());
    let rows: Vec<(i64, i64)> =
        sqlx::query_as(DEAD_LETTERS).bind(streams).bind(subscriptions).fetch_all(&mut *conn).await?;
    locked.extend(rows.into_iter().map(|(stream, subscription)| key(stream, subscription)));
    let (streams, subscriptions) = key_columns(leases.iter().map(|lease| &lease.subscription));
    let ids: Vec<Uuid> = leases.iter().map(|lease| lease.id.0).collect();
    let rows: Vec<(i64, i64)> =
        sqlx::query_as(LEASES).bind(streams).bind(subscriptions).bind(ids).fetch_all(conn).await?;
    locked.extend(rows.into_iter().map(|(stream, subscription)| key(stream, subscription)));
    Ok(locked)
}
