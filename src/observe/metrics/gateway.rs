//! What a gateway on its own says of itself. Lanes, groups and Postgres are for the service to tell: zeros of them here
//! would be taken for an outage.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::connections::Connections;
use super::credentials::Credentials;
use super::memory::MemoryUse;
use super::rest::RestRequests;
use super::{encoded, registry};

/// All metrics of a gateway. Clones share them.
#[derive(Debug, Clone)]
pub struct GatewayMetrics(Arc<All>);

#[derive(Debug)]
struct All {
    registry: Registry,
    rest: RestRequests,
    connections: Connections,
    memory: MemoryUse,
    upstream_up: Gauge,
    credentials: Credentials,
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        let mut registry = registry();
        let rest = RestRequests::registered(&mut registry);
        let connections = Connections::registered(&mut registry);
        let memory = MemoryUse::registered(&mut registry);
        let upstream_up = Gauge::default();
        let help = "1 while the service behind a gateway on its own says that it is ready";
        registry.register("upstream_up", help, upstream_up.clone());
        let credentials = Credentials::registered(&mut registry);
        Self(Arc::new(All { registry, rest, connections, memory, upstream_up, credentials }))
    }
}

impl GatewayMetrics {
    /// REST requests.
    pub fn rest(&self) -> &RestRequests {
        &self.0.rest
    }

    /// Connections that were ended.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// Memory by use.
    pub fn memory(&self) -> &MemoryUse {
        &self.0.memory
    }

    /// Whether the service is ready.
    pub(crate) fn set_upstream_up(&self, up: bool) {
        self.0.upstream_up.set(i64::from(up));
    }

    /// Files of certificates.
    pub fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    /// All of them as text, in the OpenMetrics format.
    pub fn text(&self) -> String {
        encoded(&self.0.registry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_tells_of_rest_and_of_its_service_and_of_nothing_else() {
        let metrics = GatewayMetrics::default();
        metrics.rest().answered("GET", "/v2/{project_id}/queues", 200, Duration::from_millis(3));
        metrics.set_upstream_up(true);
        let text = metrics.text();
        for line in [
            r#"dms_rest_requests_total{method="GET",path="/v2/{project_id}/queues",status="200"} 1"#,
            r#"dms_rest_request_seconds_count{path="/v2/{project_id}/queues"} 1"#,
            "dms_upstream_up 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("dms_build_info{version=") && !text.contains("postgres"), "{text}");
    }
}
