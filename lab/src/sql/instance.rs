//! What a whole Postgres instance has done, for the benchmark; the service never asks.

use std::time::Duration;

use sqlx::{ConnectOptions as _, PgConnection};

use super::connect_options;

/// A session adds what it has done to the statistics at most once a second while it works, and after 10 s at the latest when
/// it is idle.
pub const STATISTICS_LAG: Duration = Duration::from_secs(11);

/// One connection to the instance.
#[derive(Debug)]
pub struct Instance {
    connection: PgConnection,
}

impl Instance {
    /// Connects.
    pub async fn connect(database_url: &str) -> sqlx::Result<Self> {
        Ok(Self { connection: connect_options(database_url)?.connect().await? })
    }

    /// The process id of the backend of this connection, on the machine of the server.
    pub async fn backend_pid(&mut self) -> sqlx::Result<i32> {
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut self.connection).await
    }

    /// Bytes of WAL ever written by the instance.
    pub async fn wal_position(&mut self) -> sqlx::Result<i64> {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await
    }

    /// Transactions ever committed in the database of this connection, up to [`STATISTICS_LAG`] late.
    pub async fn commit_count(&mut self) -> sqlx::Result<i64> {
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        sqlx::query_scalar(sql).fetch_one(&mut self.connection).await
    }

    /// Writes a checkpoint, so that none begun earlier falls into a measurement.
    pub async fn checkpoint(&mut self) -> sqlx::Result<()> {
        sqlx::query("CHECKPOINT").execute(&mut self.connection).await?;
        Ok(())
    }

    /// The version of the server and those of its settings that decide over figures.
    pub async fn settings(&mut self) -> sqlx::Result<Vec<(String, String)>> {
        let sql = "SELECT name, current_setting(name) FROM pg_settings WHERE name IN ('server_version', 'fsync',
                   'synchronous_commit', 'full_page_writes', 'data_checksums', 'shared_buffers', 'max_wal_size', 'checkpoint_timeout',
                   'wal_compression', 'autovacuum', 'wal_level') ORDER BY name";
        sqlx::query_as(sql).fetch_all(&mut self.connection).await
    }

    /// Dead row versions of the tables whose rows change, as the statistics know them, up to [`STATISTICS_LAG`] late.
    pub async fn dead_tuples(&mut self) -> sqlx::Result<Vec<(String, i64)>> {
        let sql = "SELECT relname::text, n_dead_tup FROM pg_stat_user_tables
                   WHERE relid IN (to_regclass('streams'), to_regclass('subscriptions'), to_regclass('leases'), to_regclass('retries'))
                   ORDER BY relname";
        sqlx::query_as(sql).fetch_all(&mut self.connection).await
    }

    /// Holds a snapshot from now on: no row version that dies from now on can be removed. Ends with the connection.
    pub async fn hold_snapshot(&mut self) -> sqlx::Result<()> {
        sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut self.connection).await?;
        sqlx::query("SELECT count(*) FROM pg_class").execute(&mut self.connection).await?;
        Ok(())
    }
}
