//! Which rows somebody else has locked. A look waits for nothing and holds nothing: it is a statement of its own.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::ids::{StreamId, SubscriptionKey};
use crate::store::sql::{Sql, parameters, row, statements};
use crate::store::subscriptions::leases::LeaseKey;
use crate::store::subscriptions::{key, key_columns};

statements![STREAMS, SUBSCRIPTIONS, LEASES, DEAD_LETTERS];

parameters! {
    struct SubscriptionKeys {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
    }
}

parameters! {
    struct Leases {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        lease_ids: Vec<Uuid>,
    }
}

row! {
    struct Locked {
        stream_id: i64,
        subscription_id: i64,
    }
}

impl Locked {
    fn key(self) -> SubscriptionKey {
        key(self.stream_id, self.subscription_id)
    }
}

static STREAMS: Sql<(&[i64],), (i64,)> = Sql::new(
    "
SELECT k.stream_id
FROM unnest($1::bigint[]) AS k (stream_id)
CROSS JOIN LATERAL (SELECT FROM streams AS f WHERE f.stream_id = k.stream_id OFFSET 0) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM streams AS f WHERE f.stream_id = k.stream_id FOR NO KEY UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL",
);

/// Those of the streams that are there and locked.
pub async fn streams(conn: &mut PgConnection, streams: &[StreamId]) -> sqlx::Result<BTreeSet<StreamId>> {
    let ids: Vec<i64> = streams.iter().map(|stream| stream.0).collect();
    let locked = STREAMS.scalar((&ids,)).fetch_all(conn).await?;
    Ok(locked.into_iter().map(StreamId).collect())
}

static SUBSCRIPTIONS: Sql<SubscriptionKeys, Locked> = Sql::new(
    "
SELECT k.stream_id, k.subscription_id
FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[]) AS k (stream_id, subscription_id)
CROSS JOIN LATERAL (
    SELECT FROM subscriptions AS f WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id OFFSET 0
) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM subscriptions AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id
    FOR NO KEY UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL",
);

/// Those of the subscriptions that are there and locked.
pub async fn subscriptions(
    conn: &mut PgConnection,
    keys: impl IntoIterator<Item = &SubscriptionKey>,
) -> sqlx::Result<BTreeSet<SubscriptionKey>> {
    let (stream_ids, subscription_ids) = key_columns(keys.into_iter());
    let locked = SUBSCRIPTIONS.rows(SubscriptionKeys { stream_ids, subscription_ids }).fetch_all(conn).await?;
    Ok(locked.into_iter().map(Locked::key).collect())
}

static LEASES: Sql<Leases, Locked> = Sql::new("
SELECT k.stream_id, k.subscription_id
FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $lease_ids::uuid[]) AS k (stream_id, subscription_id, lease_id)
CROSS JOIN LATERAL (
    SELECT FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id OFFSET 0
) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id
    FOR UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL");

/// Whose streams of dead letters are locked.
static DEAD_LETTERS: Sql<SubscriptionKeys, Locked> = Sql::new(
    "
SELECT k.stream_id, k.subscription_id
FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[]) AS k (stream_id, subscription_id)
CROSS JOIN LATERAL (
    SELECT g.dead_letter_stream_id FROM consumer_groups AS g WHERE g.subscription_id = k.subscription_id OFFSET 0
) AS g
CROSS JOIN LATERAL (SELECT FROM streams AS f WHERE f.stream_id = g.dead_letter_stream_id OFFSET 0) AS there
LEFT JOIN LATERAL (
    SELECT true AS free FROM streams AS f WHERE f.stream_id = g.dead_letter_stream_id FOR NO KEY UPDATE SKIP LOCKED
) AS taken ON true
WHERE taken.free IS NULL",
);

/// Subscriptions that cannot be settled now: those whose own row, whose stream of dead letters, or one of whose leases named
/// here, is locked.
pub async fn settled(conn: &mut PgConnection, leases: &[LeaseKey]) -> sqlx::Result<BTreeSet<SubscriptionKey>> {
    let keys: BTreeSet<SubscriptionKey> = leases.iter().map(|lease| lease.subscription).collect();
    let mut locked = subscriptions(&mut *conn, &keys).await?;
    let (stream_ids, subscription_ids) = key_columns(keys.iter());
    let rows = DEAD_LETTERS.rows(SubscriptionKeys { stream_ids, subscription_ids }).fetch_all(&mut *conn).await?;
    locked.extend(rows.into_iter().map(Locked::key));
    let (stream_ids, subscription_ids) = key_columns(leases.iter().map(|lease| &lease.subscription));
    let lease_ids = leases.iter().map(|lease| lease.id.0).collect();
    let rows = LEASES.rows(Leases { stream_ids, subscription_ids, lease_ids }).fetch_all(conn).await?;
    locked.extend(rows.into_iter().map(Locked::key));
    Ok(locked)
}
