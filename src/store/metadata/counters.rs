//! Counters of groups, computed from offsets: exact at rest, and no write ever pays for them.

use sqlx::PgPool;

use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::counters::GroupCounters;
use crate::domain::ids::SubscriptionKey;
use crate::store::sql::{Sql, parameters, row, statements};

row! {
    /// What is left of one stream for one subscription.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct SubscriptionCounters {
        next_offset: i64,
        first_offset: i64,
        cursor_offset: i64,
        skipped: i64,
        outstanding: i64,
        outstanding_live: i64,
    }
}

impl SubscriptionCounters {
    fn produced(&self) -> i64 {
        self.next_offset - self.first_offset
    }

    fn consumed(&self) -> i64 {
        self.cursor_offset - self.skipped - self.outstanding
    }

    fn available(&self) -> i64 {
        self.next_offset - self.cursor_offset.max(self.first_offset) + self.outstanding_live
    }
}

statements![READ];

parameters! {
    struct Read {
        stream_id: i64,
        subscription_id: i64,
        horizon: Timestamp,
    }
}

// outstanding: leased or failed; live: those that have not expired. Only rows of deliveries in flight are looked at.
static READ: Sql<Read, SubscriptionCounters> = Sql::new(
    "
WITH subscription AS (
    SELECT s.stream_id, s.subscription_id, s.cursor_offset, s.skipped, t.next_offset,
           coalesce((SELECT g.base_offset FROM segments AS g
                     WHERE g.stream_id = s.stream_id AND g.appended_at > $horizon
                     ORDER BY g.appended_at, g.base_offset LIMIT 1), t.next_offset) AS first_offset
    FROM subscriptions AS s JOIN streams AS t USING (stream_id)
    WHERE s.stream_id = $stream_id AND s.subscription_id = $subscription_id
), outstanding AS (
    SELECT unnest(l.offsets) AS message_offset FROM leases AS l JOIN subscription USING (stream_id, subscription_id)
    UNION ALL
    SELECT r.message_offset FROM retries AS r JOIN subscription USING (stream_id, subscription_id)
)
SELECT next_offset, first_offset, cursor_offset, skipped,
       (SELECT count(*) FROM outstanding) AS outstanding,
       (SELECT count(*) FROM outstanding AS o WHERE o.message_offset >= first_offset) AS outstanding_live
FROM subscription",
);

/// The counters of a group that reads one stream, and maybe one of dead letters.
#[tracing::instrument(name = "counters::group", level = "debug", skip_all)]
pub(crate) async fn group(
    pool: &PgPool,
    normal: (SubscriptionKey, Timestamp),
    dead_letters: Option<(SubscriptionKey, Timestamp)>,
) -> Result<GroupCounters> {
    let mut counters = GroupCounters::default();
    if let Some(subscription) = read(pool, normal).await? {
        counters.produced = subscription.produced();
        counters.consumed = subscription.consumed();
        counters.available = subscription.available();
    }
    if let Some(dead_letters) = dead_letters
        && let Some(subscription) = read(pool, dead_letters).await?
    {
        counters.produced_dead_letters = subscription.next_offset;
        counters.available_dead_letters = subscription.available();
    }
    Ok(counters)
}

async fn read(pool: &PgPool, (key, horizon): (SubscriptionKey, Timestamp)) -> Result<Option<SubscriptionCounters>> {
    let parameters = Read { stream_id: key.stream.0, subscription_id: key.subscription.0, horizon };
    Ok(READ.rows(parameters).fetch_optional(pool).await?)
}
