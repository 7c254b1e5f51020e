//! What `dms doctor` asks Postgres.

use sqlx::{ConnectOptions as _, Connection as _, FromRow, PgConnection};

use super::{connect_options, schema};
use crate::domain::Result;
use crate::domain::clock::Timestamp;

/// A session to look around in.
#[derive(Debug)]
pub struct Diagnosis(PgConnection);

/// Something that keeps dead rows from being removed.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct SnapshotHolder {
    /// A session, a prepared transaction, or a replication slot, with its name.
    pub holder: String,
    /// Transactions begun since.
    pub age: i64,
    /// For how long, when that is known.
    pub seconds: Option<f64>,
}

const SETTINGS: [&str; 13] = [
    "server_version_num",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "autovacuum",
    "track_counts",
    "data_checksums",
    "max_connections",
    "superuser_reserved_connections",
    // From Postgres 16 on.
    "reserved_connections",
    "max_wal_size",
    "default_transaction_read_only",
    // On at a standby, whatever its settings are.
    "transaction_read_only",
];

const HOLDERS: &str = "
SELECT holder, age, seconds FROM (
    SELECT format('session %s (%s, %s)', pid, coalesce(nullif(application_name, ''), usename, backend_type), coalesce(state, '-'))
               AS holder,
           age(backend_xmin)::bigint AS age, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
    FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL
    SELECT format('prepared transaction %s', gid), age(transaction)::bigint, extract(epoch FROM clock_timestamp() - prepared)::float8
    FROM pg_prepared_xacts
    UNION ALL
    SELECT format('replication slot %s', slot_name), age(coalesce(xmin, catalog_xmin))::bigint, NULL
    FROM pg_replication_slots WHERE coalesce(xmin, catalog_xmin) IS NOT NULL
) AS h ORDER BY age DESC LIMIT 5";

const DEAD_ROWS: &str = "
SELECT relname::text, n_live_tup, n_dead_tup FROM pg_stat_user_tables
WHERE relname IN ('streams', 'subscriptions', 'leases', 'retries', 'delayed_messages') ORDER BY relname";

const OLDEST_SEGMENT: &str = "
SELECT min(to_timestamp(substr(c.relname, 11)::bigint * 86400))
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('segments') AND c.relname ~ '^segments_d[0-9]+$'";

const MISSING_RIGHTS: &str = "
SELECT format('%s on %s', r.privilege, t.name)
FROM unnest(ARRAY['queues', 'queue_tags', 'consumer_groups', 'streams', 'segments', 'subscriptions', 'leases', 'retries',
                  'delayed_messages']) AS t (name)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (privilege)
WHERE to_regclass(t.name) IS NOT NULL AND NOT has_table_privilege(to_regclass(t.name), r.privilege)
UNION ALL
SELECT format('USAGE on %s', s.name) FROM unnest(ARRAY['stream_ids', 'subscription_ids']) AS s (name)
WHERE to_regclass(s.name) IS NOT NULL AND NOT has_sequence_privilege(to_regclass(s.name), 'USAGE')
UNION ALL
SELECT 'ownership of segments' FROM pg_class WHERE oid = to_regclass('segments') AND NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT format('CREATE on schema %s', relnamespace::regnamespace) FROM pg_class
WHERE oid = to_regclass('segments') AND NOT has_schema_privilege(relnamespace, 'CREATE')";

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
    /// Connects.
    pub async fn connect(database_url: &str) -> Result<Self> {
        Ok(Self(connect_options(database_url)?.application_name("dms-doctor").connect().await?))
    }

    /// Settings that matter, by name.
    pub async fn settings(&mut self) -> Result<Vec<(String, String)>> {
        let sql = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY ($1) ORDER BY name";
        Ok(sqlx::query_as(sql).bind(SETTINGS.as_slice()).fetch_all(&mut self.0).await?)
    }

    /// Sessions there are.
    pub async fn sessions(&mut self) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL")
            .fetch_one(&mut self.0)
            .await?)
    }

    /// The version of the schema, 0 when there is none, nothing when this role may not see it; and the one that this program
    /// needs.
    pub async fn schema(&mut self) -> Result<(Option<i64>, i64)> {
        // NULL when there is no such table.
        let sql = "SELECT has_table_privilege(to_regclass('_sqlx_migrations'), 'SELECT')";
        let visible: Option<bool> = sqlx::query_scalar(sql).fetch_one(&mut self.0).await?;
        let applied = match visible {
            Some(true) => Some(sqlx::query_scalar(schema::APPLIED).fetch_one(&mut self.0).await?),
            Some(false) => None,
            None => Some(0),
        };
        Ok((applied, schema::needed()))
    }

    /// What the role of this session lacks to run the service.
    pub async fn missing_rights(&mut self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(MISSING_RIGHTS).fetch_all(&mut self.0).await?)
    }

    /// Whether this role sees what sessions of other roles do.
    pub async fn sees_all_sessions(&mut self) -> Result<bool> {
        Ok(sqlx::query_scalar("SELECT pg_has_role('pg_read_all_stats', 'USAGE')").fetch_one(&mut self.0).await?)
    }

    /// Replication slots without a consumer, and the bytes of WAL that they keep.
    pub async fn idle_slots(&mut self) -> Result<Vec<(String, i64)>> {
        Ok(sqlx::query_as(IDLE_SLOTS).fetch_all(&mut self.0).await?)
    }

    /// Whether commits wait for a synchronous standby that is not there.
    pub async fn standby_missing(&mut self) -> Result<bool> {
        Ok(sqlx::query_scalar(STANDBY_MISSING).fetch_one(&mut self.0).await?)
    }

    /// Whether the last segment of WAL could not be archived.
    pub async fn archiving_fails(&mut self) -> Result<bool> {
        Ok(sqlx::query_scalar(ARCHIVING_FAILS).fetch_one(&mut self.0).await?)
    }

    /// What keeps dead rows from being removed, the oldest first.
    pub async fn snapshot_holders(&mut self) -> Result<Vec<SnapshotHolder>> {
        Ok(sqlx::query_as(HOLDERS).fetch_all(&mut self.0).await?)
    }

    /// Live and dead rows of the hot tables.
    pub async fn dead_rows(&mut self) -> Result<Vec<(String, i64, i64)>> {
        Ok(sqlx::query_as(DEAD_ROWS).fetch_all(&mut self.0).await?)
    }

    /// The first day that the log still has a partition of.
    pub async fn oldest_day(&mut self) -> Result<Option<Timestamp>> {
        Ok(sqlx::query_scalar(OLDEST_SEGMENT).fetch_one(&mut self.0).await?)
    }

    /// Postgres's clock.
    pub async fn now(&mut self) -> Result<Timestamp> {
        Ok(sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut self.0).await?)
    }

    /// Whether the service's statements are allowed: what a large flush needs beside its tables.
    pub async fn may_emit_messages(&mut self) -> Result<bool> {
        let sql = "SELECT has_function_privilege('pg_logical_emit_message(boolean, text, text)', 'EXECUTE')";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.0).await?)
    }

    /// Says goodbye.
    pub async fn close(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
