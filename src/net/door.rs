//! Where a REST request is stopped before it costs anything.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::HeaderMap;

use super::call::Call;
use crate::domain::Result;
use crate::domain::signed_request::SignedRequest;

/// What stands between a REST caller and the service. `shown` are the headers that the caller's requests go on with.
pub trait Door: Send + Sync {
    /// Asked before a body is read, which may take a minute. `signed` is what a signature covers, without the body.
    ///
    /// # Errors
    /// What is to be answered at once.
    fn before_body(&self, shown: &HeaderMap, signed: Option<&SignedRequest>, call: Option<&Call>) -> Result<()>;

    /// Asked before the service is called.
    ///
    /// # Errors
    /// What is to be answered instead.
    fn before_call(&self, shown: &HeaderMap, call: Option<&Call>) -> Result<()>;
}

/// Lets everything through.
#[derive(Debug, Clone, Copy)]
pub struct OpenDoor;

impl Door for OpenDoor {
    fn before_body(&self, _: &HeaderMap, _: Option<&SignedRequest>, _: Option<&Call>) -> Result<()> {
        Ok(())
    }

    fn before_call(&self, _: &HeaderMap, _: Option<&Call>) -> Result<()> {
        Ok(())
    }
}

/// Routes that are health checks: their connections may stay without credentials.
pub(crate) fn health_checks(routes: Router) -> Router {
    async fn marked(request: Request, next: Next) -> Response {
        request.extensions().get::<Call>().into_iter().for_each(Call::was_health_check);
        next.run(request).await
    }
    routes.layer(from_fn(marked))
}
