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

const SETTINGS: [&str; 9] = [
    "server_version_num",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "autovacuum",
    "data_checksums",
    "max_connections",
    "max_wal_size",
    "default_transaction_read_only",
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

    /// The version of the schema, 0 when there is none, and the one that this program needs.
    pub async fn schema(&mut self) -> Result<(i64, i64)> {
        let present: bool =
            sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut self.0).await?;
        let applied = if present { sqlx::query_scalar(schema::APPLIED).fetch_one(&mut self.0).await? } else { 0 };
        Ok((applied, schema::needed()))
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
