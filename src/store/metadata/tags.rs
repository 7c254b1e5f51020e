//! Resource tags of queues. Sorted in Rust, so that no collation decides the order.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::queues;
use super::rows;
use crate::domain::ids::{ProjectId, QueueId};
use crate::domain::limits::QUEUE_TAGS_MAX;
use crate::domain::search::TaggedQueue;
use crate::domain::tag::{self, Tag, TagSelector, TagValues};
use crate::domain::{Error, ErrorKind, Result};
use crate::memory::Answer;
use crate::store::sql::{Sql, parameters, row, statements};

statements![LOCK_QUEUE, COUNT, UPSERT, DELETE, OF_QUEUE, OF_QUEUES, OF_PROJECT];

parameters! {
    /// One queue of a project.
    struct One<'a> {
        project_id: &'a str,
        queue_id: Uuid,
    }
}

// One change at a time on a queue, so that the limit holds. Groups may be created meanwhile: they only need the key.
static LOCK_QUEUE: Sql<One<'static>, (i32,)> =
    Sql::new("SELECT 1 FROM queues WHERE queue_id = $queue_id AND project_id = $project_id FOR NO KEY UPDATE");
static COUNT: Sql<(Uuid,), (i64,)> = Sql::new("SELECT count(*) FROM queue_tags WHERE queue_id = $1");

/// Adds tags or overwrites their values, all or none, within the limit of the queue.
#[tracing::instrument(name = "tags::put", level = "debug", skip_all)]
pub async fn put(pool: &PgPool, project: &ProjectId, queue: QueueId, tags: &[Tag]) -> Result<()> {
    let mut tx = pool.begin().await?;
    let one = One { project_id: project.as_str(), queue_id: queue.0 };
    let found = LOCK_QUEUE.scalar(one).fetch_optional(&mut *tx).await?;
    found.ok_or_else(|| queues::not_found(queue))?;
    upsert(&mut tx, queue, tags).await?;
    let count = COUNT.scalar((queue.0,)).fetch_one(&mut *tx).await?;
    if usize::try_from(count).is_ok_and(|count| count > QUEUE_TAGS_MAX) {
        // The transaction is rolled back when it is dropped.
        return Err(tag::too_many(count));
    }
    tx.commit().await?;
    Ok(())
}

parameters! {
    struct Upsert<'a> {
        queue_id: Uuid,
        keys: Vec<&'a str>,
        values: Vec<&'a str>,
    }
}

static UPSERT: Sql<Upsert<'static>, ()> = Sql::new(
    "
INSERT INTO queue_tags (queue_id, tag_key, tag_value)
SELECT $queue_id, new.tag_key, new.tag_value FROM unnest($keys::text[], $values::text[]) AS new (tag_key, tag_value)
ON CONFLICT (queue_id, tag_key) DO UPDATE SET tag_value = excluded.tag_value",
);

async fn upsert(conn: &mut PgConnection, queue: QueueId, tags: &[Tag]) -> sqlx::Result<()> {
    let (keys, values) = tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).unzip();
    UPSERT.run(Upsert { queue_id: queue.0, keys, values }).execute(conn).await?;
    Ok(())
}

parameters! {
    struct Delete<'a> {
        queue_id: Uuid,
        project_id: &'a str,
        keys: Vec<&'a str>,
        values: Vec<Option<&'a str>>,
    }
}

row! {
    struct Deleted {
        queue_found: bool,
        deleted: i64,
    }
}

static DELETE: Sql<Delete<'static>, Deleted> = Sql::new(
    "
WITH queue AS (SELECT queue_id FROM queues WHERE queue_id = $queue_id AND project_id = $project_id),
     gone AS (DELETE FROM queue_tags AS t USING queue
              WHERE t.queue_id = queue.queue_id
                AND EXISTS (SELECT FROM unnest($keys::text[], $values::text[]) AS chosen (tag_key, tag_value)
                            WHERE chosen.tag_key = t.tag_key
                              AND coalesce(chosen.tag_value, t.tag_value) = t.tag_value)
              RETURNING 1)
SELECT EXISTS (SELECT FROM queue) AS queue_found, (SELECT count(*) FROM gone) AS deleted",
);

/// Deletes the tags that fit a selector and says how many there were.
#[tracing::instrument(name = "tags::delete", level = "debug", skip_all)]
pub async fn delete(pool: &PgPool, project: &ProjectId, queue: QueueId, selectors: &[TagSelector]) -> Result<i64> {
    let parameters = Delete {
        queue_id: queue.0,
        project_id: project.as_str(),
        keys: selectors.iter().map(|selector| selector.key.as_str()).collect(),
        values: selectors.iter().map(|selector| selector.value.as_deref()).collect(),
    };
    let Deleted { queue_found, deleted } = DELETE.rows(parameters).fetch_one(pool).await?;
    queue_found.then_some(deleted).ok_or_else(|| queues::not_found(queue))
}

row! {
    struct TaggedRow {
        queue_id: Uuid,
        name: String,
        // Both are absent in the single row of a queue without tags.
        tag_key: Option<String>,
        tag_value: Option<String>,
    }
}

macro_rules! tagged_sql {
    ($which:literal) => {
        concat!(
            "SELECT q.queue_id, q.name, t.tag_key, t.tag_value
             FROM queues AS q LEFT JOIN queue_tags AS t USING (queue_id) WHERE ",
            $which
        )
    };
}

static OF_QUEUE: Sql<One<'static>, TaggedRow> =
    Sql::new(tagged_sql!("q.project_id = $project_id AND q.queue_id = $queue_id"));
static OF_QUEUES: Sql<(&str,), TaggedRow> =
    Sql::new(tagged_sql!("q.project_id = $1 ORDER BY q.created_at, q.stream_id"));

/// The queues of a project by creation time, each with its tags by key.
#[tracing::instrument(name = "tags::queues", level = "debug", skip_all)]
pub async fn queues(pool: &PgPool, project: &ProjectId, memory: &Answer) -> Result<Vec<TaggedQueue>> {
    let rows = OF_QUEUES.rows((project.as_str(),)).fetch(pool);
    Ok(gather(rows::all(rows, memory).await?))
}

/// Rows of one queue stand together.
fn gather(rows: Vec<TaggedRow>) -> Vec<TaggedQueue> {
    let mut queues: Vec<TaggedQueue> = Vec::new();
    for TaggedRow { queue_id, name, tag_key, tag_value } in rows {
        let tag = tag_key.zip(tag_value).map(|(key, value)| Tag { key, value });
        match queues.last_mut() {
            Some(last) if last.id.0 == queue_id => last.tags.extend(tag),
            _ => queues.push(TaggedQueue { id: QueueId(queue_id), name, tags: tag.into_iter().collect() }),
        }
    }
    for queue in &mut queues {
        queue.tags.sort_by(|a, b| a.key.cmp(&b.key));
    }
    queues
}

/// The tags of one queue by key.
#[tracing::instrument(name = "tags::of_queue", level = "debug", skip_all)]
pub async fn of_queue(pool: &PgPool, project: &ProjectId, queue: QueueId) -> Result<Vec<Tag>> {
    let one = One { project_id: project.as_str(), queue_id: queue.0 };
    let rows = OF_QUEUE.rows(one).fetch_all(pool).await?;
    let found = gather(rows).pop();
    found.map(|found| found.tags).ok_or_else(|| queues::not_found(queue))
}

parameters! {
    struct OfProject<'a> {
        project_id: &'a str,
        after: &'a str,
    }
}

row! {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct KeyAndValue {
        tag_key: String,
        tag_value: String,
    }
}

static OF_PROJECT: Sql<OfProject<'static>, KeyAndValue> = Sql::new(
    "
SELECT DISTINCT t.tag_key, t.tag_value FROM queues AS q JOIN queue_tags AS t USING (queue_id)
WHERE q.project_id = $project_id AND t.tag_key COLLATE \"C\" > $after",
);

/// The tags in use in a project behind a key, by key, with their values in order.
#[tracing::instrument(name = "tags::of_project", level = "debug", skip_all)]
pub(crate) async fn of_project(
    pool: &PgPool,
    project: &ProjectId,
    after: &str,
    memory: &Answer,
) -> Result<Vec<TagValues>> {
    let rows = OF_PROJECT.rows(OfProject { project_id: project.as_str(), after }).fetch(pool);
    let mut rows = rows::all(rows, memory).await?;
    rows.sort();
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        by_key.entry(row.tag_key).or_default().push(row.tag_value);
    }
    Ok(by_key.into_iter().map(|(key, values)| TagValues { key, values }).collect())
}

/// The error for a tag that is not there.
pub(crate) fn not_found(key: &str) -> Error {
    Error::field(ErrorKind::TagNotFound, "key", key, "a tag of this queue")
}
