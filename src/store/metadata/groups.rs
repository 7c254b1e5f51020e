//! Consumer groups: metadata, and a subscription on each stream they read.

use sqlx::{Acquire, PgConnection, PgPool};
use uuid::Uuid;

use super::deletion;
use super::queues::create_stream;
use super::rows::from_row;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{GroupId, ProjectId, QueueId, StreamId, SubscriptionId};
use crate::domain::labels::LabelRule;
use crate::domain::queue::{Group, GroupSummary, Queue};
use crate::domain::{Error, ErrorKind, Result};
use crate::store::session::sqlstate;

struct GroupRow {
    group_id: Uuid,
    queue_id: Uuid,
    name: String,
    subscription_id: i64,
    dead_letter_stream_id: Option<i64>,
}

from_row!(GroupRow { group_id, queue_id, name, subscription_id, dead_letter_stream_id });

impl From<GroupRow> for Group {
    fn from(row: GroupRow) -> Self {
        Self {
            id: GroupId(row.group_id),
            queue: QueueId(row.queue_id),
            name: row.name,
            subscription: SubscriptionId(row.subscription_id),
            dead_letters: row.dead_letter_stream_id.map(StreamId),
        }
    }
}

/// The error for a group that is not there, or not of this queue.
pub(crate) fn not_found(group: GroupId) -> Error {
    Error::new(ErrorKind::GroupNotFound, format!("group_id: no group {group} in this queue")).about("group_id")
}

/// The groups of a queue by creation.
#[tracing::instrument(name = "groups::list", level = "debug", skip_all)]
pub(crate) async fn list(pool: &PgPool, queue: QueueId) -> Result<Vec<Group>> {
    let rows: Vec<GroupRow> =
        sqlx::query_as("SELECT * FROM consumer_groups WHERE queue_id = $1 ORDER BY subscription_id")
            .bind(queue.0)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(Group::from).collect())
}

struct SummaryRow {
    group: GroupRow,
    label_tags: Option<Vec<String>>,
    label_all: bool,
    passed_over: i64,
}

from_row!(SummaryRow { label_tags, label_all, passed_over; group });

impl From<SummaryRow> for GroupSummary {
    fn from(row: SummaryRow) -> Self {
        Self {
            group: row.group.into(),
            rule: row.label_tags.and_then(|tags| LabelRule::new(tags, row.label_all)),
            passed_over: row.passed_over,
            counters: None,
        }
    }
}

const SUMMARIES: &str = "
SELECT g.*, s.label_tags, s.label_all, s.passed_over
FROM consumer_groups AS g
JOIN subscriptions AS s ON s.stream_id = $2 AND s.subscription_id = g.subscription_id
WHERE g.queue_id = $1 ORDER BY g.subscription_id";

/// The groups of a queue by creation, with their label rules, without counters.
#[tracing::instrument(name = "groups::summaries", level = "debug", skip_all)]
pub(crate) async fn summaries(pool: &PgPool, queue: &Queue) -> Result<Vec<GroupSummary>> {
    let query = sqlx::query_as(SUMMARIES).bind(queue.id.0).bind(queue.stream.0);
    let rows: Vec<SummaryRow> = query.fetch_all(pool).await?;
    Ok(rows.into_iter().map(GroupSummary::from).collect())
}

/// Creates groups, all or none, each with a reader that begins at the earliest message that has not expired.
#[tracing::instrument(name = "groups::create", level = "debug", skip_all)]
pub(crate) async fn create(
    pool: &PgPool,
    queue: &Queue,
    groups: &[(GroupId, String)],
    groups_max: i32,
    now: Timestamp,
) -> Result<Vec<Group>> {
    let mut tx = pool.begin().await?;
    sqlstate::limit_lock_waits(&mut tx).await?;
    let locked = sqlx::query("SELECT FROM queues WHERE queue_id = $1 FOR UPDATE").bind(queue.id.0);
    locked.fetch_optional(&mut *tx).await?.ok_or_else(|| super::queues::not_found(queue.id))?;
    let present: i32 = sqlx::query_scalar("SELECT count(*)::integer FROM consumer_groups WHERE queue_id = $1")
        .bind(queue.id.0)
        .fetch_one(&mut *tx)
        .await?;
    if i64::from(present) + i64::try_from(groups.len()).unwrap_or(i64::MAX) > i64::from(groups_max) {
        let asked = groups.len();
        let message =
            format!("names: {asked} groups asked for, the queue has {present}, at most {groups_max} are allowed");
        return Err(Error::new(ErrorKind::TooManyGroups, message).about("names"));
    }
    let mut created = Vec::with_capacity(groups.len());
    for (index, (id, name)) in groups.iter().enumerate() {
        let group = create_one(&mut tx, queue, *id, name, now).await;
        created.push(group.map_err(|error| sqlstate::classify_naming(error, &format!("names[{index}]"), name))?);
    }
    tx.commit().await?;
    Ok(created)
}

async fn create_one(
    conn: &mut PgConnection,
    queue: &Queue,
    id: GroupId,
    name: &str,
    now: Timestamp,
) -> sqlx::Result<Group> {
    let row: GroupRow = sqlx::query_as(
        "INSERT INTO consumer_groups (group_id, queue_id, name, subscription_id, dead_letter_stream_id)
         VALUES ($1, $2, $3, nextval('subscription_ids'), CASE WHEN $4 THEN nextval('stream_ids') END) RETURNING *",
    )
    .bind(id.0)
    .bind(queue.id.0)
    .bind(name)
    .bind(queue.max_consume_count.is_some())
    .fetch_one(&mut *conn)
    .await?;
    let group = Group::from(row);
    if let Some(stream) = group.dead_letters {
        create_stream(conn, stream, queue.id, "dead_letter", now).await?;
        subscribe(conn, stream, group.subscription, now).await?;
    }
    subscribe(conn, queue.stream, group.subscription, now.minus(queue.retention())).await?;
    Ok(group)
}

// What expired before the reader began was never consumed by it: it counts as skipped.
const SUBSCRIBE: &str = "
INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, skipped, cursor_time)
SELECT s.stream_id, $2, first.first_offset, first.first_offset, $3
FROM streams AS s
CROSS JOIN LATERAL (
    SELECT coalesce((SELECT g.base_offset FROM segments AS g
                     WHERE g.stream_id = s.stream_id AND g.appended_at > $3
                     ORDER BY g.appended_at, g.base_offset LIMIT 1), s.next_offset) AS first_offset
) AS first
WHERE s.stream_id = $1";

async fn subscribe(
    conn: &mut PgConnection,
    stream: StreamId,
    subscription: SubscriptionId,
    horizon: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(SUBSCRIBE).bind(stream.0).bind(subscription.0).bind(horizon).execute(conn).await?;
    Ok(())
}

/// Deletes a group with its readers and its stream of dead letters; what it has leased and failed is for
/// [`deletion::purge_reader`].
#[tracing::instrument(name = "groups::delete", level = "debug", skip_all)]
pub(crate) async fn delete(pool: &PgPool, project: &ProjectId, queue: &Queue, group: GroupId) -> Result<Group> {
    let (mut conn, mut runs) = (pool.acquire().await?, 0);
    loop {
        if let Some(deleted) = sqlstate::judge(delete_once(&mut conn, project, queue, group).await, &mut runs) {
            return deleted?.ok_or_else(|| not_found(group));
        }
    }
}

async fn delete_once(
    conn: &mut PgConnection,
    project: &ProjectId,
    queue: &Queue,
    group: GroupId,
) -> sqlx::Result<Option<Group>> {
    let mut tx = conn.begin().await?;
    sqlstate::limit_lock_waits(&mut tx).await?;
    let row: Option<GroupRow> = sqlx::query_as(
        "DELETE FROM consumer_groups AS g USING queues AS q
         WHERE g.group_id = $1 AND g.queue_id = $2 AND q.queue_id = g.queue_id AND q.project_id = $3 RETURNING g.*",
    )
    .bind(group.0)
    .bind(queue.id.0)
    .bind(project.as_str())
    .fetch_optional(&mut *tx)
    .await?;
    let Some(deleted) = row.map(Group::from) else { return Ok(None) };
    let mut streams = vec![queue.stream.0];
    streams.extend(deleted.dead_letters.map(|stream| stream.0));
    deletion::delete_reader(&mut tx, &streams, deleted.subscription).await?;
    if let Some(stream) = deleted.dead_letters {
        deletion::delete_streams(&mut tx, &[stream.0]).await?;
    }
    tx.commit().await?;
    Ok(Some(deleted))
}

/// What decides the fate of a failed message: whose reader it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReaderPolicy {
    /// The reader.
    pub subscription: SubscriptionId,
    /// The queue of its group.
    pub queue: QueueId,
    /// The queue's stream.
    pub stream: StreamId,
    /// Counted deliveries before a dead letter, and the stream it goes to.
    pub redrive: Option<(i32, StreamId)>,
    /// Hours a normal message is kept.
    pub retention_hours: i32,
}

struct PolicyRow {
    subscription_id: i64,
    queue_id: Uuid,
    stream_id: i64,
    max_consume_count: Option<i32>,
    dead_letter_stream_id: Option<i64>,
    retention_hours: i32,
}

from_row!(PolicyRow {
    subscription_id,
    queue_id,
    stream_id,
    max_consume_count,
    dead_letter_stream_id,
    retention_hours
});

impl From<PolicyRow> for ReaderPolicy {
    fn from(row: PolicyRow) -> Self {
        Self {
            subscription: SubscriptionId(row.subscription_id),
            queue: QueueId(row.queue_id),
            stream: StreamId(row.stream_id),
            redrive: row.max_consume_count.zip(row.dead_letter_stream_id.map(StreamId)),
            retention_hours: row.retention_hours,
        }
    }
}

/// The policies of readers; those that are gone are missing in the answer.
pub(crate) async fn policies(conn: &mut PgConnection, readers: &[SubscriptionId]) -> sqlx::Result<Vec<ReaderPolicy>> {
    let ids: Vec<i64> = readers.iter().map(|reader| reader.0).collect();
    let rows: Vec<PolicyRow> = sqlx::query_as(
        "SELECT g.subscription_id, q.queue_id, q.stream_id, q.max_consume_count, g.dead_letter_stream_id, q.retention_hours
         FROM consumer_groups AS g JOIN queues AS q USING (queue_id) WHERE g.subscription_id = ANY ($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ReaderPolicy::from).collect())
}
