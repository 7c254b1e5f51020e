//! What an operator may set. The defaults are the documented ones.

use std::time::Duration;

use crate::domain::limits::{GROUPS_PER_QUEUE_DEFAULT, QUEUES_PER_PROJECT_DEFAULT};

const MIB: usize = 1024 * 1024;

/// Limits, lanes and intervals of a replica.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Queues a project may have.
    pub queues_per_project: i32,
    /// Groups a queue may have.
    pub groups_per_queue: i32,
    /// Connections that commit sends; streams are hashed onto them.
    pub append_lanes: usize,
    /// Connections that give out leases.
    pub claim_lanes: usize,
    /// Connections that commit acknowledgements.
    pub settle_lanes: usize,
    /// Connections for everything else.
    pub pool_connections: u32,
    /// Bytes that may wait in one lane before calls are refused.
    pub lane_bytes_max: usize,
    /// Calls that may wait in one lane before calls are refused.
    pub lane_calls_max: usize,
    /// Bytes of recent segments kept in memory.
    pub cache_bytes: usize,
    /// Whether a lease is on disk before it is answered.
    pub synchronous_leases: bool,
    /// How often to look for expired leases of replicas that are gone, and for delays that have ended.
    pub sweep_interval: Duration,
    /// The longest a statement may run.
    pub statement_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queues_per_project: QUEUES_PER_PROJECT_DEFAULT,
            groups_per_queue: GROUPS_PER_QUEUE_DEFAULT,
            append_lanes: 2,
            claim_lanes: 2,
            settle_lanes: 2,
            pool_connections: 8,
            lane_bytes_max: 64 * MIB,
            lane_calls_max: 50_000,
            cache_bytes: 64 * MIB,
            synchronous_leases: false,
            sweep_interval: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(15),
        }
    }
}
