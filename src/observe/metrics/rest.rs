//! Requests to the REST gateway, by the path of the API that they matched and never by what a caller wrote.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From an answer out of memory to the longest poll.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPath {
    path: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    method: &'static str,
    path: Arc<str>,
    status: u16,
}

type Seconds = Family<OfPath, Histogram, fn() -> Histogram>;

/// How many, how they ended, and how long they took. Clones share them.
#[derive(Debug, Clone)]
pub struct RestRequests {
    answered: Family<Outcome, Counter>,
    seconds: Seconds,
}

impl Default for RestRequests {
    fn default() -> Self {
        let seconds: Seconds = Family::new_with_constructor(|| Histogram::new(SECONDS));
        Self { answered: Family::default(), seconds }
    }
}

impl RestRequests {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let requests = Self::default();
        let help = "REST requests answered, by method, path of the API and HTTP status";
        registry.register("rest_requests", help, requests.answered.clone());
        let help = "Time from a REST request's headers to its answer's, long polls included";
        registry.register_with_unit("rest_request", help, Unit::Seconds, requests.seconds.clone());
        requests
    }

    /// A request was answered. `path` is one of the table of paths: each other one would be a series for ever.
    pub fn answered(&self, method: &'static str, path: &str, status: u16, elapsed: Duration) {
        let path: Arc<str> = path.into();
        self.seconds.get_or_create(&OfPath { path: Arc::clone(&path) }).observe(elapsed.as_secs_f64());
        self.answered.get_or_create(&Outcome { method, path, status }).inc();
    }
}
