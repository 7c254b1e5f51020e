//! Resource tags of queues. Sorted in Rust, so that no collation decides the order.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::queues;
use super::rows::{self, from_row};
use crate::domain::ids::{ProjectId, QueueId};
use crate::domain::limits::QUEUE_TAGS_MAX;
use crate::domain::search::TaggedQueue;
use crate::domain::tag::{self, Tag, TagSelector, TagValues};
use crate::domain::{Error, ErrorKind, Result};
use crate::memory::Answer;

/// Adds tags or overwrites their values, all or none, within the limit of the queue.
#[tracing::instrument(name = "tags::put", level = "debug", skip_all)]
pub async fn put(pool: &PgPool, project: &ProjectId, queue: QueueId, tags: &[Tag]) -> Result<()> {
    let mut tx = pool.begin().await?;
    // One change at a time on a queue, so that the limit holds. Groups may be created meanwhile: they only need the key.
    let lock = "SELECT 1 FROM queues WHERE queue_id = $1 AND project_id = $2 FOR NO KEY UPDATE";
    let found = sqlx::query(lock).bind(queue.0).bind(project.as_str()).fetch_optional(&mut *tx).await?;
    found.ok_or_else(|| queues::not_found(queue))?;
    upsert(&mut tx, queue, tags).await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM queue_tags WHERE queue_id = $1")
        .bind(queue.0)
        .fetch_one(&mut *tx)
        .await?;
    if usize::try_from(count).is_ok_and(|count| count > QUEUE_TAGS_MAX) {
        // The transaction is rolled back when it is dropped.
        return Err(tag::too_many(count));
    }
    tx.commit().await?;
    Ok(())
}

async fn upsert(conn: &mut PgConnection, queue: QueueId, tags: &[Tag]) -> sqlx::Result<()> {
    let (keys, values): (Vec<&str>, Vec<&str>) = tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).unzip();
    sqlx::query(
        "INSERT INTO queue_tags (queue_id, tag_key, tag_value)
         SELECT $1, new.tag_key, new.tag_value FROM unnest($2::text[], $3::text[]) AS new (tag_key, tag_value)
         ON CONFLICT (queue_id, tag_key) DO UPDATE SET tag_value = excluded.tag_value",
    )
    .bind(queue.0)
    .bind(keys)
    .bind(values)
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the tags that fit a selector and says how many there were.
#[tracing::instrument(name = "tags::delete", level = "debug", skip_all)]
pub async fn delete(pool: &PgPool, project: &ProjectId, queue: QueueId, selectors: &[TagSelector]) -> Result<i64> {
    let keys: Vec<&str> = selectors.iter().map(|selector| selector.key.as_str()).collect();
    let values: Vec<Option<&str>> = selectors.iter().map(|selector| selector.value.as_deref()).collect();
    let (queue_found, deleted): (bool, i64) = sqlx::query_as(
        "WITH queue AS (SELECT queue_id FROM queues WHERE queue_id = $1 AND project_id = $2),
              gone AS (DELETE FROM queue_tags AS t USING queue
                       WHERE t.queue_id = queue.queue_id
                         AND EXISTS (SELECT FROM unnest($3::text[], $4::text[]) AS chosen (tag_key, tag_value)
                                     WHERE chosen.tag_key = t.tag_key
                                       AND coalesce(chosen.tag_value, t.tag_value) = t.tag_value)
                       RETURNING 1)
         SELECT EXISTS (SELECT FROM queue), (SELECT count(*) FROM gone)",
    )
    .bind(queue.0)
    .bind(project.as_str())
    .bind(keys)
    .bind(values)
    .fetch_one(pool)
    .await?;
    queue_found.then_some(deleted).ok_or_else(|| queues::not_found(queue))
}

struct TaggedRow {
    queue_id: Uuid,
    name: String,
    // Both are absent in the single row of a queue without tags.
    tag_key: Option<String>,
    tag_value: Option<String>,
}

from_row!(TaggedRow { queue_id, name, tag_key, tag_value });

macro_rules! tagged_sql {
    ($which:literal) => {
        concat!(
            "SELECT q.queue_id, q.name, t.tag_key, t.tag_value
             FROM queues AS q LEFT JOIN queue_tags AS t USING (queue_id) WHERE ",
            $which
        )
    };
}

/// The statement of [`of_queue`]; public for the test of its plan.
pub const OF_QUEUE: &str = tagged_sql!("q.project_id = $1 AND q.queue_id = $2");
const OF_QUEUES: &str = tagged_sql!("q.project_id = $1 ORDER BY q.created_at, q.stream_id");

/// The queues of a project by creation time, each with its tags by key.
#[tracing::instrument(name = "tags::queues", level = "debug", skip_all)]
pub async fn queues(pool: &PgPool, project: &ProjectId, memory: &Answer) -> Result<Vec<TaggedQueue>> {
    let rows = sqlx::query_as::<_, TaggedRow>(OF_QUEUES).bind(project.as_str()).fetch(pool);
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
    let rows = sqlx::query_as(OF_QUEUE).bind(project.as_str()).bind(queue.0).fetch_all(pool).await?;
    let found = gather(rows).pop();
    found.map(|found| found.tags).ok_or_else(|| queues::not_found(queue))
}

/// The tags in use in a project behind a key, by key, with their values in order.
#[tracing::instrument(name = "tags::of_project", level = "debug", skip_all)]
pub(crate) async fn of_project(
    pool: &PgPool,
    project: &ProjectId,
    after: &str,
    memory: &Answer,
) -> Result<Vec<TagValues>> {
    let rows = sqlx::query_as::<_, (String, String)>(
        "SELECT DISTINCT t.tag_key, t.tag_value FROM queues AS q JOIN queue_tags AS t USING (queue_id)
         WHERE q.project_id = $1 AND t.tag_key COLLATE \"C\" > $2",
    )
    .bind(project.as_str())
    .bind(after)
    .fetch(pool);
    let mut rows = rows::all(rows, memory).await?;
    rows.sort();
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in rows {
        by_key.entry(key).or_default().push(value);
    }
    Ok(by_key.into_iter().map(|(key, values)| TagValues { key, values }).collect())
}

/// The error for a tag that is not there.
pub(crate) fn not_found(key: &str) -> Error {
    Error::field(ErrorKind::TagNotFound, "key", key, "a tag of this queue")
}
