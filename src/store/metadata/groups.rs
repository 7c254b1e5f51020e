//! Consumer groups: metadata, and a subscription on each stream they read.

use sqlx::{Acquire, PgConnection, PgPool};
use uuid::Uuid;

use super::deletion;
use super::queues::create_stream;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{GroupId, ProjectId, QueueId, StreamId, SubscriptionId};
use crate::domain::labels::LabelRule;
use crate::domain::queue::{Group, GroupSummary, Queue};
use crate::domain::{Error, ErrorKind, Result};
use crate::store::session::sqlstate;
use crate::store::sql::{Sql, from_row, parameters, read_as, row, statements};

row! {
    struct GroupRow {
        group_id: Uuid,
        queue_id: Uuid,
        name: String,
        subscription_id: i64,
        dead_letter_stream_id: Option<i64>,
    }
}

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

read_as!(GroupRow => Group);

statements![LIST, SUMMARIES, LOCK_QUEUE, COUNT, INSERT, SUBSCRIBE, DELETE, POLICIES];

/// The error for a group that is not there, or not of this queue.
pub(crate) fn not_found(group: GroupId) -> Error {
    Error::new(ErrorKind::GroupNotFound, format!("group_id: no group {group} in this queue")).about("group_id")
}

static LIST: Sql<(Uuid,), Group> =
    Sql::new("SELECT * FROM consumer_groups WHERE queue_id = $1 ORDER BY subscription_id");

/// The groups of a queue by creation.
#[tracing::instrument(name = "groups::list", level = "debug", skip_all)]
pub(crate) async fn list(pool: &PgPool, queue: QueueId) -> Result<Vec<Group>> {
    Ok(LIST.rows((queue.0,)).fetch_all(pool).await?)
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

read_as!(SummaryRow => GroupSummary);

parameters! {
    struct Summaries {
        queue_id: Uuid,
        stream_id: i64,
    }
}

static SUMMARIES: Sql<Summaries, GroupSummary> = Sql::new(
    "
SELECT g.*, s.label_tags, s.label_all, s.passed_over
FROM consumer_groups AS g
JOIN subscriptions AS s ON s.stream_id = $stream_id AND s.subscription_id = g.subscription_id
WHERE g.queue_id = $queue_id ORDER BY g.subscription_id",
);

/// The groups of a queue by creation, with their label rules, without counters.
#[tracing::instrument(name = "groups::summaries", level = "debug", skip_all)]
pub(crate) async fn summaries(pool: &PgPool, queue: &Queue) -> Result<Vec<GroupSummary>> {
    let parameters = Summaries { queue_id: queue.id.0, stream_id: queue.stream.0 };
    Ok(SUMMARIES.rows(parameters).fetch_all(pool).await?)
}

static LOCK_QUEUE: Sql<(Uuid,), ()> = Sql::new("SELECT FROM queues WHERE queue_id = $1 FOR UPDATE");
static COUNT: Sql<(Uuid,), (i32,)> = Sql::new("SELECT count(*)::integer FROM consumer_groups WHERE queue_id = $1");

/// Creates groups, all or none, each with a subscription that begins at the earliest message that has not expired.
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
    let locked = LOCK_QUEUE.run((queue.id.0,)).fetch_optional(&mut *tx).await?;
    locked.ok_or_else(|| super::queues::not_found(queue.id))?;
    let present = COUNT.scalar((queue.id.0,)).fetch_one(&mut *tx).await?;
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

parameters! {
    struct Insert<'a> {
        group_id: Uuid,
        queue_id: Uuid,
        name: &'a str,
        has_dead_letters: bool,
    }
}

static INSERT: Sql<Insert<'static>, Group> = Sql::new("
INSERT INTO consumer_groups (group_id, queue_id, name, subscription_id, dead_letter_stream_id)
VALUES ($group_id, $queue_id, $name, nextval('subscription_ids'), CASE WHEN $has_dead_letters THEN nextval('stream_ids') END)
RETURNING *");

async fn create_one(
    conn: &mut PgConnection,
    queue: &Queue,
    id: GroupId,
    name: &str,
    now: Timestamp,
) -> sqlx::Result<Group> {
    let has_dead_letters = queue.max_consume_count.is_some();
    let parameters = Insert { group_id: id.0, queue_id: queue.id.0, name, has_dead_letters };
    let group = INSERT.rows(parameters).fetch_one(&mut *conn).await?;
    if let Some(stream) = group.dead_letters {
        create_stream(conn, stream, queue.id, "dead_letter", now).await?;
        subscribe(conn, stream, group.subscription, now).await?;
    }
    subscribe(conn, queue.stream, group.subscription, now.minus(queue.retention())).await?;
    Ok(group)
}

parameters! {
    struct Subscribe {
        stream_id: i64,
        subscription_id: i64,
        horizon: Timestamp,
    }
}

// What expired before the subscription began was never consumed by it: it counts as skipped.
static SUBSCRIBE: Sql<Subscribe, ()> = Sql::new(
    "
INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, skipped, cursor_time)
SELECT s.stream_id, $subscription_id, first.first_offset, first.first_offset, $horizon
FROM streams AS s
CROSS JOIN LATERAL (
    SELECT coalesce((SELECT g.base_offset FROM segments AS g
                     WHERE g.stream_id = s.stream_id AND g.appended_at > $horizon
                     ORDER BY g.appended_at, g.base_offset LIMIT 1), s.next_offset) AS first_offset
) AS first
WHERE s.stream_id = $stream_id",
);

async fn subscribe(
    conn: &mut PgConnection,
    stream: StreamId,
    subscription: SubscriptionId,
    horizon: Timestamp,
) -> sqlx::Result<()> {
    let parameters = Subscribe { stream_id: stream.0, subscription_id: subscription.0, horizon };
    SUBSCRIBE.run(parameters).execute(conn).await?;
    Ok(())
}

/// Deletes a group with its subscriptions and its stream of dead letters; what it has leased and failed is for
/// [`deletion::purge_subscription`].
#[tracing::instrument(name = "groups::delete", level = "debug", skip_all)]
pub(crate) async fn delete(pool: &PgPool, project: &ProjectId, queue: &Queue, group: GroupId) -> Result<Group> {
    let (mut conn, mut runs) = (pool.acquire().await?, 0);
    loop {
        if let Some(deleted) = sqlstate::judge(delete_once(&mut conn, project, queue, group).await, &mut runs) {
            return deleted?.ok_or_else(|| not_found(group));
        }
    }
}

parameters! {
    struct Delete<'a> {
        group_id: Uuid,
        queue_id: Uuid,
        project_id: &'a str,
    }
}

static DELETE: Sql<Delete<'static>, Group> = Sql::new(
    "
DELETE FROM consumer_groups AS g USING queues AS q
WHERE g.group_id = $group_id AND g.queue_id = $queue_id AND q.queue_id = g.queue_id AND q.project_id = $project_id
RETURNING g.*",
);

async fn delete_once(
    conn: &mut PgConnection,
    project: &ProjectId,
    queue: &Queue,
    group: GroupId,
) -> sqlx::Result<Option<Group>> {
    let mut tx = conn.begin().await?;
    sqlstate::limit_lock_waits(&mut tx).await?;
    let parameters = Delete { group_id: group.0, queue_id: queue.id.0, project_id: project.as_str() };
    let Some(deleted) = DELETE.rows(parameters).fetch_optional(&mut *tx).await? else { return Ok(None) };
    let mut streams = vec![queue.stream.0];
    streams.extend(deleted.dead_letters.map(|stream| stream.0));
    deletion::delete_subscription(&mut tx, &streams, deleted.subscription).await?;
    if let Some(stream) = deleted.dead_letters {
        deletion::delete_streams(&mut tx, &[stream.0]).await?;
    }
    tx.commit().await?;
    Ok(Some(deleted))
}

/// What decides the fate of a failed message: whose subscription it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionPolicy {
    /// The subscription.
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

row! {
    struct PolicyRow {
        subscription_id: i64,
        queue_id: Uuid,
        stream_id: i64,
        max_consume_count: Option<i32>,
        dead_letter_stream_id: Option<i64>,
        retention_hours: i32,
    }
}

impl From<PolicyRow> for SubscriptionPolicy {
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

read_as!(PolicyRow => SubscriptionPolicy);

static POLICIES: Sql<(&[i64],), SubscriptionPolicy> = Sql::new(
    "
SELECT g.subscription_id, q.queue_id, q.stream_id, q.max_consume_count, g.dead_letter_stream_id, q.retention_hours
FROM consumer_groups AS g JOIN queues AS q USING (queue_id) WHERE g.subscription_id = ANY ($1)",
);

/// The policies of subscriptions; those that are gone are missing in the answer.
pub(crate) async fn policies(
    conn: &mut PgConnection,
    subscriptions: &[SubscriptionId],
) -> sqlx::Result<Vec<SubscriptionPolicy>> {
    let ids: Vec<i64> = subscriptions.iter().map(|subscription| subscription.0).collect();
    POLICIES.rows((&ids,)).fetch_all(conn).await
}
