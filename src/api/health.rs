//! What the service says of itself to probes: `grpc.health.v1`, and the same for the REST port.

use axum::Router;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::SERVICE_NAMES;
use crate::net::readiness::Readiness;
use crate::net::{self, Call};

/// A request names a service. Who makes it is not asked, so there is no reason to hold more.
const REQUEST_BYTES_MAX: usize = 1024;

/// Whether calls are welcome: not before the start, not while Postgres is away, not from the start of the shutdown.
#[derive(Debug, Clone)]
pub struct Health {
    readiness: Readiness,
    reporter: HealthReporter,
}

type HealthCheck = fn(Request<()>) -> Result<Request<()>, Status>;

fn health_check(request: Request<()>) -> Result<Request<()>, Status> {
    request.extensions().get::<Call>().into_iter().for_each(Call::was_health_check);
    Ok(request)
}

/// The service as a whole and each of its parts.
fn names() -> impl Iterator<Item = &'static str> {
    [""].into_iter().chain(SERVICE_NAMES)
}

impl Health {
    /// Not serving yet.
    pub async fn new() -> Self {
        let health = Self { readiness: Readiness::default(), reporter: HealthReporter::new() };
        health.report(ServingStatus::NotServing).await;
        health
    }

    /// Tells all probes and watchers; says in the log when it changes.
    pub async fn set(&self, ready: bool) {
        if self.readiness.set(ready) {
            tracing::info!(ready, "readiness changed");
            self.report(if ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        }
    }

    /// Ends the streams of watchers, which would otherwise hold their connections open.
    pub async fn close(mut self) {
        for name in names() {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn report(&self, status: ServingStatus) {
        for name in names() {
            self.reporter.set_service_status(name, status).await;
        }
    }

    /// The gRPC service.
    pub fn grpc(&self) -> InterceptedService<HealthServer<HealthService>, HealthCheck> {
        let health = HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
            .max_decoding_message_size(REQUEST_BYTES_MAX);
        InterceptedService::new(health, health_check as HealthCheck)
    }

    /// `/healthz`: the process is alive; `/readyz`: calls are welcome.
    pub fn rest(&self) -> Router {
        net::health_checks(self.readiness.probes())
    }
}
