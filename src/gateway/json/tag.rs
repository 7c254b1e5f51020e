//! Resource tags in JSON.

use dms_client::v1 as pb;
use serde::Serialize;

/// The tags of a queue.
#[derive(Serialize)]
pub(crate) struct QueueTags<'a> {
    tags: Vec<Tag<'a>>,
}

impl<'a> From<&'a [pb::Tag]> for QueueTags<'a> {
    fn from(tags: &'a [pb::Tag]) -> Self {
        Self { tags: tag_list(tags) }
    }
}

#[derive(Serialize)]
struct Tag<'a> {
    key: &'a str,
    value: &'a str,
}

fn tag_list(tags: &[pb::Tag]) -> Vec<Tag<'_>> {
    tags.iter().map(|tag| Tag { key: &tag.key, value: &tag.value }).collect()
}

/// The tags in use in a project.
#[derive(Serialize)]
pub(crate) struct ProjectTags<'a> {
    tags: Vec<TagValues<'a>>,
}

#[derive(Serialize)]
struct TagValues<'a> {
    key: &'a str,
    values: &'a [String],
}

impl<'a> From<&'a [pb::TagValues]> for ProjectTags<'a> {
    fn from(tags: &'a [pb::TagValues]) -> Self {
        Self { tags: tags.iter().map(|tag| TagValues { key: &tag.key, values: &tag.values }).collect() }
    }
}

/// The queues that a search found.
#[derive(Serialize)]
pub(crate) struct Found<'a> {
    resources: Vec<Resource<'a>>,
    total_count: i32,
}

#[derive(Serialize)]
struct Resource<'a> {
    /// Documented as always null for queues.
    resource_detail: Option<&'static str>,
    resource_id: &'a str,
    resource_name: &'a str,
    tags: Vec<Tag<'a>>,
}

impl<'a> From<&'a pb::SearchQueuesResponse> for Found<'a> {
    fn from(found: &'a pb::SearchQueuesResponse) -> Self {
        let resource = |queue: &'a pb::QueueResource| Resource {
            resource_detail: None,
            resource_id: &queue.queue_id,
            resource_name: &queue.queue_name,
            tags: tag_list(&queue.tags),
        };
        Self { resources: found.resources.iter().map(resource).collect(), total_count: found.total_count }
    }
}

/// How many queues a search found.
#[derive(Serialize)]
pub(crate) struct Counted {
    /// The number.
    pub total_count: i32,
}
