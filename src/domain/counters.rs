//! What a queue and a group report of themselves.

/// Counters of a consumer group, derived from offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GroupCounters {
    /// Messages in the queue, expired ones excluded.
    pub produced: i64,
    /// Messages acknowledged with success by this group.
    pub consumed: i64,
    /// Messages this group can still consume, leased ones included.
    pub available: i64,
    /// Messages ever moved to its dead-letter stream.
    pub produced_dead_letters: i64,
    /// Dead letters neither acknowledged nor expired.
    pub available_dead_letters: i64,
}

/// The queue quota of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueQuota {
    /// Queues the project may have.
    pub quota: i32,
    /// Queues it has.
    pub used: i32,
}
