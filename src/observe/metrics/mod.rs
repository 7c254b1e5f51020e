//! What the service says of itself in numbers, for Prometheus: counted where it happens, read at `/metrics` of the admin port.
//!
//! Knows nothing of the project but `domain` and `memory`: the rest of it counts here.

mod calls;
mod clock;
mod connections;
mod credentials;
mod gateway;
mod groups;
mod lanes;
mod memory;
mod messages;
mod replica;
mod rest;

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use self::calls::{Calls, Refusal};
pub use self::clock::{Clock, ClockStep};
pub use self::connections::{Connections, Cut};
pub use self::credentials::Credentials;
pub use self::gateway::GatewayMetrics;
pub use self::groups::{GroupIds, GroupSample, Groups};
pub use self::lanes::{Lane, Lanes};
pub use self::memory::MemoryUse;
pub use self::messages::{Expired, Messages, SettledCounts};
pub use self::replica::{PostgresSample, Replica, Upkeep};
pub use self::rest::RestRequests;

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a replica. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<All>);

#[derive(Debug)]
struct All {
    registry: Registry,
    calls: Calls,
    lanes: Lanes,
    messages: Messages,
    groups: Groups,
    replica: Replica,
    clock: Clock,
    rest: RestRequests,
    connections: Connections,
    credentials: Credentials,
    memory: MemoryUse,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = registry();
        let calls = Calls::registered(&mut registry);
        let lanes = Lanes::registered(&mut registry);
        let messages = Messages::registered(&mut registry);
        let groups = Groups::registered(&mut registry);
        let replica = Replica::registered(&mut registry);
        let clock = Clock::registered(&mut registry);
        let rest = RestRequests::registered(&mut registry);
        let connections = Connections::registered(&mut registry);
        let credentials = Credentials::registered(&mut registry);
        let memory = MemoryUse::registered(&mut registry);
        Self(Arc::new(All {
            registry,
            calls,
            lanes,
            messages,
            groups,
            replica,
            clock,
            rest,
            connections,
            memory,
            credentials,
        }))
    }
}

impl Metrics {
    /// Calls of the API.
    pub fn calls(&self) -> &Calls {
        &self.0.calls
    }

    /// Lanes.
    pub fn lanes(&self) -> &Lanes {
        &self.0.lanes
    }

    /// Messages.
    pub fn messages(&self) -> &Messages {
        &self.0.messages
    }

    /// Queues and groups.
    pub fn groups(&self) -> &Groups {
        &self.0.groups
    }

    /// This replica and its Postgres.
    pub fn replica(&self) -> &Replica {
        &self.0.replica
    }

    /// The clock of this replica.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Requests to the gateway of the same process.
    pub fn rest(&self) -> &RestRequests {
        &self.0.rest
    }

    /// Connections that were ended.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// Files and URLs of credentials and certificates.
    pub fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    /// Memory by use.
    pub fn memory(&self) -> &MemoryUse {
        &self.0.memory
    }

    /// All of them as text, in the OpenMetrics format.
    pub fn text(&self) -> String {
        encoded(&self.0.registry)
    }
}

/// What every program of ours says of itself.
fn registry() -> Registry {
    let mut registry = Registry::with_prefix("dms");
    registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    registry
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    // A String takes all that is written.
    let _written = encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_there_in_one_text() {
        let metrics = Metrics::default();
        metrics.calls().ended("/dms.v1.MessageService/SendMessages", "OK", std::time::Duration::from_millis(3));
        metrics.calls().expect(["/dms.v1.TagService/SearchQueues"].into_iter());
        metrics.calls().refused(Refusal::Share);
        metrics.lanes().flushed(Lane::Append, 3, 4096, std::time::Duration::from_millis(2));
        metrics.lanes().set_waiting(Lane::Settle, [(1, 20), (5, 10)].into_iter());
        metrics.lanes().panicked(Lane::Claim);
        metrics.clock().set_offset(-250_000);
        metrics.clock().stepped(ClockStep::Back);
        metrics.messages().settled(SettledCounts { acked: 2, dead: 1, ..SettledCounts::default() });
        metrics.credentials().follow("tokens", || (std::time::Duration::from_millis(1500), 7));
        let text = metrics.text();
        for line in [
            r#"dms_calls_total{method="/dms.v1.MessageService/SendMessages",code="OK"} 1"#,
            r#"dms_calls_total{method="/dms.v1.TagService/SearchQueues",code="INTERNAL"} 0"#,
            r#"dms_calls_refused_total{why="share"} 1"#,
            r#"dms_calls_refused_total{why="lane"} 0"#,
            r#"dms_lane_flush_calls_count{lane="append"} 1"#,
            r#"dms_lane_waiting_calls{lane="settle"} 6"#,
            r#"dms_lane_fullest_calls{lane="settle"} 5"#,
            r#"dms_lane_fullest_bytes{lane="settle"} 20"#,
            r#"dms_lane_panics_total{lane="claim"} 1"#,
            r#"dms_settled_messages_total{outcome="acked"} 2"#,
            r#"dms_settled_messages_total{outcome="expired"} 0"#,
            r#"dms_expired_messages_total{kind="unread"} 0"#,
            r#"dms_credentials_age_seconds{source="tokens"} 1.5"#,
            r#"dms_credentials_failures_total{source="tokens"} 7"#,
            r#"dms_upkeep_failures_total{task="delays"} 0"#,
            r#"dms_upkeep_lag_seconds{task="leases"} 0.0"#,
            "dms_clock_offset_seconds -0.25",
            r#"dms_clock_steps_total{direction="back"} 1"#,
            r#"dms_clock_steps_total{direction="ahead"} 0"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
