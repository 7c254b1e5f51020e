//! What goes wrong in Postgres on purpose, for the fault suite; the service never uses it.

use std::time::Duration;

use anyhow::{Result, bail};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::connect_options;

/// Of the sessions of the service, not of the fault suite.
const OF_SERVICE: &str = "backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name LIKE 'dms%'";

const REFUSE: &str = "
CREATE OR REPLACE FUNCTION chaos_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'refused by the fault suite' USING ERRCODE = TG_ARGV[0];
END $$;
DROP TRIGGER IF EXISTS chaos_refuse ON segments;
CREATE TRIGGER chaos_refuse BEFORE INSERT ON segments FOR EACH STATEMENT EXECUTE FUNCTION chaos_refuse('$CODE')";

/// Why an append is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `disk_full`
    DiskFull,
    /// `internal_error`
    Internal,
}

/// A row that many statements update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotRow {
    /// Of a queue's stream: appends wait.
    Stream,
    /// Of a reader: claims and failures wait.
    Subscription,
}

/// One session of the fault suite.
#[derive(Debug)]
pub struct FaultSession {
    connection: PgConnection,
}

impl FaultSession {
    /// Connects.
    ///
    /// # Errors
    /// Postgres is away, because it was killed perhaps.
    pub async fn connect(database_url: &str) -> Result<Self> {
        let options = connect_options(database_url)?.application_name("chaos");
        let connected = options.options([("client_min_messages", "error"), ("lock_timeout", "20s")]).connect().await;
        Ok(Self { connection: connected? })
    }

    /// Whether the session is still there.
    pub async fn is_there(&mut self) -> bool {
        self.connection.ping().await.is_ok()
    }

    /// The processes of the service's sessions, on the machine of the server.
    pub async fn service_backends(&mut self) -> Result<Vec<i32>> {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE {OF_SERVICE} ORDER BY pid");
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut self.connection).await?)
    }

    /// Ends about this share of the service's sessions; how many.
    pub async fn terminate_backends(&mut self, share: f64) -> Result<usize> {
        let sql =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OF_SERVICE} AND random() < $1");
        let ended: Vec<bool> =
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(share).fetch_all(&mut self.connection).await?;
        Ok(ended.len())
    }

    /// Has every append refused until [`FaultSession::accept_appends`].
    pub async fn refuse_appends(&mut self, refusal: Refusal) -> Result<()> {
        let code = match refusal {
            Refusal::DiskFull => "53100",
            Refusal::Internal => "XX000",
        };
        self.run(REFUSE.replace("$CODE", code)).await
    }

    /// Has appends accepted again.
    pub async fn accept_appends(&mut self) -> Result<()> {
        self.run("DROP TRIGGER IF EXISTS chaos_refuse ON segments".to_owned()).await
    }

    /// Locks a row until the session ends.
    pub async fn lock_row(&mut self, row: HotRow) -> Result<()> {
        let sql = match row {
            HotRow::Stream => "SELECT FROM streams WHERE kind = 'normal' ORDER BY random() LIMIT 1 FOR UPDATE",
            HotRow::Subscription => "SELECT FROM subscriptions ORDER BY random() LIMIT 1 FOR UPDATE",
        };
        self.run(format!("BEGIN; {sql}")).await
    }

    /// Commits wait for a standby from now on.
    pub async fn require_standby(&mut self) -> Result<()> {
        // Not in one transaction: ALTER SYSTEM does not allow it.
        self.run("ALTER SYSTEM SET synchronous_standby_names = '*'".to_owned()).await?;
        self.run("SELECT pg_reload_conf()".to_owned()).await
    }

    /// Whether a standby has everything that is committed.
    pub async fn has_standby(&mut self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming')";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }

    /// Makes this standby a server of its own; returns when it is one.
    pub async fn promote(&mut self) -> Result<()> {
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)").fetch_one(&mut self.connection).await?;
        if promoted { Ok(()) } else { bail!("the standby was not promoted in time") }
    }

    /// Runs statements without parameters.
    async fn run(&mut self, sql: String) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Ends the session.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }
}

/// Connections that are there for nothing but to leave none for others.
#[derive(Debug, Default)]
pub struct Slots(Vec<PgConnection>);

impl Slots {
    /// Takes connections until Postgres has no more, at most `max`.
    pub async fn take(&mut self, database_url: &str, max: usize) -> Result<()> {
        let options = connect_options(database_url)?.application_name("chaos-slot");
        while self.0.len() < max {
            let connecting = tokio::time::timeout(Duration::from_secs(5), options.connect());
            match connecting.await {
                Ok(Ok(connection)) => self.0.push(connection),
                // It says that there are too many, or it is away.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// How many are taken.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
