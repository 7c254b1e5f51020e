//! Delivered batches: settled whole in one statement, or loaded, changed and written back.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{key, key_columns, slice_bounds};
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{LeaseId, SubscriptionKey};
use crate::domain::lease::{Lease, MessageRef};
use crate::store::metadata::rows::from_row;

/// A lease by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseKey {
    /// Whose it is.
    pub subscription: SubscriptionKey,
    /// Which.
    pub id: LeaseId,
}

// Where a lease that is asked for is. Not a plain join: when there were hardly any leases as the table was last analysed, the
// planner takes it for empty and reads the whole index, dead leases and all, instead of looking each up. It may not reorder this.
macro_rules! place_of_lease {
    () => {
        "CROSS JOIN LATERAL (
    SELECT f.ctid AS place FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id
    OFFSET 0
) AS found"
    };
}

/// The statement of [`delete_whole`]; public for the test of its plan, as those below.
pub const DELETE_WHOLE: &str = concat!(
    "
DELETE FROM leases AS l
USING unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::integer[], $5::integer[])
    AS k (stream_id, subscription_id, lease_id, first, last)
",
    place_of_lease!(),
    "
WHERE l.ctid = found.place AND cardinality(l.offsets) = k.last - k.first + 1
    AND l.offsets @> ($6::bigint[])[k.first:k.last] AND l.expires_at > $7
RETURNING l.lease_id"
);

/// Deletes the leases that are live and have exactly these messages left, each named once; returns those. Handlers are made by callers in
/// the end: what they say of a lease is compared with its row.
pub(crate) async fn delete_whole(
    conn: &mut PgConnection,
    leases: &[(LeaseKey, Vec<i64>)],
    now: Timestamp,
) -> sqlx::Result<Vec<LeaseId>> {
    let (streams, subscriptions) = key_columns(leases.iter().map(|(lease, _)| &lease.subscription));
    let last: Vec<i32> = leases
        .iter()
        .scan(0, |last, (_, offsets)| {
            *last += i32::try_from(offsets.len()).unwrap_or(i32::MAX);
            Some(*last)
        })
        .collect();
    let first: Vec<i32> = std::iter::once(0).chain(last.iter().copied()).take(last.len()).map(|end| end + 1).collect();
    let rows: Vec<Uuid> = sqlx::query_scalar(DELETE_WHOLE)
        .bind(streams)
        .bind(subscriptions)
        .bind(leases.iter().map(|(lease, _)| lease.id.0).collect::<Vec<_>>())
        .bind(first)
        .bind(last)
        .bind(leases.iter().flat_map(|(_, offsets)| offsets).copied().collect::<Vec<_>>())
        .bind(now)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(LeaseId).collect())
}

struct LeaseRow {
    stream_id: i64,
    subscription_id: i64,
    lease_id: Uuid,
    expires_at: Timestamp,
    offsets: Vec<i64>,
    attempts: Vec<i32>,
    appended_ats: Vec<Timestamp>,
}

from_row!(LeaseRow { stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats });

impl From<LeaseRow> for Lease {
    fn from(row: LeaseRow) -> Self {
        let messages = row.offsets.into_iter().zip(row.attempts).zip(row.appended_ats);
        Self {
            key: key(row.stream_id, row.subscription_id),
            id: LeaseId(row.lease_id),
            expires_at: row.expires_at,
            messages: messages
                .map(|((offset, attempts), appended_at)| MessageRef { offset, attempts, appended_at })
                .collect(),
        }
    }
}

/// The statement of [`lock`].
pub const LOCK: &str = "
SELECT l.*
FROM (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS k (stream_id, subscription_id, lease_id) ORDER BY 1, 2, 3
) AS k
CROSS JOIN LATERAL (
    SELECT f.stream_id, f.subscription_id, f.lease_id, f.expires_at, f.offsets, f.attempts, f.appended_ats FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id
    FOR UPDATE
) AS l";

/// Locks and loads leases; those that do not exist are missing in the answer.
pub async fn lock(conn: &mut PgConnection, leases: &[LeaseKey]) -> sqlx::Result<Vec<Lease>> {
    let (streams, subscriptions) = key_columns(leases.iter().map(|lease| &lease.subscription));
    let rows: Vec<LeaseRow> = sqlx::query_as(LOCK)
        .bind(streams)
        .bind(subscriptions)
        .bind(leases.iter().map(|lease| lease.id.0).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// The statement of [`write_back`] for leases without messages.
pub const DELETE: &str = concat!(
    "
DELETE FROM leases AS l
USING unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS k (stream_id, subscription_id, lease_id)
",
    place_of_lease!(),
    "
WHERE l.ctid = found.place"
);

/// The statement of [`write_back`] for the others.
pub const SHRINK: &str = concat!(
    "
UPDATE leases AS l
SET offsets = ($6::bigint[])[k.first:k.last], attempts = ($7::integer[])[k.first:k.last],
    appended_ats = ($8::timestamptz[])[k.first:k.last]
FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::integer[], $5::integer[])
    AS k (stream_id, subscription_id, lease_id, first, last)
",
    place_of_lease!(),
    "
WHERE l.ctid = found.place"
);

/// Writes locked leases back: those without messages are deleted.
pub(crate) async fn write_back(conn: &mut PgConnection, leases: &[&Lease]) -> sqlx::Result<()> {
    let (empty, rest): (Vec<&Lease>, Vec<&Lease>) = leases.iter().partition(|lease| lease.messages.is_empty());
    let ids = |leases: &[&Lease]| leases.iter().map(|lease| lease.id.0).collect::<Vec<_>>();
    if !empty.is_empty() {
        let (streams, subscriptions) = key_columns(empty.iter().map(|lease| &lease.key));
        sqlx::query(DELETE).bind(streams).bind(subscriptions).bind(ids(&empty)).execute(&mut *conn).await?;
    }
    if !rest.is_empty() {
        let (streams, subscriptions) = key_columns(rest.iter().map(|lease| &lease.key));
        let (firsts, lasts) = slice_bounds(rest.iter().map(|lease| lease.messages.len()));
        let messages = || rest.iter().flat_map(|lease| &lease.messages);
        sqlx::query(SHRINK)
            .bind(streams)
            .bind(subscriptions)
            .bind(ids(&rest))
            .bind(firsts)
            .bind(lasts)
            .bind(messages().map(|message| message.offset).collect::<Vec<_>>())
            .bind(messages().map(|message| message.attempts).collect::<Vec<_>>())
            .bind(messages().map(|message| message.appended_at).collect::<Vec<_>>())
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Leases looked through for a message that has failed.
const LOOKED_THROUGH_MAX: i64 = 1000;

const IS_UNACKNOWLEDGED: &str = "
SELECT (SELECT true FROM retries AS r
        WHERE r.stream_id = $1 AND r.subscription_id = $2 AND r.message_offset = $3) IS NOT NULL
    OR (SELECT true FROM (
            SELECT l.offsets FROM leases AS l WHERE l.stream_id = $1 AND l.subscription_id = $2 LIMIT $4
        ) AS looked_through WHERE $3 = ANY (looked_through.offsets) LIMIT 1) IS NOT NULL";

/// Whether a message waits to be delivered again, or is in a lease. For an error that explains itself: of a reader with very many leases
/// not all are looked through.
#[tracing::instrument(name = "leases::is_unacknowledged", level = "debug", skip_all)]
pub(crate) async fn is_unacknowledged(pool: &PgPool, key: SubscriptionKey, offset: i64) -> Result<bool> {
    let row = sqlx::query_scalar(IS_UNACKNOWLEDGED)
        .bind(key.stream.0)
        .bind(key.subscription.0)
        .bind(offset)
        .bind(LOOKED_THROUGH_MAX);
    Ok(row.fetch_one(pool).await?)
}

const BRING_BACK: &str = "
UPDATE leases SET expires_at = least(expires_at - $1 * interval '1 microsecond', $2) WHERE expires_at > $2";

/// Moves leases that end after `limit` back, to there at most; says how many. Reads the whole table: it is for when Postgres's
/// clock was put back.
#[tracing::instrument(name = "leases::bring_back", level = "debug", skip_all)]
pub(crate) async fn bring_back(pool: &PgPool, by: Duration, limit: Timestamp) -> Result<u64> {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Ok(sqlx::query(BRING_BACK).bind(micros).bind(limit).execute(pool).await?.rows_affected())
}

const EXPIRED: &str = "SELECT stream_id, subscription_id, lease_id, expires_at FROM leases WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2";

/// Leases that have ended, and when, the oldest first. Reads the whole table: there is no index that every lease would have to pay for.
#[tracing::instrument(name = "leases::expired_in", level = "debug", skip_all)]
pub async fn expired_in(pool: &PgPool, now: Timestamp, limit: i64) -> Result<Vec<(LeaseKey, Timestamp)>> {
    let rows: Vec<(i64, i64, Uuid, Timestamp)> = sqlx::query_as(EXPIRED).bind(now).bind(limit).fetch_all(pool).await?;
    let lease = |(stream, subscription, id, ended_at)| {
        (LeaseKey { subscription: key(stream, subscription), id: LeaseId(id) }, ended_at)
    };
    Ok(rows.into_iter().map(lease).collect())
}
