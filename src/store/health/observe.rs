//! What operators want to know of queues and groups: read when somebody asks, never on the way of a message.

use sqlx::PgPool;
use uuid::Uuid;

use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{StreamId, SubscriptionId, SubscriptionKey};
use crate::store::sql::{Sql, from_row, parameters, row, statements};

/// What a group has left to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupBacklog {
    /// The project.
    pub project_id: String,
    /// Name of the queue.
    pub queue: String,
    /// Name of the group.
    pub name: String,
    /// How long its messages are kept.
    pub retention_hours: i32,
    /// Id of the queue.
    pub queue_id: Uuid,
    /// Id of the group.
    pub group_id: Uuid,
    /// Its reader's stream.
    pub stream_id: i64,
    /// Its reader.
    pub subscription_id: i64,
    /// Moves with every claim.
    pub version: i64,
    /// Next offset never claimed.
    pub cursor_offset: i64,
    /// Messages that its label rule has passed over.
    pub passed_over: i64,
    /// Messages never claimed that have not expired.
    pub(crate) unclaimed: i64,
    /// Messages never claimed that have expired.
    pub expired: i64,
    /// Messages in leases.
    pub leased: i64,
    /// Messages that have failed.
    pub failed: i64,
    /// Dead letters ever.
    pub dead_letters: i64,
    /// When the oldest message not acknowledged was appended.
    pub oldest: Option<Timestamp>,
    /// Dead letters that have not expired and are not acknowledged.
    pub(crate) dead_waiting: i64,
    /// When the oldest of them was appended.
    pub(crate) dead_oldest: Option<Timestamp>,
    /// Groups in all.
    pub total: i64,
}

from_row!(GroupBacklog {
    project_id,
    queue,
    name,
    retention_hours,
    queue_id,
    group_id,
    stream_id,
    subscription_id,
    version,
    cursor_offset,
    passed_over,
    unclaimed,
    expired,
    leased,
    failed,
    dead_letters,
    oldest,
    dead_waiting,
    dead_oldest,
    total
});

impl GroupBacklog {
    /// What reads the messages of the group.
    pub(crate) fn reader(&self) -> SubscriptionKey {
        SubscriptionKey { stream: StreamId(self.stream_id), subscription: SubscriptionId(self.subscription_id) }
    }
}

statements![GROUPS, NAMES, COUNT];

parameters! {
    struct Groups {
        now: Timestamp,
        horizon: Timestamp,
        limit: i64,
    }
}

// The largest backlogs and the oldest messages first, in turns: neither hides the other. Expired messages count as long as nobody has looked
// at the log. The tables of leases and retries swing between empty and many
// rows, and misled by old statistics a join with either may take a minute. So all rows of readers are added up in one pass
// before anything is joined, and that only by unique keys. Only for groups that are shown is the log looked at, one step into
// its primary key. 20,000 groups with 70,000 rows take half a second.
static GROUPS: Sql<Groups, GroupBacklog> = Sql::new("
WITH outstanding AS (
    SELECT stream_id, subscription_id, cursor_offset, cursor_time, version, passed_over,
           0 AS leased, 0 AS failed, NULL::timestamptz AS oldest
    FROM subscriptions
    UNION ALL
    SELECT stream_id, subscription_id, NULL, NULL, NULL, NULL, cardinality(offsets), 0, appended_ats[1] FROM leases
    UNION ALL
    SELECT stream_id, subscription_id, NULL, NULL, NULL, NULL, 0, 1, appended_at FROM retries
), readers AS (
    SELECT c.queue_id, c.group_id, c.name, c.subscription_id, c.dead_letter_stream_id AS dead_stream_id,
           max(o.cursor_offset) FILTER (WHERE NOT dead) AS cursor_offset,
           max(o.cursor_time) FILTER (WHERE NOT dead) AS cursor_time,
           max(o.version) FILTER (WHERE NOT dead) AS version,
           max(o.passed_over) FILTER (WHERE NOT dead) AS passed_over,
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
), ranked AS (
    SELECT r.*, q.project_id, q.name AS queue, q.retention_hours, q.stream_id, t.next_offset,
           $now::timestamptz - make_interval(hours => q.retention_hours) AS horizon, count(*) OVER () AS total,
           row_number() OVER (ORDER BY t.next_offset - r.cursor_offset + r.leased + r.failed DESC) AS by_backlog,
           row_number() OVER (ORDER BY least(r.oldest, CASE WHEN t.next_offset > r.cursor_offset THEN r.cursor_time END)) AS by_age
    FROM readers AS r
    JOIN queues AS q USING (queue_id)
    JOIN streams AS t ON t.stream_id = q.stream_id
    WHERE r.cursor_offset IS NOT NULL
), shown AS (
    SELECT * FROM ranked ORDER BY least(by_backlog, by_age), subscription_id LIMIT $limit
)
SELECT s.project_id, s.queue, s.name, s.retention_hours, s.queue_id, s.group_id, s.stream_id, s.subscription_id, s.leased, s.failed,
       s.version, s.cursor_offset, s.passed_over,
       coalesce(s.next_offset - m.first_offset, 0) AS unclaimed,
       coalesce(m.first_offset, s.next_offset) - s.cursor_offset AS expired,
       least(CASE WHEN s.oldest > s.horizon THEN s.oldest END, m.appended_at) AS oldest,
       coalesce(d.next_offset, 0) AS dead_letters,
       s.dead_outstanding + coalesce(d.next_offset - n.first_offset, 0) AS dead_waiting,
       least(s.dead_oldest, n.appended_at) AS dead_oldest, s.total
FROM shown AS s
LEFT JOIN streams AS d ON d.stream_id = s.dead_stream_id
LEFT JOIN LATERAL (
    SELECT greatest(g.base_offset, s.cursor_offset) AS first_offset, g.appended_at FROM segments AS g
    WHERE s.next_offset > s.cursor_offset AND g.stream_id = s.stream_id AND g.appended_at >= s.cursor_time
      AND g.appended_at > $horizon AND g.appended_at > s.horizon AND g.base_offset + g.message_count > s.cursor_offset
    ORDER BY g.appended_at, g.base_offset LIMIT 1
) AS m ON true
LEFT JOIN LATERAL (
    SELECT greatest(g.base_offset, s.dead_cursor) AS first_offset, g.appended_at FROM segments AS g
    WHERE d.next_offset > s.dead_cursor AND g.stream_id = s.dead_stream_id AND g.appended_at >= s.dead_cursor_time
      AND g.appended_at > $horizon AND g.base_offset + g.message_count > s.dead_cursor
    ORDER BY g.appended_at, g.base_offset LIMIT 1
) AS n ON true");

/// The groups with the largest backlogs and those with the oldest messages, at most `limit`. Of every stream has expired what was appended at
/// the horizon or before.
#[tracing::instrument(name = "observe::groups", level = "debug", skip_all)]
pub(crate) async fn groups(pool: &PgPool, now: Timestamp, horizon: Timestamp, limit: i64) -> Result<Vec<GroupBacklog>> {
    Ok(GROUPS.rows(Groups { now, horizon, limit }).fetch_all(pool).await?)
}

row! {
    struct Named {
        stream_id: i64,
        subscription_id: i64,
        project_id: String,
        queue: String,
        name: String,
    }
}

static NAMES: Sql<(&[i64],), Named> = Sql::new(
    "
SELECT q.stream_id, c.subscription_id, q.project_id, q.name AS queue, c.name
FROM consumer_groups AS c JOIN queues AS q USING (queue_id) WHERE c.subscription_id = ANY ($1)",
);

/// Project, queue and group of readers of queues; readers of dead letters are missing in the answer.
pub(crate) async fn names(pool: &PgPool, readers: &[SubscriptionKey]) -> Result<Vec<(SubscriptionKey, [String; 3])>> {
    let ids: Vec<i64> = readers.iter().map(|reader| reader.subscription.0).collect();
    let rows = NAMES.rows((&ids,)).fetch_all(pool).await?;
    let named = |row: Named| {
        let (stream, subscription) = (StreamId(row.stream_id), SubscriptionId(row.subscription_id));
        (SubscriptionKey { stream, subscription }, [row.project_id, row.queue, row.name])
    };
    Ok(rows.into_iter().map(named).collect())
}

static COUNT: Sql<(), (i64,)> = Sql::new("SELECT count(*) FROM consumer_groups");

/// How many groups there are.
pub(crate) async fn group_count(pool: &PgPool) -> Result<i64> {
    Ok(COUNT.scalar(()).fetch_one(pool).await?)
}
