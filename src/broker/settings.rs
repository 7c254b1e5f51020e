//! What an operator may set. The defaults are the documented ones.

use std::time::Duration;

use crate::domain::Result;
use crate::domain::limits::{GROUPS_PER_QUEUE_DEFAULT, QUEUES_PER_PROJECT_DEFAULT};
use crate::memory::Memory;

const MIB: usize = 1024 * 1024;
/// Of the memory of a replica the cache gets at most this part.
const CACHE_PART: usize = 8;
/// Bytes of one flush, and with little memory less.
const FLUSH_BYTES_MAX: usize = 2 * MIB;
const FLUSH_BYTES_MIN: usize = MIB / 2;
const FLUSH_PART: usize = 256;
/// An append lane holds so many times the bytes of a flush: three flushes that are not answered yet, each once in a segment, one of
/// them as arguments of a statement too, and the buffers of three connections.
const FLUSHES_HELD: usize = 8;

/// Limits, lanes and intervals of a replica.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Queues a project may have.
    pub queues_per_project: i32,
    /// Groups a queue may have.
    pub groups_per_queue: i32,
    /// Connections that commit sends; streams are hashed onto them.
    pub append_lanes: usize,
    /// Connections that grant leases.
    pub claim_lanes: usize,
    /// Connections that commit acknowledgements.
    pub settle_lanes: usize,
    /// Connections for everything else.
    pub pool_connections: u32,
    /// Bytes that may wait in one lane before calls are refused.
    pub lane_bytes_max: usize,
    /// Calls that may wait in one lane before calls are refused.
    pub lane_calls_max: usize,
    /// Bytes that the replica may hold in all.
    pub memory_max: usize,
    /// Bytes of recent segments kept in memory, within an eighth of the above.
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
            memory_max: 1024 * MIB,
            cache_bytes: 64 * MIB,
            synchronous_leases: false,
            sweep_interval: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(15),
        }
    }
}

impl Settings {
    /// Bytes for the cache.
    pub(crate) fn cache_bytes_max(&self) -> usize {
        self.cache_bytes.min(self.memory_max / CACHE_PART)
    }

    /// Bytes committed together; a single call may have more.
    pub(crate) fn flush_bytes_max(&self) -> usize {
        (self.memory_max / FLUSH_PART).clamp(FLUSH_BYTES_MIN, FLUSH_BYTES_MAX)
    }

    /// The memory of the replica, without what the cache and the flushes in work take.
    ///
    /// # Errors
    /// `Internal` when there is too little for so many lanes.
    pub fn memory(&self) -> Result<Memory> {
        // One lane more than the setting says: that of KAFKA_HT queues.
        let flushes = (self.append_lanes + 1) * FLUSHES_HELD * self.flush_bytes_max();
        Memory::of_service(self.memory_max, self.cache_bytes_max() + flushes)
    }
}
