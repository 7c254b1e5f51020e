//! What keeps what is answered: standbys, the archive, replication slots.

use super::Diagnosis;
use crate::domain::Result;

/// WAL that slots keep for consumers who are not there. At a standby the position is what it has received or replayed.
const IDLE_SLOTS: &str = "
SELECT slot_name::text, coalesce(pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
         ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 2 DESC";

/// Who may not see the state of standbys sees that they are there.
const STANDBY_MISSING: &str = "
SELECT current_setting('synchronous_standby_names') <> ''
    AND NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IS NULL OR sync_state IN ('sync', 'quorum'))";

const ARCHIVING_FAILS: &str = "
SELECT current_setting('archive_mode') <> 'off' AND coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
FROM pg_stat_archiver";

impl Diagnosis {
    /// Replication slots without a consumer, and the bytes of WAL that they keep.
    pub(crate) async fn idle_slots(&mut self) -> Result<Vec<(String, i64)>> {
        Ok(sqlx::query_as(IDLE_SLOTS).fetch_all(&mut self.0).await?)
    }

    /// Whether commits wait for a synchronous standby that is not there.
    pub(crate) async fn standby_missing(&mut self) -> Result<bool> {
        Ok(sqlx::query_scalar(STANDBY_MISSING).fetch_one(&mut self.0).await?)
    }

    /// Whether the last segment of WAL could not be archived.
    pub(crate) async fn archiving_fails(&mut self) -> Result<bool> {
        Ok(sqlx::query_scalar(ARCHIVING_FAILS).fetch_one(&mut self.0).await?)
    }
}
