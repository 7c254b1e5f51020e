//! Claims: readers are moved and leases given out, one statement for a round.

use std::collections::BTreeMap;

use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{PgConnection, Postgres};

use super::{key, key_columns, slice_bounds};
use crate::domain::clock::Timestamp;
use crate::domain::ids::SubscriptionKey;
use crate::domain::lease::Lease;
use crate::domain::place::Place;

/// One subscription's part of a claim: holds only if nothing has moved since `version` was read.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose.
    pub key: SubscriptionKey,
    /// Where its row was then.
    pub place: Place,
    /// The version that was read.
    pub version: i64,
    /// FIFO: failed messages come first, so a claim of new ones alone is refused while there are any.
    pub exclusive: bool,
    /// Where the cursor moves to.
    pub cursor: i64,
    /// See [`SubscriptionState::cursor_time`].
    pub cursor_time: Timestamp,
    /// Offsets that leave without success: expired, or passed over by the label rule.
    pub skipped: i64,
    /// Those of them that the label rule has passed over.
    pub passed_over: i64,
    /// These failed messages are taken (into leases, or dropped).
    pub retries: Vec<i64>,
    /// See [`SubscriptionState::retry_cursor`].
    pub retry_cursor: i64,
    /// See [`SubscriptionState::failed_next`].
    pub failed_next: bool,
    /// What is given out.
    pub leases: Vec<Lease>,
}

/// A claim that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Where the subscription's row is now.
    pub place: Place,
    /// Whether failed messages wait, as the statement saw it.
    pub(crate) has_retries: bool,
}

// One statement for all subscriptions of a flush: move each that is still where it was read, take its failed messages, give
// out its leases. The row lock makes claims of one subscription exclusive; the version tells whoever waited that it lost.
// Whether a batch is in flight needs no second look: only claims give out leases, so what was read of them holds while the
// version does. Failed messages are looked for as of the beginning of the statement: those of a settlement that it had to wait
// for are not seen, but their wake-up comes behind. Of a FIFO queue such a settlement ends the batch in flight, so nobody claims
// beside it. Rows are found by place only (see `store/log/row_location.rs`): one that has moved has most likely been claimed from, and is
// read again. Ragged arrays travel flat with bounds; a row knows its part of them, so that nothing is joined row by row. Rows are
// met in the order of their keys, whatever the order of the claims, so that two rounds cannot deadlock.
/// The statement of [`claim`]; public for the test of its plan.
pub const CLAIM: &str = "
WITH moved AS (
    UPDATE subscriptions AS s
    SET version = s.version + 1, cursor_offset = i.cursor_offset, cursor_time = i.cursor_time,
        skipped = s.skipped + i.skipped, passed_over = s.passed_over + i.passed_over, retry_cursor = i.retry_cursor, failed_next = i.failed_next
    FROM (
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::tid[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::bigint[],
                             $8::integer[], $9::integer[], $10::integer[], $11::integer[],
                             $20::bigint[], $21::boolean[], $22::boolean[], $23::bigint[])
            AS i (stream_id, subscription_id, place, version, cursor_offset, cursor_time, skipped,
                  first_retry, last_retry, first_lease, last_lease, retry_cursor, failed_next, exclusive, passed_over)
        ORDER BY 1, 2
    ) AS i
    WHERE s.ctid = i.place AND s.stream_id + 0 = i.stream_id AND s.subscription_id + 0 = i.subscription_id
      AND s.version = i.version
      AND CASE WHEN i.first_retry <= i.last_retry OR NOT i.exclusive THEN true ELSE (SELECT true FROM retries AS r
              WHERE r.stream_id = i.stream_id AND r.subscription_id = i.subscription_id AND r.failure_id > i.retry_cursor
              LIMIT 1) IS NULL END
    RETURNING s.stream_id, s.subscription_id, s.ctid AS place, i.first_retry, i.last_retry, i.first_lease, i.last_lease,
              (SELECT true FROM retries AS r
               WHERE r.stream_id = i.stream_id AND r.subscription_id = i.subscription_id AND r.failure_id > i.retry_cursor
               LIMIT 1) IS NOT NULL AS has_retries
), taken AS (
    DELETE FROM retries AS r
    USING (
        SELECT stream_id, subscription_id, ($12::bigint[])[generate_series(first_retry, last_retry)] AS message_offset
        FROM moved
    ) AS t
    CROSS JOIN LATERAL (
        SELECT f.ctid AS place FROM retries AS f
        WHERE f.stream_id = t.stream_id AND f.subscription_id = t.subscription_id AND f.message_offset = t.message_offset
        OFFSET 0
    ) AS found
    WHERE r.ctid = found.place
), given AS (
    INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
    SELECT stream_id, subscription_id, ($13::uuid[])[n], ($14::timestamptz[])[n],
           ($17::bigint[])[($15::integer[])[n]:($16::integer[])[n]],
           ($18::integer[])[($15::integer[])[n]:($16::integer[])[n]],
           ($19::timestamptz[])[($15::integer[])[n]:($16::integer[])[n]]
    FROM (SELECT stream_id, subscription_id, generate_series(first_lease, last_lease) AS n FROM moved) AS g
)
SELECT stream_id, subscription_id, place, has_retries FROM moved";

// The statement of a claim of one subscription and messages never claimed, the most common round: the same in a third of the
// work. It looks for failed messages once, to refuse the claim of a FIFO queue or to tell of them.
macro_rules! claim_one_sql {
    ($guard:literal, $has_retries:literal) => {
        concat!(
            "
WITH moved AS (
    UPDATE subscriptions AS s
    SET version = version + 1, cursor_offset = $5, cursor_time = $6, skipped = skipped + $7, failed_next = $15,
        passed_over = passed_over + $16
    WHERE ctid = $3 AND stream_id + 0 = $1 AND subscription_id + 0 = $2 AND version = $4",
            $guard,
            "
    RETURNING stream_id, subscription_id, ctid AS place, ",
            $has_retries,
            " AS has_retries
), given AS (
    INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
    SELECT m.stream_id, m.subscription_id, g.lease_id, g.expires_at,
           ($12::bigint[])[g.first:g.last], ($13::integer[])[g.first:g.last], ($14::timestamptz[])[g.first:g.last]
    FROM moved AS m
    CROSS JOIN unnest($8::uuid[], $9::timestamptz[], $10::integer[], $11::integer[]) AS g (lease_id, expires_at, first, last)
)
SELECT stream_id, subscription_id, place, has_retries FROM moved"
        )
    };
}

/// The statement of [`claim`] for new messages of one subscription of a FIFO queue; public for the test of its plan.
pub const CLAIM_ONE_FIFO: &str = claim_one_sql!(
    "
      AND NOT EXISTS (SELECT FROM retries AS r
          WHERE r.stream_id = $1 AND r.subscription_id = $2 AND r.failure_id > s.retry_cursor)",
    "false"
);

/// The statement of [`claim`] for new messages of one subscription of another queue; public for the test of its plan.
pub const CLAIM_ONE: &str = claim_one_sql!(
    "",
    "(SELECT true FROM retries AS r
               WHERE r.stream_id = $1 AND r.subscription_id = $2 AND r.failure_id > s.retry_cursor
               LIMIT 1) IS NOT NULL"
);

/// Carries out the claims that still hold, and returns those.
pub async fn claim(conn: &mut PgConnection, claims: &[Claim]) -> sqlx::Result<BTreeMap<SubscriptionKey, Claimed>> {
    let rows = match claims {
        [one] if one.retries.is_empty() => claim_one(conn, one).await?,
        many => claim_many(conn, many).await?,
    };
    let claimed =
        |(stream, subscription, place, has_retries)| (key(stream, subscription), Claimed { place, has_retries });
    Ok(rows.into_iter().map(claimed).collect())
}

type Moved = (i64, i64, Place, bool);

async fn claim_one(conn: &mut PgConnection, claim: &Claim) -> sqlx::Result<Vec<Moved>> {
    let query = sqlx::query_as(if claim.exclusive { CLAIM_ONE_FIFO } else { CLAIM_ONE })
        .bind(claim.key.stream.0)
        .bind(claim.key.subscription.0)
        .bind(claim.place)
        .bind(claim.version)
        .bind(claim.cursor)
        .bind(claim.cursor_time)
        .bind(claim.skipped);
    let query = bind_leases(query, || claim.leases.iter()).bind(claim.failed_next);
    query.bind(claim.passed_over).fetch_all(conn).await
}

async fn claim_many(conn: &mut PgConnection, claims: &[Claim]) -> sqlx::Result<Vec<Moved>> {
    let (streams, subscriptions) = key_columns(claims.iter().map(|claim| &claim.key));
    let (first_retries, last_retries) = slice_bounds(claims.iter().map(|claim| claim.retries.len()));
    let (first_leases, last_leases) = slice_bounds(claims.iter().map(|claim| claim.leases.len()));
    let query = sqlx::query_as(CLAIM)
        .bind(streams)
        .bind(subscriptions)
        .bind(claims.iter().map(|claim| claim.place).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.version).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.cursor).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.cursor_time).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.skipped).collect::<Vec<_>>())
        .bind(first_retries)
        .bind(last_retries)
        .bind(first_leases)
        .bind(last_leases)
        .bind(claims.iter().flat_map(|claim| &claim.retries).copied().collect::<Vec<_>>());
    bind_leases(query, || claims.iter().flat_map(|claim| &claim.leases))
        .bind(claims.iter().map(|claim| claim.retry_cursor).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.failed_next).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.exclusive).collect::<Vec<_>>())
        .bind(claims.iter().map(|claim| claim.passed_over).collect::<Vec<_>>())
        .fetch_all(conn)
        .await
}

type Query<'q> = QueryAs<'q, Postgres, Moved, PgArguments>;

/// What both statements end with: leases, and their messages flat with bounds.
fn bind_leases<'q, 'a, I: Iterator<Item = &'a Lease>>(query: Query<'q>, leases: impl Fn() -> I) -> Query<'q> {
    let messages = || leases().flat_map(|lease| &lease.messages);
    let (firsts, lasts) = slice_bounds(leases().map(|lease| lease.messages.len()));
    query
        .bind(leases().map(|lease| lease.id.0).collect::<Vec<_>>())
        .bind(leases().map(|lease| lease.expires_at).collect::<Vec<_>>())
        .bind(firsts)
        .bind(lasts)
        .bind(messages().map(|message| message.offset).collect::<Vec<_>>())
        .bind(messages().map(|message| message.attempts).collect::<Vec<_>>())
        .bind(messages().map(|message| message.appended_at).collect::<Vec<_>>())
}
