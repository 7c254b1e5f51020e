//! What a whole Postgres instance has done, for the benchmark; the service never asks.

use sqlx::{Connection, PgConnection};

use crate::domain::Result;

/// One connection to the instance.
#[derive(Debug)]
pub struct Instance {
    connection: PgConnection,
}

impl Instance {
    /// Connects.
    pub async fn connect(database_url: &str) -> Result<Self> {
        Ok(Self { connection: PgConnection::connect(database_url).await? })
    }

    /// The process id of the backend of this connection, on the machine of the server.
    pub async fn backend_pid(&mut self) -> Result<i32> {
        Ok(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut self.connection).await?)
    }

    /// Bytes of WAL ever written by the instance.
    pub async fn wal_position(&mut self) -> Result<i64> {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }

    /// Transactions ever committed in the database of this connection, up to a second late.
    pub async fn commit_count(&mut self) -> Result<i64> {
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }
}
