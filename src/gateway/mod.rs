//! The REST gateway: the documented JSON paths over the generated gRPC clients, and nothing else.
//!
//! A handler is: path, query and JSON -> gRPC request -> client call -> JSON view. No rule of a queue lives here, only
//! the shape of the REST API; what the service says of a value comes back in the words of that API (`error.rs`).

mod announced;
mod answers;
mod body;
pub(crate) mod cors;
mod counted;
mod error;
mod groups;
pub(crate) mod hosts;
mod ignored;
mod json;
mod messages;
mod object;
mod peer;
mod query;
mod queues;
mod quotas;
mod remote;
mod request_id;
mod signed;
mod tags;
mod target;
mod trace;
mod upstream;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use tonic::body::Body;
use tower::Service;

use self::cors::Origin;
use self::error::Failure;
pub use self::remote::{Remote, RemoteDoor};
use self::upstream::Gateway;
use crate::memory::Memory;
use crate::net::{Door, IDLE_DEFAULT};
use crate::observe::metrics::RestRequests;

/// How REST is served.
#[derive(Debug, Clone)]
pub struct RestOptions {
    /// How long a connection is kept without a call.
    pub idle: Duration,
    /// Pages of other sites that may call.
    pub origins: Vec<Origin>,
}

impl Default for RestOptions {
    fn default() -> Self {
        Self { idle: IDLE_DEFAULT, origins: Vec::new() }
    }
}

/// What a handler answers with.
type Answer = Result<Response, Failure>;

/// The REST API over a gRPC transport: the service's own routes in the same process, or a channel to a remote one.
pub fn router<T>(transport: T, memory: Memory, requests: RestRequests, door: Arc<dyn Door>) -> Router
where
    T: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    T::Error: Into<tonic::codegen::StdError> + Send,
    T::Future: Send + 'static,
{
    Router::new()
        .nest("/v1.0/{project_id}", paths())
        .nest("/v2/{project_id}", paths())
        .fallback(error::no_such_path)
        .with_state(Gateway::new(transport, memory, door))
        .layer(from_fn(answers::held))
        .layer(from_fn(request_id::on_every_answer))
        .layer(from_fn_with_state(requests, counted::every_answer))
}

fn paths() -> Router<Gateway> {
    let paths = table().into_iter().fold(Router::new(), with_and_without_slash);
    paths.method_not_allowed_fallback(error::method_not_allowed)
}

/// A path, and the same with a slash at its end: some clients add one to each.
fn with_and_without_slash(router: Router<Gateway>, (path, methods): (&str, MethodRouter<Gateway>)) -> Router<Gateway> {
    let router = router.route(path, methods.clone());
    if path.ends_with('/') { router } else { router.route(&format!("{path}/"), methods) }
}

/// The paths of the table, for the test that docs/openapi.yaml has them all.
pub fn documented_paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

/// Every documented path below the project; `/quotas/dms` is of `v1.0` and `/quotas` of `v2`, but both answer on both.
fn table() -> [(&'static str, MethodRouter<Gateway>); 17] {
    [
        ("/queues", post(queues::create).get(queues::list)),
        ("/queues/{queue_id}", get(queues::show).delete(queues::delete)),
        ("/queues/{queue_id}/groups", post(groups::create).get(groups::list)),
        ("/queues/{queue_id}/groups/{group_id}", delete(groups::delete)),
        ("/queues/{queue_id}/messages", post(messages::send)),
        ("/queues/{queue_id}/groups/{group_id}/messages", only_get(get(messages::consume))),
        ("/queues/{queue_id}/groups/{group_id}/ack", post(messages::ack)),
        ("/queues/{queue_id}/groups/{group_id}/deadletters", only_get(get(messages::consume_dead_letters))),
        ("/queues/{queue_id}/groups/{group_id}/deadletters/ack", post(messages::ack_dead_letters)),
        ("/quotas", get(quotas::show)),
        ("/quotas/dms", get(quotas::show)),
        ("/queue/tags", get(tags::list_of_project)),
        ("/queue/resource_instances/action", post(tags::search)),
        ("/queue/{queue_id}/tags", post(tags::add).get(tags::list_of_queue)),
        // `action` is also a key that a tag may have, and an empty key has an error of its own.
        ("/queue/{queue_id}/tags/action", post(tags::batch).delete(tags::delete_action)),
        ("/queue/{queue_id}/tags/{key}", delete(tags::delete)),
        ("/queue/{queue_id}/tags/", delete(tags::delete)),
    ]
}

/// Refuses HEAD, which axum would answer through the GET handler: leases taken and thrown away.
fn only_get(route: MethodRouter<Gateway, Infallible>) -> MethodRouter<Gateway, Infallible> {
    let refuse = || async { ([(http::header::ALLOW, "GET")], error::method_not_allowed().await) };
    route.head(refuse).fallback(refuse)
}
