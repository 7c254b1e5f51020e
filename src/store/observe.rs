//! What operators want to know of queues, groups and Postgres: read when somebody asks, never on the way of a message.

use sqlx::{FromRow, PgPool};

use crate::domain::Result;
use crate::domain::clock::Timestamp;

/// What a group has left to do.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct GroupBacklog {
    /// The project.
    pub project_id: String,
    /// Name of the queue.
    pub queue: String,
    /// Name of the group.
    pub name: String,
    /// How long its messages are kept.
    pub retention_hours: i32,
    /// Messages never claimed, expired ones included.
    pub unclaimed: i64,
    /// Messages in leases.
    pub leased: i64,
    /// Messages that have failed.
    pub failed: i64,
    /// Dead letters ever.
    pub dead_letters: i64,
    /// When the oldest message not acknowledged was appended.
    pub oldest: Option<Timestamp>,
    /// Groups in all.
    pub total: i64,
}

// The largest backlogs first. The oldest message never claimed is one step into the primary key of the log.
const GROUPS: &str = "
WITH reader AS (
    SELECT q.project_id, q.name AS queue, c.name, q.retention_hours, s.stream_id, s.subscription_id, s.cursor_offset,
           s.cursor_time, t.next_offset, c.dead_letter_stream_id, count(*) OVER () AS total
    FROM consumer_groups AS c
    JOIN queues AS q USING (queue_id)
    JOIN subscriptions AS s ON s.stream_id = q.stream_id AND s.subscription_id = c.subscription_id
    JOIN streams AS t ON t.stream_id = q.stream_id
    ORDER BY t.next_offset - s.cursor_offset DESC, s.subscription_id
    LIMIT $2
), leased AS (
    SELECT stream_id, subscription_id, sum(cardinality(offsets))::bigint AS messages, min(appended_ats[1]) AS oldest
    FROM leases GROUP BY stream_id, subscription_id
), failed AS (
    SELECT stream_id, subscription_id, count(*) AS messages, min(appended_at) AS oldest
    FROM retries GROUP BY stream_id, subscription_id
)
SELECT r.project_id, r.queue, r.name, r.retention_hours, r.next_offset - r.cursor_offset AS unclaimed,
       coalesce(l.messages, 0) AS leased, coalesce(f.messages, 0) AS failed, coalesce(d.next_offset, 0) AS dead_letters,
       least(l.oldest, f.oldest, CASE WHEN r.next_offset > r.cursor_offset THEN
           (SELECT g.appended_at FROM segments AS g
            WHERE g.stream_id = r.stream_id AND g.appended_at >= r.cursor_time AND g.appended_at > $1
              AND g.base_offset + g.message_count > r.cursor_offset
            ORDER BY g.appended_at, g.base_offset LIMIT 1) END) AS oldest,
       r.total
FROM reader AS r
LEFT JOIN leased AS l USING (stream_id, subscription_id)
LEFT JOIN failed AS f USING (stream_id, subscription_id)
LEFT JOIN streams AS d ON d.stream_id = r.dead_letter_stream_id";

/// The groups with the largest backlogs, at most `limit`. What was appended at the horizon or before has expired.
#[tracing::instrument(name = "observe::groups", level = "debug", skip_all)]
pub async fn groups(pool: &PgPool, horizon: Timestamp, limit: i64) -> Result<Vec<GroupBacklog>> {
    Ok(sqlx::query_as(GROUPS).bind(horizon).bind(limit).fetch_all(pool).await?)
}

const DEAD_ROWS: &str = "
SELECT relname::text, n_dead_tup FROM pg_stat_user_tables
WHERE relid = ANY (ARRAY['streams', 'subscriptions', 'leases', 'retries', 'delayed_messages']::regclass[]::oid[])";

/// Dead rows of the hot tables, as Postgres estimates them.
#[tracing::instrument(name = "observe::dead_rows", level = "debug", skip_all)]
pub async fn dead_rows(pool: &PgPool) -> Result<Vec<(String, i64)>> {
    Ok(sqlx::query_as(DEAD_ROWS).fetch_all(pool).await?)
}

const OLDEST_SNAPSHOT: &str = "
SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8
FROM pg_stat_activity WHERE backend_xmin IS NOT NULL";

/// Age in seconds of the oldest transaction that keeps dead rows from being removed.
#[tracing::instrument(name = "observe::oldest_snapshot", level = "debug", skip_all)]
pub async fn oldest_snapshot(pool: &PgPool) -> Result<f64> {
    Ok(sqlx::query_scalar(OLDEST_SNAPSHOT).fetch_one(pool).await?)
}
