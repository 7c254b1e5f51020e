//! Queues: metadata and the stream each owns.

use sqlx::{Acquire, PgConnection, PgPool};
use uuid::Uuid;

use super::deletion;
use super::rows;
use crate::domain::clock::Timestamp;
use crate::domain::counters::QueueQuota;
use crate::domain::ids::{ProjectId, QueueId, StreamId};
use crate::domain::page::{ListPage, QueueKey};
use crate::domain::queue::{NewQueue, Queue, QueueMode, QueueSummary};
use crate::domain::{Error, ErrorKind, Result};
use crate::memory::Answer;
use crate::store::installation;
use crate::store::session::sqlstate;
use crate::store::sql::{Sql, from_row, parameters, statements};

statements![CREATION_LOCK, INSERT, INSERT_STREAM, COUNT, FIND, SUMMARY, SUMMARIES, LOCK, DEAD_LETTER_STREAMS, DELETE,];

/// One creation at a time in a project of this installation.
static CREATION_LOCK: Sql<(&str,), ()> =
    Sql::new(concat!("SELECT pg_advisory_xact_lock(hashtextextended($1, ", installation!(), "))"));

pub(super) struct QueueRow {
    queue_id: Uuid,
    project_id: String,
    name: String,
    description: String,
    mode: String,
    max_consume_count: Option<i32>,
    retention_hours: i32,
    created_at: Timestamp,
    stream_id: i64,
}

from_row!(QueueRow {
    queue_id,
    project_id,
    name,
    description,
    mode,
    max_consume_count,
    retention_hours,
    created_at,
    stream_id
});

impl TryFrom<QueueRow> for Queue {
    type Error = Error;

    fn try_from(row: QueueRow) -> Result<Self> {
        let unreadable = |column: &str| Error::new(ErrorKind::DataCorrupt, format!("queue {}: {column}", row.queue_id));
        Ok(Self {
            id: QueueId(row.queue_id),
            project: ProjectId::parse(&row.project_id).map_err(|_| unreadable("project_id"))?,
            mode: QueueMode::parse(&row.mode).ok_or_else(|| unreadable("mode"))?,
            name: row.name,
            description: row.description,
            max_consume_count: row.max_consume_count,
            retention_hours: row.retention_hours,
            created_at: row.created_at,
            stream: StreamId(row.stream_id),
        })
    }
}

parameters! {
    struct Insert<'a> {
        queue_id: Uuid,
        project_id: &'a str,
        name: &'a str,
        description: &'a str,
        mode: &'a str,
        max_consume_count: Option<i32>,
        retention_hours: i32,
        created_at: Timestamp,
    }
}

static INSERT: Sql<Insert<'static>, QueueRow> = Sql::new("
INSERT INTO queues (queue_id, project_id, name, description, mode, max_consume_count, retention_hours, created_at, stream_id)
VALUES ($queue_id, $project_id, $name, $description, $mode, $max_consume_count, $retention_hours, $created_at,
        nextval('stream_ids'))
RETURNING *");

/// Creates a queue and its stream, within the quota of the project.
#[tracing::instrument(name = "queues::create", level = "debug", skip_all)]
pub async fn create(
    pool: &PgPool,
    project: &ProjectId,
    id: QueueId,
    new: &NewQueue,
    quota: i32,
    now: Timestamp,
) -> Result<Queue> {
    let mut tx = pool.begin().await?;
    sqlstate::limit_lock_waits(&mut tx).await?;
    // So that the quota holds.
    CREATION_LOCK.run((project.as_str(),)).execute(&mut *tx).await?;
    let used = count(&mut tx, project).await?;
    if used >= quota {
        let message = format!("quota of {quota} queues used up: project {project} has {used}");
        return Err(Error::new(ErrorKind::QueueQuota, message));
    }
    let inserted = INSERT.rows(Insert::of(project, id, new, now)).fetch_one(&mut *tx).await;
    let row = inserted.map_err(|error| sqlstate::classify_naming(error, "name", &new.name))?;
    let queue = Queue::try_from(row)?;
    create_stream(&mut tx, queue.stream, queue.id, "normal", now).await?;
    tx.commit().await?;
    Ok(queue)
}

impl<'a> Insert<'a> {
    fn of(project: &'a ProjectId, id: QueueId, new: &'a NewQueue, now: Timestamp) -> Self {
        Self {
            queue_id: id.0,
            project_id: project.as_str(),
            name: &new.name,
            description: &new.description,
            mode: new.mode.as_str(),
            max_consume_count: new.max_consume_count,
            retention_hours: new.retention_hours,
            created_at: now,
        }
    }
}

parameters! {
    struct InsertStream<'a> {
        stream_id: i64,
        last_appended_at: Timestamp,
        queue_id: Uuid,
        kind: &'a str,
    }
}

static INSERT_STREAM: Sql<InsertStream<'static>, ()> = Sql::new("
INSERT INTO streams (stream_id, last_appended_at, queue_id, kind) VALUES ($stream_id, $last_appended_at, $queue_id, $kind)");

/// Adds an empty stream.
pub(super) async fn create_stream(
    conn: &mut PgConnection,
    stream: StreamId,
    queue: QueueId,
    kind: &str,
    now: Timestamp,
) -> sqlx::Result<()> {
    // The first append comes behind it, and may come in the same instant.
    let last_appended_at = Timestamp(now.0 - 1);
    let parameters = InsertStream { stream_id: stream.0, last_appended_at, queue_id: queue.0, kind };
    INSERT_STREAM.run(parameters).execute(conn).await?;
    Ok(())
}

static COUNT: Sql<(&str,), (i32,)> = Sql::new("SELECT count(*)::integer FROM queues WHERE project_id = $1");

async fn count(conn: &mut PgConnection, project: &ProjectId) -> sqlx::Result<i32> {
    COUNT.scalar((project.as_str(),)).fetch_one(conn).await
}

/// How much of its quota a project uses.
#[tracing::instrument(name = "queues::quota", level = "debug", skip_all)]
pub async fn quota(pool: &PgPool, project: &ProjectId, quota: i32) -> Result<QueueQuota> {
    let used = count(&mut *pool.acquire().await?, project).await?;
    Ok(QueueQuota { quota, used })
}

parameters! {
    /// One queue of a project.
    struct One<'a> {
        queue_id: Uuid,
        project_id: &'a str,
    }
}

static FIND: Sql<One<'static>, QueueRow> =
    Sql::new("SELECT * FROM queues WHERE queue_id = $queue_id AND project_id = $project_id");

/// A queue of a project.
#[tracing::instrument(name = "queues::find", level = "debug", skip_all)]
pub async fn find(pool: &PgPool, project: &ProjectId, queue: QueueId) -> Result<Queue> {
    let one = One { queue_id: queue.0, project_id: project.as_str() };
    let row = FIND.rows(one).fetch_optional(pool).await?;
    row.ok_or_else(|| not_found(queue))?.try_into()
}

/// The error for a queue that is not there, or not in this project.
pub(crate) fn not_found(queue: QueueId) -> Error {
    Error::new(ErrorKind::QueueNotFound, format!("queue_id: no queue {queue} in this project")).about("queue_id")
}

struct SummaryRow {
    queue: QueueRow,
    produced: i64,
    group_count: i32,
}

from_row!(SummaryRow { produced, group_count; queue });

// The first offset that has not expired is one step into the primary key of segments; nothing is counted but groups.
macro_rules! summaries_sql {
    ($which:literal) => {
        concat!(
            "
SELECT q.*,
       s.next_offset - coalesce(
           (SELECT g.base_offset FROM segments AS g
            WHERE g.stream_id = q.stream_id AND g.appended_at > $now::timestamptz - make_interval(hours => q.retention_hours)
            ORDER BY g.appended_at, g.base_offset LIMIT 1), s.next_offset) AS produced,
       (SELECT count(*)::integer FROM consumer_groups AS c WHERE c.queue_id = q.queue_id) AS group_count
FROM queues AS q JOIN streams AS s USING (stream_id)
WHERE ",
            $which
        )
    };
}

parameters! {
    struct Summary<'a> {
        project_id: &'a str,
        now: Timestamp,
        queue_id: Uuid,
    }
}

parameters! {
    struct Summaries<'a> {
        project_id: &'a str,
        now: Timestamp,
        after_created_at: Timestamp,
        after_stream: i64,
        /// All of them without one.
        limit: Option<i64>,
    }
}

static SUMMARY: Sql<Summary<'static>, SummaryRow> =
    Sql::new(summaries_sql!("q.project_id = $project_id AND q.queue_id = $queue_id"));
static SUMMARIES: Sql<Summaries<'static>, SummaryRow> = Sql::new(summaries_sql!(
    "q.project_id = $project_id AND (q.created_at, q.stream_id) > ($after_created_at, $after_stream) ORDER BY q.created_at, q.stream_id LIMIT $limit"
));
/// Before every queue.
const FIRST: QueueKey = QueueKey { created_at: Timestamp(0), stream: StreamId(0) };

impl TryFrom<SummaryRow> for QueueSummary {
    type Error = Error;

    fn try_from(row: SummaryRow) -> Result<Self> {
        Ok(Self { queue: row.queue.try_into()?, produced: row.produced, group_count: row.group_count })
    }
}

/// The queues of a project by creation time: those of a page, and one more if there is one. Errors: `Overloaded`.
#[tracing::instrument(name = "queues::summaries", level = "debug", skip_all)]
pub(crate) async fn summaries(
    pool: &PgPool,
    project: &ProjectId,
    page: &ListPage<QueueKey>,
    now: Timestamp,
    memory: &Answer,
) -> Result<Vec<QueueSummary>> {
    let after = page.after.unwrap_or(FIRST);
    let parameters = Summaries {
        project_id: project.as_str(),
        now,
        after_created_at: after.created_at,
        after_stream: after.stream.0,
        limit: page.items_to_read(),
    };
    rows::all(SUMMARIES.rows(parameters).fetch(pool), memory).await?.into_iter().map(QueueSummary::try_from).collect()
}

/// One queue of a project.
#[tracing::instrument(name = "queues::summary", level = "debug", skip_all)]
pub async fn summary(pool: &PgPool, project: &ProjectId, queue: QueueId, now: Timestamp) -> Result<QueueSummary> {
    let parameters = Summary { project_id: project.as_str(), now, queue_id: queue.0 };
    let row = SUMMARY.rows(parameters).fetch_optional(pool).await?;
    row.ok_or_else(|| not_found(queue))?.try_into()
}

/// Deletes a queue with its groups and streams; returns the streams, whose leases, failed and delayed messages are for
/// [`deletion::purge_streams`]. The segments become unreachable at once and go with their partitions.
#[tracing::instrument(name = "queues::delete", level = "debug", skip_all)]
pub async fn delete(pool: &PgPool, project: &ProjectId, queue: QueueId) -> Result<Vec<StreamId>> {
    let (mut conn, mut runs) = (pool.acquire().await?, 0);
    loop {
        if let Some(deleted) = sqlstate::judge(delete_once(&mut conn, project, queue).await, &mut runs) {
            return deleted?.ok_or_else(|| not_found(queue));
        }
    }
}

static LOCK: Sql<One<'static>, (i64,)> =
    Sql::new("SELECT stream_id FROM queues WHERE queue_id = $queue_id AND project_id = $project_id FOR UPDATE");
static DEAD_LETTER_STREAMS: Sql<(Uuid,), (i64,)> = Sql::new(
    "
SELECT dead_letter_stream_id FROM consumer_groups WHERE queue_id = $1 AND dead_letter_stream_id IS NOT NULL",
);
static DELETE: Sql<(Uuid,), ()> = Sql::new("DELETE FROM queues WHERE queue_id = $1");

async fn delete_once(
    conn: &mut PgConnection,
    project: &ProjectId,
    queue: QueueId,
) -> sqlx::Result<Option<Vec<StreamId>>> {
    let mut tx = conn.begin().await?;
    sqlstate::limit_lock_waits(&mut tx).await?;
    let one = One { queue_id: queue.0, project_id: project.as_str() };
    let stream = LOCK.scalar(one).fetch_optional(&mut *tx).await?;
    let Some(stream) = stream else { return Ok(None) };
    let mut streams = DEAD_LETTER_STREAMS.scalar((queue.0,)).fetch_all(&mut *tx).await?;
    streams.push(stream);
    deletion::delete_subscriptions(&mut tx, &streams).await?;
    deletion::delete_streams(&mut tx, &streams).await?;
    DELETE.run((queue.0,)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Some(streams.into_iter().map(StreamId).collect()))
}
