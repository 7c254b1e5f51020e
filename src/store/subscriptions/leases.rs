//! Delivered batches: settled whole in one statement, or loaded, changed and written back.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{key, key_columns, slice_bounds};
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{LeaseId, SubscriptionKey};
use crate::domain::lease::{Lease, MessageRef};
use crate::store::sql::{Sql, parameters, read_as, row, statements};

/// A lease by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseKey {
    /// Whose it is.
    pub subscription: SubscriptionKey,
    /// Which.
    pub id: LeaseId,
}

statements![DELETE_WHOLE, LOCK, DELETE, SHRINK, IS_UNACKNOWLEDGED, BRING_BACK, EXPIRED];

// Where a lease that is asked for is. Not a plain join: when there were hardly any leases as the table was last analysed, the
// planner takes it for empty and reads the whole index, dead leases and all, instead of looking each up. It may not reorder this.
macro_rules! place_of_lease {
    () => {
        "CROSS JOIN LATERAL (
    SELECT f.ctid AS location FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id
    OFFSET 0
) AS found"
    };
}

parameters! {
    struct DeleteWhole {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        lease_ids: Vec<Uuid>,
        first_offsets: Vec<i32>,
        last_offsets: Vec<i32>,
        offsets: Vec<i64>,
        now: Timestamp,
    }
}

static DELETE_WHOLE: Sql<DeleteWhole, (Uuid,)> = Sql::new(concat!(
    "
DELETE FROM leases AS l
USING unnest($stream_ids::bigint[], $subscription_ids::bigint[], $lease_ids::uuid[], $first_offsets::integer[], $last_offsets::integer[])
    AS k (stream_id, subscription_id, lease_id, first, last)
",
    place_of_lease!(),
    "
WHERE l.ctid = found.location AND cardinality(l.offsets) = k.last - k.first + 1
    AND l.offsets @> ($offsets::bigint[])[k.first:k.last] AND l.expires_at > $now
RETURNING l.lease_id"
));

/// Deletes the leases that are live and have exactly these messages left, each named once; returns those. Handlers are made by callers in
/// the end: what they say of a lease is compared with its row.
pub(crate) async fn delete_whole(
    conn: &mut PgConnection,
    leases: &[(LeaseKey, Vec<i64>)],
    now: Timestamp,
) -> sqlx::Result<Vec<LeaseId>> {
    let (stream_ids, subscription_ids) = key_columns(leases.iter().map(|(lease, _)| &lease.subscription));
    let last_offsets: Vec<i32> = leases
        .iter()
        .scan(0, |last, (_, offsets)| {
            *last += i32::try_from(offsets.len()).unwrap_or(i32::MAX);
            Some(*last)
        })
        .collect();
    let first_offsets =
        std::iter::once(0).chain(last_offsets.iter().copied()).take(last_offsets.len()).map(|end| end + 1).collect();
    let parameters = DeleteWhole {
        stream_ids,
        subscription_ids,
        lease_ids: leases.iter().map(|(lease, _)| lease.id.0).collect(),
        first_offsets,
        last_offsets,
        offsets: leases.iter().flat_map(|(_, offsets)| offsets).copied().collect(),
        now,
    };
    let rows = DELETE_WHOLE.scalar(parameters).fetch_all(conn).await?;
    Ok(rows.into_iter().map(LeaseId).collect())
}

row! {
    struct LeaseRow {
        stream_id: i64,
        subscription_id: i64,
        lease_id: Uuid,
        expires_at: Timestamp,
        offsets: Vec<i64>,
        attempts: Vec<i32>,
        appended_ats: Vec<Timestamp>,
    }
}

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

read_as!(LeaseRow => Lease);

parameters! {
    struct Keys {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        lease_ids: Vec<Uuid>,
    }
}

static LOCK: Sql<Keys, Lease> = Sql::new("
SELECT l.*
FROM (
    SELECT * FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $lease_ids::uuid[]) AS k (stream_id, subscription_id, lease_id) ORDER BY 1, 2, 3
) AS k
CROSS JOIN LATERAL (
    SELECT f.stream_id, f.subscription_id, f.lease_id, f.expires_at, f.offsets, f.attempts, f.appended_ats FROM leases AS f
    WHERE f.stream_id = k.stream_id AND f.subscription_id = k.subscription_id AND f.lease_id = k.lease_id
    FOR UPDATE
) AS l");

/// Locks and loads leases; those that do not exist are missing in the answer.
pub async fn lock(conn: &mut PgConnection, leases: &[LeaseKey]) -> sqlx::Result<Vec<Lease>> {
    let (stream_ids, subscription_ids) = key_columns(leases.iter().map(|lease| &lease.subscription));
    let lease_ids = leases.iter().map(|lease| lease.id.0).collect();
    LOCK.rows(Keys { stream_ids, subscription_ids, lease_ids }).fetch_all(conn).await
}

static DELETE: Sql<Keys, ()> = Sql::new(concat!(
    "
DELETE FROM leases AS l
USING unnest($stream_ids::bigint[], $subscription_ids::bigint[], $lease_ids::uuid[]) AS k (stream_id, subscription_id, lease_id)
",
    place_of_lease!(),
    "
WHERE l.ctid = found.location"
));

parameters! {
    struct Shrink {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        lease_ids: Vec<Uuid>,
        first_messages: Vec<i32>,
        last_messages: Vec<i32>,
        offsets: Vec<i64>,
        attempts: Vec<i32>,
        appended_ats: Vec<Timestamp>,
    }
}

static SHRINK: Sql<Shrink, ()> = Sql::new(concat!(
    "
UPDATE leases AS l
SET offsets = ($offsets::bigint[])[k.first:k.last], attempts = ($attempts::integer[])[k.first:k.last],
    appended_ats = ($appended_ats::timestamptz[])[k.first:k.last]
FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $lease_ids::uuid[], $first_messages::integer[], $last_messages::integer[])
    AS k (stream_id, subscription_id, lease_id, first, last)
",
    place_of_lease!(),
    "
WHERE l.ctid = found.location"
));

/// Writes locked leases back: those without messages are deleted.
pub(crate) async fn write_back(conn: &mut PgConnection, leases: &[&Lease]) -> sqlx::Result<()> {
    let (empty, rest): (Vec<&Lease>, Vec<&Lease>) = leases.iter().partition(|lease| lease.messages.is_empty());
    if !empty.is_empty() {
        let (stream_ids, subscription_ids) = key_columns(empty.iter().map(|lease| &lease.key));
        let lease_ids = empty.iter().map(|lease| lease.id.0).collect();
        DELETE.run(Keys { stream_ids, subscription_ids, lease_ids }).execute(&mut *conn).await?;
    }
    if !rest.is_empty() {
        SHRINK.run(Shrink::to(&rest)).execute(conn).await?;
    }
    Ok(())
}

impl Shrink {
    fn to(leases: &[&Lease]) -> Self {
        let (stream_ids, subscription_ids) = key_columns(leases.iter().map(|lease| &lease.key));
        let (first_messages, last_messages) = slice_bounds(leases.iter().map(|lease| lease.messages.len()));
        let messages = || leases.iter().flat_map(|lease| &lease.messages);
        Self {
            stream_ids,
            subscription_ids,
            lease_ids: leases.iter().map(|lease| lease.id.0).collect(),
            first_messages,
            last_messages,
            offsets: messages().map(|message| message.offset).collect(),
            attempts: messages().map(|message| message.attempts).collect(),
            appended_ats: messages().map(|message| message.appended_at).collect(),
        }
    }
}

/// Leases looked through for a message that has failed.
const LOOKED_THROUGH_MAX: i64 = 1000;

parameters! {
    struct IsUnacknowledged {
        stream_id: i64,
        subscription_id: i64,
        message_offset: i64,
        leases_max: i64,
    }
}

static IS_UNACKNOWLEDGED: Sql<IsUnacknowledged, (bool,)> = Sql::new("
SELECT (SELECT true FROM retries AS r
        WHERE r.stream_id = $stream_id AND r.subscription_id = $subscription_id AND r.message_offset = $message_offset) IS NOT NULL
    OR (SELECT true FROM (
            SELECT l.offsets FROM leases AS l WHERE l.stream_id = $stream_id AND l.subscription_id = $subscription_id LIMIT $leases_max
        ) AS looked_through WHERE $message_offset = ANY (looked_through.offsets) LIMIT 1) IS NOT NULL");

/// Whether a message waits to be delivered again, or is in a lease. For an error that explains itself: of a subscription with very many leases
/// not all are looked through.
#[tracing::instrument(name = "leases::is_unacknowledged", level = "debug", skip_all)]
pub(crate) async fn is_unacknowledged(pool: &PgPool, key: SubscriptionKey, offset: i64) -> Result<bool> {
    let parameters = IsUnacknowledged {
        stream_id: key.stream.0,
        subscription_id: key.subscription.0,
        message_offset: offset,
        leases_max: LOOKED_THROUGH_MAX,
    };
    Ok(IS_UNACKNOWLEDGED.scalar(parameters).fetch_one(pool).await?)
}

parameters! {
    struct BringBack {
        micros: i64,
        limit: Timestamp,
    }
}

static BRING_BACK: Sql<BringBack, ()> = Sql::new("
UPDATE leases SET expires_at = least(expires_at - $micros::bigint * interval '1 microsecond', $limit) WHERE expires_at > $limit");

/// Moves leases that end after `limit` back, to there at most; says how many. Reads the whole table: it is for when Postgres's
/// clock was put back.
#[tracing::instrument(name = "leases::bring_back", level = "debug", skip_all)]
pub(crate) async fn bring_back(pool: &PgPool, by: Duration, limit: Timestamp) -> Result<u64> {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Ok(BRING_BACK.run(BringBack { micros, limit }).execute(pool).await?.rows_affected())
}

parameters! {
    struct Expired {
        now: Timestamp,
        limit: i64,
    }
}

row! {
    struct ExpiredRow {
        stream_id: i64,
        subscription_id: i64,
        lease_id: Uuid,
        expires_at: Timestamp,
    }
}

static EXPIRED: Sql<Expired, ExpiredRow> = Sql::new(
    "SELECT stream_id, subscription_id, lease_id, expires_at FROM leases WHERE expires_at <= $now ORDER BY expires_at LIMIT $limit",
);

/// Leases that have ended, and when, the oldest first. Reads the whole table: there is no index that every lease would have to pay for.
#[tracing::instrument(name = "leases::expired_in", level = "debug", skip_all)]
pub async fn expired_in(pool: &PgPool, now: Timestamp, limit: i64) -> Result<Vec<(LeaseKey, Timestamp)>> {
    let rows = EXPIRED.rows(Expired { now, limit }).fetch_all(pool).await?;
    let lease = |row: ExpiredRow| {
        let subscription = key(row.stream_id, row.subscription_id);
        (LeaseKey { subscription, id: LeaseId(row.lease_id) }, row.expires_at)
    };
    Ok(rows.into_iter().map(lease).collect())
}
