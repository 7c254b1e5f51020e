//! Whether calls are welcome, as HTTP probes ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use http::StatusCode;

/// Not ready at first; set by who knows, asked by probes. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Tells probes from now on; whether that is a change.
    pub(crate) fn set(&self, ready: bool) -> bool {
        self.0.swap(ready, Ordering::Relaxed) != ready
    }

    /// `/healthz`: the process is alive; `/readyz`: calls are welcome.
    pub(crate) fn probes(&self) -> Router {
        let ready = Arc::clone(&self.0);
        let readyz = async move || match ready.load(Ordering::Relaxed) {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        };
        Router::new().route("/healthz", get(async || "alive\n")).route("/readyz", get(readyz))
    }
}
