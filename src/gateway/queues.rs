//! Queues: create, list, show, delete.

use axum::Json;
use axum::body::Body;
use axum::response::IntoResponse as _;
use dms_client::v1 as pb;
use http::StatusCode;

use super::Answer;
use super::body::Plane;
use super::json::{CreatedQueue, Queue, Queues};
use super::object::Object;
use super::query::Query;
use super::target::Target;
use super::upstream::Upstream;
use crate::domain::{ErrorKind, Result};

/// `POST /queues`
pub(super) async fn create(mut upstream: Upstream, target: Target, body: Body) -> Answer {
    let body = upstream.read(body, Plane::Control).await?;
    let queue = Object::parse(&body, Plane::Control)?;
    let request = create_request(target.project_id, &queue)?;
    queue.tell_unread(&upstream.ignored);
    // A count without a policy means no dead letters: the answer says so.
    let without_policy = request.max_consume_count.is_some() && request.redrive_policy() != pb::RedrivePolicy::Enable;
    let answer = upstream.queues().create_queue(upstream.request(request)?).await?.into_inner();
    let queue = answer.queue.unwrap_or_default();
    Ok((StatusCode::CREATED, Json(CreatedQueue::new(&queue, without_policy))).into_response())
}

/// `GET /queues?include_deadletter&include_messages_num`; counts come whether asked for or not.
pub(super) async fn list(upstream: Upstream, target: Target, query: Query) -> Answer {
    let include_deadletter = query.flag("include_deadletter", false)?;
    query.flag("include_messages_num", false)?;
    let request = pb::ListQueuesRequest { project_id: target.project_id, ..Default::default() };
    let answer = upstream.queues().list_queues(upstream.request(request)?).await?.into_inner();
    Ok(Json(Queues::new(&answer.queues, include_deadletter)).into_response())
}

/// `GET /queues/{queue_id}?include_deadletter`
pub(super) async fn show(upstream: Upstream, target: Target, query: Query) -> Answer {
    let include_deadletter = query.flag("include_deadletter", false)?;
    let request = pb::GetQueueRequest { project_id: target.project_id, queue_id: target.queue_id };
    let answer = upstream.queues().get_queue(upstream.request(request)?).await?.into_inner();
    Ok(Json(Queue::shown(&answer.queue.unwrap_or_default(), include_deadletter)).into_response())
}

/// `DELETE /queues/{queue_id}`
pub(super) async fn delete(upstream: Upstream, target: Target) -> Answer {
    let request = pb::DeleteQueueRequest { project_id: target.project_id, queue_id: target.queue_id };
    upstream.queues().delete_queue(upstream.request(request)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn create_request(project_id: String, queue: &Object<'_>) -> Result<pb::CreateQueueRequest> {
    let text = "a string";
    let request = pb::CreateQueueRequest {
        project_id,
        name: queue.read("name", ErrorKind::NameCharacters, text)?.unwrap_or_default(),
        queue_mode: queue_mode(queue)?.into(),
        description: queue.read("description", ErrorKind::DescriptionCharacters, text)?.unwrap_or_default(),
        redrive_policy: redrive_policy(queue)?.into(),
        max_consume_count: queue.read("max_consume_count", ErrorKind::MaxConsumeCount, "an integer from 1 to 100")?,
        retention_hours: queue.read("retention_hours", ErrorKind::RetentionHours, "an integer from 1 to 72")?,
    };
    pass_over_what_means_nothing(queue, &request);
    Ok(request)
}

/// What is checked and then of no use in this mode, or without another field.
fn pass_over_what_means_nothing(queue: &Object<'_>, request: &pb::CreateQueueRequest) {
    let is_kafka = matches!(request.queue_mode(), pb::QueueMode::KafkaHa | pb::QueueMode::KafkaHt);
    if is_kafka {
        queue.pass_over("redrive_policy");
    }
    if is_kafka || request.redrive_policy() != pb::RedrivePolicy::Enable {
        queue.pass_over("max_consume_count");
    }
}

fn queue_mode(queue: &Object<'_>) -> Result<pb::QueueMode> {
    let (field, allowed) = ("queue_mode", "NORMAL, FIFO, KAFKA_HA or KAFKA_HT");
    match queue.read::<String>(field, ErrorKind::RequestFormat, allowed)?.as_deref() {
        None => Ok(pb::QueueMode::Unspecified),
        Some("NORMAL") => Ok(pb::QueueMode::Normal),
        Some("FIFO") => Ok(pb::QueueMode::Fifo),
        Some("KAFKA_HA") => Ok(pb::QueueMode::KafkaHa),
        Some("KAFKA_HT") => Ok(pb::QueueMode::KafkaHt),
        Some(other) => Err(queue.wrong(field, ErrorKind::RequestFormat, other, allowed)),
    }
}

fn redrive_policy(queue: &Object<'_>) -> Result<pb::RedrivePolicy> {
    let (field, allowed) = ("redrive_policy", "enable or disable");
    match queue.read::<String>(field, ErrorKind::RequestFormat, allowed)?.as_deref() {
        None => Ok(pb::RedrivePolicy::Unspecified),
        Some("enable") => Ok(pb::RedrivePolicy::Enable),
        Some("disable") => Ok(pb::RedrivePolicy::Disable),
        Some(other) => Err(queue.wrong(field, ErrorKind::RequestFormat, other, allowed)),
    }
}
