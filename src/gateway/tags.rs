//! Resource tags of queues.

use axum::Json;
use axum::body::Body;
use axum::response::IntoResponse as _;
use dms_client::v1 as pb;
use http::StatusCode;

use super::Answer;
use super::body::Plane;
use super::ignored::Ignored;
use super::json::{Counted, Found, ProjectTags, QueueTags};
use super::object::Object;
use super::target::Target;
use super::upstream::Upstream;
use crate::domain::{ErrorKind, Result};

const FIELDS: ErrorKind = ErrorKind::ControlBodyInvalid;
const TEXT: &str = "a string";

/// `POST /queue/{queue_id}/tags`
pub(super) async fn add(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let body = upstream.read(body, Plane::Control).await?;
    let tag = new_tag(&Object::parse(&body, Plane::Control)?, &upstream.ignored)?;
    let request = pb::AddQueueTagRequest { project_id: target.project_id, queue_id: target.queue_id, tag: Some(tag) };
    upstream.tags().add_queue_tag(upstream.request(request)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /queue/{queue_id}/tags/{key}`
pub(super) async fn delete(upstream: Upstream, target: Target) -> Answer {
    let Target { project_id, queue_id, key, .. } = target;
    let request = pb::DeleteQueueTagRequest { project_id, queue_id, key };
    upstream.tags().delete_queue_tag(upstream.request(request)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /queue/{queue_id}/tags/action`: the tag with the key `action`.
pub(super) async fn delete_action(upstream: Upstream, target: Target) -> Answer {
    delete(upstream, Target { key: "action".to_owned(), ..target }).await
}

/// `POST /queue/{queue_id}/tags/action`
pub(super) async fn batch(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let body = upstream.read(body, Plane::Control).await?;
    let root = Object::parse(&body, Plane::Control)?;
    let tags = root.items("tags", FIELDS, "an array of objects with key and value")?;
    let request = pb::BatchQueueTagsRequest {
        project_id: target.project_id,
        queue_id: target.queue_id,
        action: batch_action(&root)?.into(),
        tags: tags.iter().map(batch_tag).collect::<Result<_>>()?,
    };
    [&root].into_iter().chain(&tags).for_each(|object| object.tell_unread(&upstream.ignored));
    upstream.tags().batch_queue_tags(upstream.request(request)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /queue/{queue_id}/tags`
pub(super) async fn list_of_queue(upstream: Upstream, target: Target) -> Answer {
    let request = pb::ListQueueTagsRequest { project_id: target.project_id, queue_id: target.queue_id };
    let answer = upstream.tags().list_queue_tags(upstream.request(request)?).await?.into_inner();
    Ok(Json(QueueTags::from(&answer.tags[..])).into_response())
}

/// `GET /queue/tags`
pub(super) async fn list_of_project(upstream: Upstream, target: Target) -> Answer {
    let request = pb::ListProjectTagsRequest { project_id: target.project_id, ..Default::default() };
    let answer = upstream.tags().list_project_tags(upstream.request(request)?).await?.into_inner();
    Ok(Json(ProjectTags::from(&answer.tags[..])).into_response())
}

/// `POST /queue/resource_instances/action`
pub(super) async fn search(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let body = upstream.read(body, Plane::Control).await?;
    let root = Object::parse(&body, Plane::Control)?;
    let request = search_request(target.project_id, &root, &upstream.ignored)?;
    root.tell_unread(&upstream.ignored);
    let counting = request.action() == pb::SearchAction::Count;
    let found = upstream.tags().search_queues(upstream.request(request)?).await?.into_inner();
    Ok(if counting {
        Json(Counted { total_count: found.total_count }).into_response()
    } else {
        Json(Found::from(&found)).into_response()
    })
}

fn new_tag(root: &Object<'_>, ignored: &Ignored) -> Result<pb::Tag> {
    let tag = root.object("tag", FIELDS, "an object with key and value")?;
    let value = value(&tag)?.ok_or_else(|| tag.missing("value", FIELDS, "a string, which may be empty"))?;
    let read = pb::Tag { key: key(&tag)?, value };
    [root, &tag].into_iter().for_each(|object| object.tell_unread(ignored));
    Ok(read)
}

fn batch_tag(tag: &Object<'_>) -> Result<pb::BatchTag> {
    Ok(pb::BatchTag { key: key(tag)?, value: value(tag)? })
}

/// An absent key is an empty one: it has the same error.
fn key(tag: &Object<'_>) -> Result<String> {
    Ok(tag.read("key", ErrorKind::TagKeyCharacters, TEXT)?.unwrap_or_default())
}

fn value(tag: &Object<'_>) -> Result<Option<String>> {
    tag.read("value", ErrorKind::TagValueCharacters, TEXT)
}

fn batch_action(root: &Object<'_>) -> Result<pb::TagAction> {
    let (kind, allowed) = (ErrorKind::TagAction, "create or delete");
    match root.require::<String>("action", kind, allowed)?.as_str() {
        "create" => Ok(pb::TagAction::Create),
        "delete" => Ok(pb::TagAction::Delete),
        other => Err(root.wrong("action", kind, other, allowed)),
    }
}

fn search_request(project_id: String, root: &Object<'_>, ignored: &Ignored) -> Result<pb::SearchQueuesRequest> {
    let action = search_action(root)?;
    // A count has no pages: what is said of them does not matter.
    let paged = action == pb::SearchAction::Filter;
    let page = |field, kind, allowed| if paged { integer(root, field, kind, allowed) } else { Ok(None) };
    Ok(pb::SearchQueuesRequest {
        project_id,
        action: action.into(),
        tags: tag_values(root, "tags", ignored)?,
        tags_any: tag_values(root, "tags_any", ignored)?,
        not_tags: tag_values(root, "not_tags", ignored)?,
        not_tags_any: tag_values(root, "not_tags_any", ignored)?,
        resource_name: resource_name(root, ignored)?,
        limit: page("limit", ErrorKind::SearchLimit, "an integer from 1 to 1000")?,
        offset: page("offset", ErrorKind::SearchOffset, "an integer of 0 or more")?,
    })
}

fn search_action(root: &Object<'_>) -> Result<pb::SearchAction> {
    let (kind, allowed) = (ErrorKind::SearchAction, "filter or count");
    match root.require::<String>("action", kind, allowed)?.as_str() {
        "filter" => Ok(pb::SearchAction::Filter),
        "count" => Ok(pb::SearchAction::Count),
        other => Err(root.wrong("action", kind, other, allowed)),
    }
}

fn tag_values(root: &Object<'_>, field: &'static str, ignored: &Ignored) -> Result<Vec<pb::TagValues>> {
    let tags = root.items_if_any(field, FIELDS, "an array of objects with key and values")?;
    let read = |tag: &Object<'_>| {
        let values = tag.texts("values", ErrorKind::TagValueCharacters, "an array of strings")?;
        let key = key(tag)?;
        tag.tell_unread(ignored);
        Ok(pb::TagValues { key, values })
    };
    tags.unwrap_or_default().iter().map(read).collect()
}

/// `matches` knows one key; the last entry counts.
fn resource_name(root: &Object<'_>, ignored: &Ignored) -> Result<String> {
    let matches = root.items_if_any("matches", FIELDS, "an array of objects with key and value")?;
    let mut name = None;
    for entry in matches.unwrap_or_default() {
        let key: String = entry.require("key", FIELDS, "resource_name")?;
        if key != "resource_name" {
            return Err(entry.wrong("key", FIELDS, key, "resource_name"));
        }
        name = entry.read("value", FIELDS, TEXT)?;
        entry.tell_unread(ignored);
    }
    Ok(name.unwrap_or_default())
}

/// Documented as a string, sent as a number by some; empty counts as absent.
fn integer(root: &Object<'_>, field: &str, kind: ErrorKind, allowed: &str) -> Result<Option<i32>> {
    let Ok(Some(text)) = root.read::<String>(field, kind, allowed) else { return root.read(field, kind, allowed) };
    let bad = |_| root.wrong(field, kind, &text, allowed);
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(bad) }
}
