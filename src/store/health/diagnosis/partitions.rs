//! The partitions of the log, and the room that it takes.

use super::Diagnosis;
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::store::session::sqlstate;
use crate::store::sql::{Sql, statements};

static DAYS: Sql<(), (Timestamp,)> = Sql::new(
    "
SELECT to_timestamp(substr(c.relname, 11)::bigint * 86400)
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('segments') AND c.relname ~ '^segments_d[0-9]+$' ORDER BY 1",
);

static LOG_BYTES: Sql<(), (i64,)> = Sql::new("
SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint FROM pg_inherits WHERE inhparent = to_regclass('segments')");

/// Nothing when this role may not ask.
static DATABASE_BYTES: Sql<(), (Option<i64>,)> = Sql::new(
    "
SELECT CASE WHEN has_database_privilege(current_database(), 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
            THEN pg_database_size(current_database()) END",
);

statements![DAYS, LOG_BYTES, DATABASE_BYTES];

impl Diagnosis {
    /// The beginnings of the days that the log has a partition of, the oldest first.
    pub(crate) async fn log_days(&mut self) -> Result<Vec<Timestamp>> {
        Ok(DAYS.scalar(()).fetch_all(&mut self.0).await?)
    }

    /// What the log takes on disk, its indexes included; nothing when somebody locks a partition.
    pub(crate) async fn log_bytes(&mut self) -> Result<Option<i64>> {
        match LOG_BYTES.scalar(()).fetch_one(&mut self.0).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if sqlstate::is_conflict(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the database takes on disk.
    pub(crate) async fn database_bytes(&mut self) -> Result<Option<i64>> {
        Ok(DATABASE_BYTES.scalar(()).fetch_one(&mut self.0).await?)
    }
}
