//! Counts every answer, those to unknown paths too.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;

use crate::observe::metrics::RestRequests;

/// Methods with a name of their own among the metrics.
const METHODS: [&str; 7] = ["GET", "POST", "DELETE", "PUT", "HEAD", "PATCH", "OPTIONS"];
/// All other methods, and paths that are not in the table: a caller can make up as many as it likes.
const OTHER: &str = "other";

/// By the path of the table that was matched, with the names of its ids in braces.
pub(super) async fn every_answer(State(requests): State<RestRequests>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = name(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let path = path.as_ref().map_or(OTHER, |path| path.as_str().trim_end_matches('/'));
    requests.answered(method, path, response.status().as_u16(), begun.elapsed());
    response
}

fn name(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}
