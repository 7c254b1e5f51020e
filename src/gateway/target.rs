//! What a path points at.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::error::{Failure, path_not_found};

/// The ids in the path, percent-decoded and not checked; empty where the path has none.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// The project.
    pub project_id: String,
    /// The queue.
    pub queue_id: String,
    /// The consumer group.
    pub group_id: String,
    /// The tag key.
    pub key: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        if !well_escaped(parts.uri.path()) {
            return Err(path_not_found(parts.uri.path()).into());
        }
        // Refused when a part is not UTF-8.
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| path_not_found(parts.uri.path()))?;
        let mut target = Self::default();
        for (name, value) in &params {
            let part = match name {
                "project_id" => &mut target.project_id,
                "queue_id" => &mut target.queue_id,
                "group_id" => &mut target.group_id,
                _ => &mut target.key,
            };
            value.clone_into(part);
        }
        Ok(target)
    }
}

/// Whether two hexadecimal digits follow every `%`.
fn well_escaped(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}
