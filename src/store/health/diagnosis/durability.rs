//! What keeps what is answered: standbys, the archive, replication slots.

use super::Diagnosis;
use crate::domain::Result;
use crate::store::sql::{Sql, row, statements};

statements![IDLE_SLOTS, STANDBY_MISSING, ARCHIVING_FAILS];

row! {
    struct IdleSlot {
        name: String,
        bytes: i64,
    }
}

/// WAL that slots keep for consumers who are not there. At a standby the position is what it has received or replayed.
static IDLE_SLOTS: Sql<(), IdleSlot> = Sql::new(
    "
SELECT slot_name::text AS name, coalesce(pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
         ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint AS bytes
FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 2 DESC",
);

/// Who may not see the state of standbys sees that they are there.
static STANDBY_MISSING: Sql<(), (bool,)> = Sql::new(
    "
SELECT current_setting('synchronous_standby_names') <> ''
    AND NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IS NULL OR sync_state IN ('sync', 'quorum'))",
);

static ARCHIVING_FAILS: Sql<(), (bool,)> = Sql::new("
SELECT current_setting('archive_mode') <> 'off' AND coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
FROM pg_stat_archiver");

impl Diagnosis {
    /// Replication slots without a consumer, and the bytes of WAL that they keep.
    pub(crate) async fn idle_slots(&mut self) -> Result<Vec<(String, i64)>> {
        let slots = IDLE_SLOTS.rows(()).fetch_all(&mut self.0).await?;
        Ok(slots.into_iter().map(|slot| (slot.name, slot.bytes)).collect())
    }

    /// Whether commits wait for a synchronous standby that is not there.
    pub(crate) async fn standby_missing(&mut self) -> Result<bool> {
        Ok(STANDBY_MISSING.scalar(()).fetch_one(&mut self.0).await?)
    }

    /// Whether the last segment of WAL could not be archived.
    pub(crate) async fn archiving_fails(&mut self) -> Result<bool> {
        Ok(ARCHIVING_FAILS.scalar(()).fetch_one(&mut self.0).await?)
    }
}
