//! Claims: subscriptions are moved and leases granted, one statement for a round.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{key, key_columns, slice_bounds};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::domain::lease::Lease;
use crate::store::row_location::RowLocation;
use crate::store::sql::{Sql, parameters, row, statements};

/// One subscription's part of a claim: holds only if nothing has moved since `version` was read.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose.
    pub key: SubscriptionKey,
    /// Where its row was then.
    pub location: RowLocation,
    /// The version that was read.
    pub version: i64,
    /// FIFO: failed messages come first, so a claim of new ones alone is refused while there are any.
    pub exclusive: bool,
    /// Where the cursor moves to.
    pub cursor: i64,
    /// See [`SubscriptionState::cursor_time`](super::SubscriptionState::cursor_time).
    pub cursor_time: Timestamp,
    /// Offsets that leave without success: expired, or passed over by the label rule.
    pub skipped: i64,
    /// Those of them that the label rule has passed over.
    pub passed_over: i64,
    /// These failed messages are taken (into leases, or dropped).
    pub retries: Vec<i64>,
    /// See [`SubscriptionState::retry_cursor`](super::SubscriptionState::retry_cursor).
    pub retry_cursor: i64,
    /// See [`SubscriptionState::failed_next`](super::SubscriptionState::failed_next).
    pub failed_next: bool,
    /// What is granted.
    pub leases: Vec<Lease>,
}

/// A claim that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Where the subscription's row is now.
    pub location: RowLocation,
    /// Whether failed messages wait, as the statement saw it.
    pub(crate) has_retries: bool,
}

parameters! {
    /// Claims of several subscriptions, column by column; what belongs to a claim of the flat ones is told by bounds.
    struct ClaimMany {
        stream_ids: Vec<i64>,
        subscription_ids: Vec<i64>,
        locations: Vec<RowLocation>,
        versions: Vec<i64>,
        cursor_offsets: Vec<i64>,
        cursor_times: Vec<Timestamp>,
        skipped: Vec<i64>,
        passed_over: Vec<i64>,
        exclusive: Vec<bool>,
        retry_cursors: Vec<i64>,
        failed_next: Vec<bool>,
        first_retries: Vec<i32>,
        last_retries: Vec<i32>,
        retries: Vec<i64>,
        first_leases: Vec<i32>,
        last_leases: Vec<i32>,
        lease_ids: Vec<Uuid>,
        lease_ends: Vec<Timestamp>,
        first_messages: Vec<i32>,
        last_messages: Vec<i32>,
        offsets: Vec<i64>,
        attempts: Vec<i32>,
        appended_ats: Vec<Timestamp>,
    }
}

parameters! {
    /// A claim of one subscription.
    struct ClaimOne {
        stream_id: i64,
        subscription_id: i64,
        location: RowLocation,
        version: i64,
        cursor_offset: i64,
        cursor_time: Timestamp,
        skipped: i64,
        passed_over: i64,
        failed_next: bool,
        lease_ids: Vec<Uuid>,
        lease_ends: Vec<Timestamp>,
        first_messages: Vec<i32>,
        last_messages: Vec<i32>,
        offsets: Vec<i64>,
        attempts: Vec<i32>,
        appended_ats: Vec<Timestamp>,
    }
}

row! {
    /// A subscription that was moved.
    struct Moved {
        stream_id: i64,
        subscription_id: i64,
        location: RowLocation,
        has_retries: bool,
    }
}

statements![CLAIM, CLAIM_ONE_FIFO, CLAIM_ONE];

// One statement for all subscriptions of a flush: move each that is still where it was read, take its failed messages, give
// out its leases. The row lock makes claims of one subscription exclusive; the version tells whoever waited that it lost.
// Whether a batch is in flight needs no second look: only claims give out leases, so what was read of them holds while the
// version does. Failed messages are looked for as of the beginning of the statement: those of a settlement that it had to wait
// for are not seen, but their wake-up comes behind. Of a FIFO queue such a settlement ends the batch in flight, so nobody claims
// beside it. Rows are found by location only (see `store/row_location.rs`): one that has moved has most likely been claimed from, and is
// read again. Ragged arrays travel flat with bounds; a row knows its part of them, so that nothing is joined row by row. Rows are
// met in the order of their keys, whatever the order of the claims, so that two rounds cannot deadlock.
static CLAIM: Sql<ClaimMany, Moved> = Sql::new("
WITH moved AS (
    UPDATE subscriptions AS s
    SET version = s.version + 1, cursor_offset = i.cursor_offset, cursor_time = i.cursor_time,
        skipped = s.skipped + i.skipped, passed_over = s.passed_over + i.passed_over, retry_cursor = i.retry_cursor, failed_next = i.failed_next
    FROM (
        SELECT * FROM unnest($stream_ids::bigint[], $subscription_ids::bigint[], $locations::tid[], $versions::bigint[], $cursor_offsets::bigint[], $cursor_times::timestamptz[], $skipped::bigint[],
                             $first_retries::integer[], $last_retries::integer[], $first_leases::integer[], $last_leases::integer[],
                             $retry_cursors::bigint[], $failed_next::boolean[], $exclusive::boolean[], $passed_over::bigint[])
            AS i (stream_id, subscription_id, location, version, cursor_offset, cursor_time, skipped,
                  first_retry, last_retry, first_lease, last_lease, retry_cursor, failed_next, exclusive, passed_over)
        ORDER BY 1, 2
    ) AS i
    WHERE s.ctid = i.location AND s.stream_id + 0 = i.stream_id AND s.subscription_id + 0 = i.subscription_id
      AND s.version = i.version
      AND CASE WHEN i.first_retry <= i.last_retry OR NOT i.exclusive THEN true ELSE (SELECT true FROM retries AS r
              WHERE r.stream_id = i.stream_id AND r.subscription_id = i.subscription_id AND r.failure_id > i.retry_cursor
              LIMIT 1) IS NULL END
    RETURNING s.stream_id, s.subscription_id, s.ctid AS location, i.first_retry, i.last_retry, i.first_lease, i.last_lease,
              (SELECT true FROM retries AS r
               WHERE r.stream_id = i.stream_id AND r.subscription_id = i.subscription_id AND r.failure_id > i.retry_cursor
               LIMIT 1) IS NOT NULL AS has_retries
), taken AS (
    DELETE FROM retries AS r
    USING (
        SELECT stream_id, subscription_id, ($retries::bigint[])[generate_series(first_retry, last_retry)] AS message_offset
        FROM moved
    ) AS t
    CROSS JOIN LATERAL (
        SELECT f.ctid AS location FROM retries AS f
        WHERE f.stream_id = t.stream_id AND f.subscription_id = t.subscription_id AND f.message_offset = t.message_offset
        OFFSET 0
    ) AS found
    WHERE r.ctid = found.location
), given AS (
    INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
    SELECT stream_id, subscription_id, ($lease_ids::uuid[])[n], ($lease_ends::timestamptz[])[n],
           ($offsets::bigint[])[($first_messages::integer[])[n]:($last_messages::integer[])[n]],
           ($attempts::integer[])[($first_messages::integer[])[n]:($last_messages::integer[])[n]],
           ($appended_ats::timestamptz[])[($first_messages::integer[])[n]:($last_messages::integer[])[n]]
    FROM (SELECT stream_id, subscription_id, generate_series(first_lease, last_lease) AS n FROM moved) AS g
)
SELECT stream_id, subscription_id, location, has_retries FROM moved");

// The statement of a claim of one subscription and messages never claimed, the most common round: the same in a third of the
// work. It looks for failed messages once, to refuse the claim of a FIFO queue or to tell of them.
macro_rules! claim_one_sql {
    ($guard:literal, $has_retries:literal) => {
        concat!(
            "
WITH moved AS (
    UPDATE subscriptions AS s
    SET version = version + 1, cursor_offset = $cursor_offset, cursor_time = $cursor_time, skipped = skipped + $skipped, failed_next = $failed_next,
        passed_over = passed_over + $passed_over
    WHERE ctid = $location AND stream_id + 0 = $stream_id AND subscription_id + 0 = $subscription_id AND version = $version",
            $guard,
            "
    RETURNING stream_id, subscription_id, ctid AS location, ",
            $has_retries,
            " AS has_retries
), given AS (
    INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
    SELECT m.stream_id, m.subscription_id, g.lease_id, g.expires_at,
           ($offsets::bigint[])[g.first:g.last], ($attempts::integer[])[g.first:g.last], ($appended_ats::timestamptz[])[g.first:g.last]
    FROM moved AS m
    CROSS JOIN unnest($lease_ids::uuid[], $lease_ends::timestamptz[], $first_messages::integer[], $last_messages::integer[]) AS g (lease_id, expires_at, first, last)
)
SELECT stream_id, subscription_id, location, has_retries FROM moved"
        )
    };
}

/// For a FIFO queue.
static CLAIM_ONE_FIFO: Sql<ClaimOne, Moved> = Sql::new(claim_one_sql!(
    "
      AND NOT EXISTS (SELECT FROM retries AS r
          WHERE r.stream_id = $stream_id AND r.subscription_id = $subscription_id AND r.failure_id > s.retry_cursor)",
    "false"
));

/// For another queue.
static CLAIM_ONE: Sql<ClaimOne, Moved> = Sql::new(claim_one_sql!(
    "",
    "(SELECT true FROM retries AS r
               WHERE r.stream_id = $stream_id AND r.subscription_id = $subscription_id AND r.failure_id > s.retry_cursor
               LIMIT 1) IS NOT NULL"
));

/// Carries out the claims that still hold, and returns those.
pub async fn claim(conn: &mut PgConnection, claims: &[Claim]) -> sqlx::Result<BTreeMap<SubscriptionKey, Claimed>> {
    let rows = match claims {
        [one] if one.retries.is_empty() => claim_one(conn, one).await?,
        many => claim_many(conn, many).await?,
    };
    let claimed = |row: Moved| {
        (key(row.stream_id, row.subscription_id), Claimed { location: row.location, has_retries: row.has_retries })
    };
    Ok(rows.into_iter().map(claimed).collect())
}

async fn claim_one(conn: &mut PgConnection, claim: &Claim) -> sqlx::Result<Vec<Moved>> {
    let given = Given::of(|| claim.leases.iter());
    let parameters = ClaimOne {
        stream_id: claim.key.stream.0,
        subscription_id: claim.key.subscription.0,
        location: claim.location,
        version: claim.version,
        cursor_offset: claim.cursor,
        cursor_time: claim.cursor_time,
        skipped: claim.skipped,
        passed_over: claim.passed_over,
        failed_next: claim.failed_next,
        lease_ids: given.ids,
        lease_ends: given.ends,
        first_messages: given.first_messages,
        last_messages: given.last_messages,
        offsets: given.offsets,
        attempts: given.attempts,
        appended_ats: given.appended_ats,
    };
    let statement = if claim.exclusive { &CLAIM_ONE_FIFO } else { &CLAIM_ONE };
    statement.rows(parameters).fetch_all(conn).await
}

async fn claim_many(conn: &mut PgConnection, claims: &[Claim]) -> sqlx::Result<Vec<Moved>> {
    CLAIM.rows(ClaimMany::of(claims)).fetch_all(conn).await
}

impl ClaimMany {
    fn of(claims: &[Claim]) -> Self {
        let (stream_ids, subscription_ids) = key_columns(claims.iter().map(|claim| &claim.key));
        let (first_retries, last_retries) = slice_bounds(claims.iter().map(|claim| claim.retries.len()));
        let (first_leases, last_leases) = slice_bounds(claims.iter().map(|claim| claim.leases.len()));
        let given = Given::of(|| claims.iter().flat_map(|claim| &claim.leases));
        Self {
            stream_ids,
            subscription_ids,
            locations: claims.iter().map(|claim| claim.location).collect(),
            versions: claims.iter().map(|claim| claim.version).collect(),
            cursor_offsets: claims.iter().map(|claim| claim.cursor).collect(),
            cursor_times: claims.iter().map(|claim| claim.cursor_time).collect(),
            skipped: claims.iter().map(|claim| claim.skipped).collect(),
            passed_over: claims.iter().map(|claim| claim.passed_over).collect(),
            exclusive: claims.iter().map(|claim| claim.exclusive).collect(),
            retry_cursors: claims.iter().map(|claim| claim.retry_cursor).collect(),
            failed_next: claims.iter().map(|claim| claim.failed_next).collect(),
            first_retries,
            last_retries,
            retries: claims.iter().flat_map(|claim| &claim.retries).copied().collect(),
            first_leases,
            last_leases,
            lease_ids: given.ids,
            lease_ends: given.ends,
            first_messages: given.first_messages,
            last_messages: given.last_messages,
            offsets: given.offsets,
            attempts: given.attempts,
            appended_ats: given.appended_ats,
        }
    }
}

/// Leases column by column, and their messages flat with bounds.
struct Given {
    ids: Vec<Uuid>,
    ends: Vec<Timestamp>,
    first_messages: Vec<i32>,
    last_messages: Vec<i32>,
    offsets: Vec<i64>,
    attempts: Vec<i32>,
    appended_ats: Vec<Timestamp>,
}

impl Given {
    fn of<'a, I: Iterator<Item = &'a Lease>>(leases: impl Fn() -> I) -> Self {
        let messages = || leases().flat_map(|lease| &lease.messages);
        let (first_messages, last_messages) = slice_bounds(leases().map(|lease| lease.messages.len()));
        Self {
            ids: leases().map(|lease| lease.id.0).collect(),
            ends: leases().map(|lease| lease.expires_at).collect(),
            first_messages,
            last_messages,
            offsets: messages().map(|message| message.offset).collect(),
            attempts: messages().map(|message| message.attempts).collect(),
            appended_ats: messages().map(|message| message.appended_at).collect(),
        }
    }
}
