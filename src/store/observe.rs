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
    /// Dead letters that have not expired and are not acknowledged.
    pub dead_waiting: i64,
    /// When the oldest of them was appended.
    pub dead_oldest: Option<Timestamp>,
    /// Groups in all.
    pub total: i64,
}

// The largest backlogs first: never claimed, leased and failed. The tables of leases and retries swing between empty and many
// rows, and misled by old statistics a join with either may take a minute. So all rows of readers are added up in one pass
// before anything is joined, and that only by unique keys. Only for groups that are shown is the log looked at, one step into
// its primary key. 20,000 groups with 70,000 rows take half a second.
const GROUPS: &str = "
WITH outstanding AS (
    SELECT stream_id, subscription_id, cursor_offset, cursor_time, 0 AS leased, 0 AS failed, NULL::timestamptz AS oldest
    FROM subscriptions
    UNION ALL
    SELECT stream_id, subscription_id, NULL, NULL, cardinality(offsets), 0, appended_ats[1] FROM leases
    UNION ALL
    SELECT stream_id, subscription_id, NULL, NULL, 0, 1, appended_at FROM retries
), readers AS (
    SELECT c.queue_id, c.name, c.subscription_id, c.dead_letter_stream_id AS dead_stream_id,
           max(o.cursor_offset) FILTER (WHERE NOT dead) AS cursor_offset,
           max(o.cursor_time) FILTER (WHERE NOT dead) AS cursor_time,
           coalesce(sum(o.leased) FILTER (WHERE NOT dead), 0) AS leased,
           coalesce(sum(o.failed) FILTER (WHERE NOT dead), 0) AS failed,
           min(o.oldest) FILTER (WHERE NOT dead) AS oldest,
           max(o.cursor_offset) FILTER (WHERE dead) AS dead_cursor,
           max(o.cursor_time) FILTER (WHERE dead) AS dead_cursor_time,
           coalesce(sum(o.leased + o.failed) FILTER (WHERE dead), 0) AS dead_outstanding,
           min(o.oldest) FILTER (WHERE dead) AS dead_oldest
    FROM consumer_groups AS c
    JOIN outstanding AS o USING (subscription_id)
    CROSS JOIN LATERAL (SELECT o.stream_id IS NOT DISTINCT FROM c.dead_letter_stream_id AS dead) AS k
    GROUP BY c.group_id
), shown AS (
    SELECT r.*, q.project_id, q.name AS queue, q.retention_hours, q.stream_id,
           t.next_offset - r.cursor_offset AS unclaimed, count(*) OVER () AS total
    FROM readers AS r
    JOIN queues AS q USING (queue_id)
    JOIN streams AS t ON t.stream_id = q.stream_id
    WHERE r.cursor_offset IS NOT NULL
    ORDER BY t.next_offset - r.cursor_offset + r.leased + r.failed DESC, r.subscription_id
    LIMIT $2
)
SELECT s.project_id, s.queue, s.name, s.retention_hours, s.unclaimed, s.leased, s.failed,
       least(s.oldest, (
           SELECT g.appended_at FROM segments AS g
           WHERE s.unclaimed > 0 AND g.stream_id = s.stream_id AND g.appended_at >= s.cursor_time AND g.appended_at > $1
             AND g.base_offset + g.message_count > s.cursor_offset
           ORDER BY g.appended_at, g.base_offset LIMIT 1)) AS oldest,
       coalesce(d.next_offset, 0) AS dead_letters,
       s.dead_outstanding + coalesce(d.next_offset - n.first_offset, 0) AS dead_waiting,
       least(s.dead_oldest, n.appended_at) AS dead_oldest, s.total
FROM shown AS s
LEFT JOIN streams AS d ON d.stream_id = s.dead_stream_id
LEFT JOIN LATERAL (
    SELECT greatest(g.base_offset, s.dead_cursor) AS first_offset, g.appended_at FROM segments AS g
    WHERE d.next_offset > s.dead_cursor AND g.stream_id = s.dead_stream_id AND g.appended_at >= s.dead_cursor_time
      AND g.appended_at > $1 AND g.base_offset + g.message_count > s.dead_cursor
    ORDER BY g.appended_at, g.base_offset LIMIT 1
) AS n ON true";

/// The groups with the largest backlogs, at most `limit`. What was appended at the horizon or before has expired.
#[tracing::instrument(name = "observe::groups", level = "debug", skip_all)]
pub async fn groups(pool: &PgPool, horizon: Timestamp, limit: i64) -> Result<Vec<GroupBacklog>> {
    Ok(sqlx::query_as(GROUPS).bind(horizon).bind(limit).fetch_all(pool).await?)
}

/// How many groups there are.
pub async fn group_count(pool: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM consumer_groups").fetch_one(pool).await?)
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
