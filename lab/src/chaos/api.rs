//! The words of the API that the history is written in, in plain types.

/// Which stream of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The messages of the queue.
    Normal,
    /// The dead letters of the group.
    DeadLetters,
}

/// What a consumer says of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckStatus {
    /// Consumed.
    Success,
    /// Not consumed.
    Fail,
}

/// What became of one entry of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOutcome {
    /// Acknowledged.
    Acked,
    /// The entry said fail.
    Failed,
    /// Its handler is unparsable, expired, settled before, or of another group.
    InvalidHandler,
    /// It stands behind one of the two above.
    AfterFailure,
}

/// The counters of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupCounters {
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
