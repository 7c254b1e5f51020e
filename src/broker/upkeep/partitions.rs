//! Partitions of the log exist before they are needed.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::broker::core::Core;
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::store::log::partitions;

const DAY: Duration = Duration::from_secs(86_400);
/// Partitions are made this far ahead.
const AHEAD: Duration = DAY.saturating_mul(2);

/// The time for which partitions were there when Postgres was last asked. Only a hint: whoever drops one meanwhile makes the next
/// append that needs it fail, and that makes it again (`store/log/partitions`).
#[derive(Debug, Default)]
pub(crate) struct KnownPartitions(Mutex<Option<Range<Timestamp>>>);

impl KnownPartitions {
    fn reach(&self, now: Timestamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| known.start <= now && now.plus(DAY) < known.end)
    }

    fn set(&self, known: Range<Timestamp>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

impl Core {
    /// Makes sure that what is appended now has a partition to go to, going by what is known.
    pub(crate) async fn ensure_partitions(&self, now: Timestamp) -> Result<()> {
        if self.partitions.reach(now) { Ok(()) } else { self.renew_partitions(now).await }
    }

    /// The same, asking Postgres.
    pub(crate) async fn renew_partitions(&self, now: Timestamp) -> Result<()> {
        let (from, until) = (now.minus(DAY), now.plus(AHEAD));
        partitions::create(&self.store.pool, from, until).await?;
        self.partitions.set(from..until);
        Ok(())
    }
}
