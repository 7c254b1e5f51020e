//! Readers of streams: their state, their label rule, and the claim that moves them.

use std::collections::BTreeMap;

use sqlx::{FromRow, PgConnection};

use crate::domain::clock::Timestamp;
use crate::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
use crate::domain::labels::LabelRule;
use crate::domain::lease::{Lease, SubscriptionState};
use crate::domain::place::Place;

/// Splits keys into the two arrays that `unnest` joins again.
pub(super) fn key_columns<'a>(keys: impl Iterator<Item = &'a SubscriptionKey>) -> (Vec<i64>, Vec<i64>) {
    keys.map(|key| (key.stream.0, key.subscription.0)).unzip()
}

#[derive(FromRow)]
struct StateRow {
    stream_id: i64,
    subscription_id: i64,
    place: Place,
    version: i64,
    cursor_offset: i64,
    cursor_time: Timestamp,
    label_tags: Option<Vec<String>>,
    label_all: bool,
    next_offset: i64,
    has_retries: bool,
    has_leases: bool,
}

impl From<StateRow> for SubscriptionState {
    fn from(row: StateRow) -> Self {
        Self {
            key: SubscriptionKey { stream: StreamId(row.stream_id), subscription: SubscriptionId(row.subscription_id) },
            place: row.place,
            version: row.version,
            cursor: row.cursor_offset,
            cursor_time: row.cursor_time,
            rule: row.label_tags.and_then(|tags| LabelRule::new(tags, row.label_all)),
            tail: row.next_offset,
            has_retries: row.has_retries,
            has_leases: row.has_leases,
        }
    }
}

// Leases are looked for on behalf of exclusive readers only: of others there may be many, dead ones too.
const READ_STATES: &str = "
SELECT s.stream_id, s.subscription_id, s.ctid AS place, s.version, s.cursor_offset, s.cursor_time, s.label_tags, s.label_all,
       t.next_offset,
       EXISTS (SELECT FROM retries AS r
               WHERE r.stream_id = s.stream_id AND r.subscription_id = s.subscription_id) AS has_retries,
       CASE WHEN k.exclusive THEN EXISTS (SELECT FROM leases AS l
               WHERE l.stream_id = s.stream_id AND l.subscription_id = s.subscription_id) ELSE false END AS has_leases
FROM unnest($1::bigint[], $2::bigint[], $3::boolean[]) AS k (stream_id, subscription_id, exclusive)
JOIN subscriptions AS s USING (stream_id, subscription_id)
JOIN streams AS t USING (stream_id)";

/// The state of several subscriptions at one instant, each with whether it is exclusive; one that does not exist is missing
/// in the answer.
pub async fn read_states(
    conn: &mut PgConnection,
    readers: &[(SubscriptionKey, bool)],
) -> sqlx::Result<Vec<SubscriptionState>> {
    let (streams, subscriptions) = key_columns(readers.iter().map(|(key, _)| key));
    let rows: Vec<StateRow> = sqlx::query_as(READ_STATES)
        .bind(streams)
        .bind(subscriptions)
        .bind(readers.iter().map(|(_, exclusive)| *exclusive).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(SubscriptionState::from).collect())
}

const BIND_RULE: &str = "
UPDATE subscriptions SET label_tags = $3, label_all = $4, version = version + 1
WHERE stream_id = $1 AND subscription_id = $2 AND label_tags IS NULL";

/// Binds a subscription to a label rule, unless it has one.
pub async fn bind_rule(conn: &mut PgConnection, key: SubscriptionKey, rule: &LabelRule) -> sqlx::Result<()> {
    sqlx::query(BIND_RULE)
        .bind(key.stream.0)
        .bind(key.subscription.0)
        .bind(rule.labels())
        .bind(rule.all())
        .execute(conn)
        .await?;
    Ok(())
}

/// One subscription's part of a claim: holds only if nothing has moved since `version` was read.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose.
    pub key: SubscriptionKey,
    /// Where its row was then.
    pub place: Place,
    /// The version that was read.
    pub version: i64,
    /// Where the cursor moves to.
    pub cursor: i64,
    /// See [`SubscriptionState::cursor_time`].
    pub cursor_time: Timestamp,
    /// Offsets that leave without success: expired, or passed over by the label rule.
    pub skipped: i64,
    /// These failed messages are taken (into leases, or dropped); empty for messages never claimed.
    pub retries: Vec<i64>,
    /// What is given out.
    pub leases: Vec<Lease>,
}

// One statement for all subscriptions of a flush: move each that is still where it was read, take its failed messages, give
// out its leases. The row lock makes claims of one subscription exclusive; the version tells whoever waited that it lost.
// Failed messages come first: a claim of new ones is refused while there are any. Whether a batch is in flight needs no second
// look: only claims give out leases, so what was read of them holds while the version does. Rows are found by place only (see
// `store/place.rs`): one that has moved has most likely been claimed from, and is read again. Ragged arrays travel flat with
// bounds.
/// The statement of [`claim`]; public for the test of its plan.
pub const CLAIM: &str = "
WITH input AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bigint[],
                         $7::boolean[], $8::tid[])
        AS i (stream_id, subscription_id, version, cursor_offset, cursor_time, skipped, from_retries, place)
), locked AS (
    SELECT i.stream_id, i.subscription_id
    FROM input AS i JOIN subscriptions AS s
        ON s.ctid = i.place AND s.stream_id + 0 = i.stream_id AND s.subscription_id + 0 = i.subscription_id
    WHERE s.version = i.version
    ORDER BY i.stream_id, i.subscription_id
    FOR NO KEY UPDATE OF s
), moved AS (
    UPDATE subscriptions AS s
    SET version = s.version + 1, cursor_offset = i.cursor_offset, cursor_time = i.cursor_time,
        skipped = s.skipped + i.skipped
    FROM locked JOIN input AS i USING (stream_id, subscription_id)
    WHERE s.ctid = i.place AND s.stream_id + 0 = i.stream_id AND s.subscription_id + 0 = i.subscription_id
      AND s.version = i.version
      AND CASE WHEN i.from_retries THEN true ELSE NOT EXISTS (SELECT FROM retries AS r
              WHERE r.stream_id = i.stream_id AND r.subscription_id = i.subscription_id) END
    RETURNING s.stream_id, s.subscription_id, s.ctid AS place
), taken AS (
    DELETE FROM retries AS r
    USING moved AS m JOIN unnest($9::bigint[], $10::bigint[], $11::bigint[]) AS t (stream_id, subscription_id, message_offset)
        USING (stream_id, subscription_id)
    WHERE r.stream_id = t.stream_id AND r.subscription_id = t.subscription_id AND r.message_offset = t.message_offset
), given AS (
    INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
    SELECT g.stream_id, g.subscription_id, g.lease_id, g.expires_at,
           ($18::bigint[])[g.first:g.last], ($19::integer[])[g.first:g.last], ($20::timestamptz[])[g.first:g.last]
    FROM moved AS m
    JOIN unnest($12::bigint[], $13::bigint[], $14::uuid[], $15::timestamptz[], $16::integer[], $17::integer[])
        AS g (stream_id, subscription_id, lease_id, expires_at, first, last) USING (stream_id, subscription_id)
)
SELECT stream_id, subscription_id, place FROM moved";

/// Carries out the claims that still hold and returns whose they were, and where their rows are now.
pub async fn claim(conn: &mut PgConnection, claims: &[Claim]) -> sqlx::Result<BTreeMap<SubscriptionKey, Place>> {
    let (streams, subscriptions) = key_columns(claims.iter().map(|claim| &claim.key));
    let taken = || claims.iter().flat_map(|claim| claim.retries.iter().map(|offset| (claim.key, *offset)));
    let leases = || claims.iter().flat_map(|claim| &claim.leases);
    let messages = || leases().flat_map(|lease| &lease.messages);
    let (taken_streams, taken_subscriptions) =
        taken().map(|(key, _)| (key.stream.0, key.subscription.0)).unzip::<_, _, Vec<_>, Vec<_>>();
    let (lease_streams, lease_subscriptions) = key_columns(leases().map(|lease| &lease.key));
    let (firsts, lasts) = slice_bounds(leases());
    let rows: Vec<(i64, i64, Place)> = sqlx::query_as(CLAIM)
        .bind(streams)
        .bind(subscriptions)
        .bind(claims.iter().map(|claim| claim.version).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.cursor).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.cursor_time).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.skipped).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| !claim.retries.is_empty()).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.place).collect::<Vec<_>>())
        .bind(taken_streams)
        .bind(taken_subscriptions)
        .bind(taken().map(|(_, offset)| offset).collect::<Vec<_>>())
        .bind(lease_streams)
        .bind(lease_subscriptions)
        .bind(leases().map(|lease| lease.id.0).collect::<Vec<_>>())
        .bind(leases().map(|lease| lease.expires_at).collect::<Vec<_>>())
        .bind(firsts)
        .bind(lasts)
        .bind(messages().map(|message| message.offset).collect::<Vec<_>>())
        .bind(messages().map(|message| message.attempts).collect::<Vec<_>>())
        .bind(messages().map(|message| message.appended_at).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|(stream, subscription, place)| (key(stream, subscription), place)).collect())
}

/// The key of a row.
pub(super) fn key(stream: i64, subscription: i64) -> SubscriptionKey {
    SubscriptionKey { stream: StreamId(stream), subscription: SubscriptionId(subscription) }
}

/// 1-based bounds of each lease's part of the flat message arrays, both included.
pub(super) fn slice_bounds<'a>(leases: impl Iterator<Item = &'a Lease>) -> (Vec<i32>, Vec<i32>) {
    let mut end = 0;
    leases
        .map(|lease| {
            let first = end + 1;
            end += i32::try_from(lease.messages.len()).unwrap_or(i32::MAX);
            (first, end)
        })
        .unzip()
}

/// Counts offsets that left a subscription without success. Takes its row lock: call it before leases are locked.
pub async fn add_skipped(conn: &mut PgConnection, key: SubscriptionKey, count: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE subscriptions SET skipped = skipped + $3 WHERE stream_id = $1 AND subscription_id = $2")
        .bind(key.stream.0)
        .bind(key.subscription.0)
        .bind(count)
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks subscriptions in key order, to settle what failed in them.
pub async fn lock(conn: &mut PgConnection, keys: &[SubscriptionKey]) -> sqlx::Result<()> {
    let (streams, subscriptions) = key_columns(keys.iter());
    sqlx::query(
        "SELECT FROM subscriptions
         WHERE (stream_id, subscription_id) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))
         ORDER BY stream_id, subscription_id FOR NO KEY UPDATE",
    )
    .bind(streams)
    .bind(subscriptions)
    .execute(conn)
    .await?;
    Ok(())
}
