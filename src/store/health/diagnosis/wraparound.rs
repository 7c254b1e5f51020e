//! Transaction ids, and what is frozen of them.

use std::time::Duration;

use super::Diagnosis;
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::limits::RETENTION_DEFAULT;
use crate::store::health::wraparound::{self, FreezeLimits, FrozenAge};
use crate::store::log::partitions;
use crate::store::session::sqlstate;

/// A partition of a day that ended less than this ago may wait for its turn.
const GRACE: Duration = Duration::from_secs(6 * 3_600);

impl Diagnosis {
    /// The database of the server with the oldest ids.
    pub(crate) async fn oldest_database(&mut self) -> Result<FrozenAge> {
        wraparound::oldest_database(&mut self.0).await
    }

    /// The table of ours with the oldest ids.
    pub(crate) async fn oldest_table(&mut self) -> Result<Option<FrozenAge>> {
        wraparound::oldest_table(&mut self.0).await
    }

    /// What autovacuum goes by.
    pub(crate) async fn freeze_limits(&mut self) -> Result<FreezeLimits> {
        wraparound::limits(&mut self.0).await
    }

    /// Partitions of days that ended hours ago and are not frozen; none when somebody locks one.
    pub(crate) async fn unfrozen_days(&mut self, now: Timestamp) -> Result<Vec<String>> {
        match partitions::unfrozen_days(&mut self.0, now.minus(GRACE), now.minus(RETENTION_DEFAULT)).await {
            Ok(days) => Ok(days),
            Err(error) if sqlstate::is_conflict(&error) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
