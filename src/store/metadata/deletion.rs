//! What deletions of groups and queues share. One short transaction takes away what makes subscriptions and streams exist; what pointed
//! into them can be reached by nobody then, and goes in batches. So nobody waits for a deletion, however much there is to delete.
//!
//! Should the batches not come to their end, or meet rows that somebody has locked, the rest does no harm: leases end and are swept, failed
//! messages expire, delays end, and each goes then, for its subscription or stream is gone.

use sqlx::{PgConnection, PgPool};

use crate::domain::ids::{StreamId, SubscriptionId};
use crate::store::sql::{Sql, parameters, statements};

/// Rows deleted by one statement, milliseconds of work: others that want the same rows wait no longer.
const BATCH_ROWS: i64 = 1_000;

statements![
    LOCK_SUBSCRIPTION,
    DELETE_SUBSCRIPTION,
    LOCK_SUBSCRIPTIONS,
    DELETE_SUBSCRIPTIONS,
    LOCK_STREAMS,
    DELETE_STREAMS,
    PURGE_LEASES_OF_SUBSCRIPTION,
    PURGE_RETRIES_OF_SUBSCRIPTION,
    PURGE_LEASES,
    PURGE_RETRIES,
    PURGE_DELAYED,
];

parameters! {
    /// One subscription of streams.
    struct Subscription<'a> {
        stream_ids: &'a [i64],
        subscription_id: i64,
    }
}

static LOCK_SUBSCRIPTION: Sql<Subscription<'static>, ()> = Sql::new("
SELECT FROM subscriptions WHERE stream_id = ANY ($stream_ids) AND subscription_id = $subscription_id ORDER BY stream_id, subscription_id FOR UPDATE");

/// Deletes one subscription of streams.
static DELETE_SUBSCRIPTION: Sql<Subscription<'static>, ()> =
    Sql::new("DELETE FROM subscriptions WHERE stream_id = ANY ($stream_ids) AND subscription_id = $subscription_id");

static LOCK_SUBSCRIPTIONS: Sql<(&[i64],), ()> = Sql::new(
    "
SELECT FROM subscriptions WHERE stream_id = ANY ($1) ORDER BY stream_id, subscription_id FOR UPDATE",
);
static DELETE_SUBSCRIPTIONS: Sql<(&[i64],), ()> = Sql::new("DELETE FROM subscriptions WHERE stream_id = ANY ($1)");

parameters! {
    /// A batch of the rows of one subscription.
    struct BatchOfSubscription<'a> {
        stream_ids: &'a [i64],
        subscription_id: i64,
        limit: i64,
    }
}

parameters! {
    /// A batch of the rows of streams.
    struct Batch<'a> {
        stream_ids: &'a [i64],
        limit: i64,
    }
}

/// Deletes a batch of what one subscription has leased.
static PURGE_LEASES_OF_SUBSCRIPTION: Sql<BatchOfSubscription<'static>, ()> = Sql::new("
DELETE FROM leases WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM leases WHERE stream_id = ANY ($stream_ids) AND subscription_id = $subscription_id LIMIT $limit FOR UPDATE SKIP LOCKED))");

/// Deletes a batch of what has failed for one subscription.
static PURGE_RETRIES_OF_SUBSCRIPTION: Sql<BatchOfSubscription<'static>, ()> = Sql::new("
DELETE FROM retries WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM retries WHERE stream_id = ANY ($stream_ids) AND subscription_id = $subscription_id LIMIT $limit FOR UPDATE SKIP LOCKED))");

// In the order of the key, so that no planner thinks of reading the table whole.
macro_rules! purge_sql {
    ($table:literal, $order:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE ctid = ANY (ARRAY(
    SELECT d.location FROM unnest($stream_ids::bigint[]) AS s (id) CROSS JOIN LATERAL (
        SELECT ctid AS location FROM ",
            $table,
            " WHERE stream_id = s.id ORDER BY ",
            $order,
            " LIMIT $limit FOR UPDATE SKIP LOCKED
    ) AS d LIMIT $limit))"
        )
    };
}

/// The same for all subscriptions of streams.
static PURGE_LEASES: Sql<Batch<'static>, ()> = Sql::new(purge_sql!("leases", "stream_id, subscription_id, lease_id"));
/// The same for all subscriptions of streams.
static PURGE_RETRIES: Sql<Batch<'static>, ()> =
    Sql::new(purge_sql!("retries", "stream_id, subscription_id, message_offset"));
/// Deletes a batch of the messages of streams whose delay has not ended.
static PURGE_DELAYED: Sql<Batch<'static>, ()> =
    Sql::new(purge_sql!("delayed_messages", "stream_id, due_at, delayed_id"));

/// Deletes one subscription of streams; whoever settles or claims for it has come to its end before.
pub(super) async fn delete_subscription(
    conn: &mut PgConnection,
    streams: &[i64],
    subscription: SubscriptionId,
) -> sqlx::Result<()> {
    for statement in [&LOCK_SUBSCRIPTION, &DELETE_SUBSCRIPTION] {
        statement
            .run(Subscription { stream_ids: streams, subscription_id: subscription.0 })
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Deletes all subscriptions of streams.
pub(super) async fn delete_subscriptions(conn: &mut PgConnection, streams: &[i64]) -> sqlx::Result<()> {
    for statement in [&LOCK_SUBSCRIPTIONS, &DELETE_SUBSCRIPTIONS] {
        statement.run((streams,)).execute(&mut *conn).await?;
    }
    Ok(())
}

static LOCK_STREAMS: Sql<(&[i64],), ()> =
    Sql::new("SELECT FROM streams WHERE stream_id = ANY ($1) ORDER BY stream_id FOR UPDATE");
static DELETE_STREAMS: Sql<(&[i64],), ()> = Sql::new("DELETE FROM streams WHERE stream_id = ANY ($1)");

/// Deletes stream rows, which ends appends to them.
pub(super) async fn delete_streams(conn: &mut PgConnection, streams: &[i64]) -> sqlx::Result<()> {
    for statement in [&LOCK_STREAMS, &DELETE_STREAMS] {
        statement.run((streams,)).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Deletes what pointed into streams for a subscription that is gone.
pub(crate) async fn purge_subscription(pool: &PgPool, streams: &[StreamId], subscription: SubscriptionId) {
    let streams = ids(streams);
    let batch = || BatchOfSubscription { stream_ids: &streams, subscription_id: subscription.0, limit: BATCH_ROWS };
    for statement in [&PURGE_LEASES_OF_SUBSCRIPTION, &PURGE_RETRIES_OF_SUBSCRIPTION] {
        while let Purged::Full = Purged::of(statement.run(batch()).execute(pool).await) {}
    }
}

/// Deletes what pointed into streams that are gone, or waited for them.
pub(crate) async fn purge_streams(pool: &PgPool, streams: &[StreamId]) {
    let streams = ids(streams);
    let batch = || Batch { stream_ids: &streams, limit: BATCH_ROWS };
    for statement in [&PURGE_LEASES, &PURGE_RETRIES, &PURGE_DELAYED] {
        while let Purged::Full = Purged::of(statement.run(batch()).execute(pool).await) {}
    }
}

/// Deletes the delayed messages of a stream that is gone.
pub(in crate::store) async fn purge_delayed(conn: &mut PgConnection, stream: StreamId) {
    let streams = [stream.0];
    let batch = || Batch { stream_ids: &streams, limit: BATCH_ROWS };
    while let Purged::Full = Purged::of(PURGE_DELAYED.run(batch()).execute(&mut *conn).await) {}
}

fn ids(streams: &[StreamId]) -> Vec<i64> {
    streams.iter().map(|stream| stream.0).collect()
}

/// How a batch ended.
enum Purged {
    /// There may be more.
    Full,
    /// There was no more, or it failed: the deletion itself is done, and what is left goes in time.
    Last,
}

impl Purged {
    fn of(batch: sqlx::Result<sqlx::postgres::PgQueryResult>) -> Self {
        match batch {
            Ok(deleted) if deleted.rows_affected() >= BATCH_ROWS.unsigned_abs() => Self::Full,
            Ok(_) => Self::Last,
            Err(error) => {
                tracing::warn!(%error, "what a deleted queue or group leaves behind is not deleted at once");
                Self::Last
            }
        }
    }
}
