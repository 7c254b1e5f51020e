//! Consumer groups: create, list, delete.

use axum::Json;
use axum::body::Body;
use axum::response::IntoResponse as _;
use dms_client::v1 as pb;
use http::StatusCode;

use super::Answer;
use super::body::Plane;
use super::ignored::Ignored;
use super::json::{CreatedGroups, QueueGroups};
use super::object::Object;
use super::query::Query;
use super::target::Target;
use super::upstream::Upstream;
use crate::domain::{ErrorKind, Result};

/// `POST /queues/{queue_id}/groups`
pub(super) async fn create(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let body = upstream.read(body, Plane::Control).await?;
    let names = group_names(&Object::parse(&body, Plane::Control)?, &upstream.ignored)?;
    let request = pb::CreateConsumerGroupsRequest { project_id: target.project_id, queue_id: target.queue_id, names };
    let answer = upstream.queues().create_consumer_groups(upstream.request(request)?).await?.into_inner();
    Ok((StatusCode::CREATED, Json(CreatedGroups::from(&answer.groups[..]))).into_response())
}

/// `GET /queues/{queue_id}/groups?include_deadletter&include_messages_num&page_size&current_page`
pub(super) async fn list(upstream: Upstream, target: Target, query: Query) -> Answer {
    let include_deadletter = query.flag("include_deadletter", false)?;
    let (page_size, current_page) = query.page().unzip();
    let request = pb::ListConsumerGroupsRequest {
        project_id: target.project_id,
        queue_id: target.queue_id,
        include_counters: query.flag("include_messages_num", true)?,
        page_size,
        current_page,
        page_token: String::new(),
    };
    let answer = upstream.queues().list_consumer_groups(upstream.request(request)?).await?.into_inner();
    let queue = answer.queue.unwrap_or_default();
    Ok(Json(QueueGroups::new(&queue, &answer.groups, include_deadletter)).into_response())
}

/// `DELETE /queues/{queue_id}/groups/{group_id}`
pub(super) async fn delete(upstream: Upstream, target: Target) -> Answer {
    let Target { project_id, queue_id, group_id, .. } = target;
    let request = pb::DeleteConsumerGroupRequest { project_id, queue_id, group_id };
    upstream.queues().delete_consumer_group(upstream.request(request)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn group_names(root: &Object<'_>, ignored: &Ignored) -> Result<Vec<String>> {
    let groups = root.items("groups", Plane::Control.bad_field(), "an array of objects with a name")?;
    let name = |group: &Object<'_>| Ok(group.read("name", ErrorKind::NameCharacters, "a string")?.unwrap_or_default());
    let names = groups.iter().map(name).collect::<Result<_>>()?;
    [root].into_iter().chain(&groups).for_each(|object| object.tell_unread(ignored));
    Ok(names)
}
