//! Every SQL statement of the project, in typed functions, one module per table family.
//!
//! Nobody else imports sqlx. Functions take a connection or a pool and return domain types.

pub mod claims;
pub mod clock;
pub mod codec;
pub mod connection;
pub mod counters;
pub mod database;
pub mod dead_rows;
pub mod delayed;
pub mod deletion;
pub mod diagnosis;
pub mod failed_expiry;
pub mod groups;
pub mod held_segments;
pub mod leadership;
pub mod leases;
pub mod locks;
pub mod notifications;
pub mod observe;
pub mod partitions;
mod place;
pub mod queues;
pub mod retries;
mod rows;
pub mod schema;
pub mod segments;
pub mod settlement;
pub mod sqlstate;
pub mod statement;
pub mod subscriptions;
pub mod tags;
mod timestamp;
pub mod wraparound;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, PgPool};

pub use self::schema::migrate;

use crate::domain::{Error, Result};

/// How long a call waits for a connection of the pool, also while Postgres refuses connections.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a look whether Postgres answers waits for a connection of the pool.
const PING_POOL_LIMIT: Duration = Duration::from_millis(500);

/// How to reach Postgres and how to behave there.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `postgres://...`
    pub database_url: String,
    /// Connections for everything that has no lane.
    pub pool_connections: u32,
    /// The longest a statement may run.
    pub statement_timeout: Duration,
}

/// The database: a pool for the calls that are not hot, and the options for connections that lanes hold.
#[derive(Debug, Clone)]
pub struct Store {
    /// For metadata, upkeep and counters.
    pub pool: PgPool,
    options: PgConnectOptions,
    statement_timeout: Duration,
}

impl Store {
    /// Checks the URL; connections are made when they are needed.
    pub fn new(options: &StoreOptions) -> Result<Self> {
        let connect = connect_options(&options.database_url)?
            .options([
                ("statement_timeout", options.statement_timeout.as_millis().to_string()),
                // Nothing here waits in a transaction: a replica that does is frozen or cut off, and others wait for its locks.
                ("idle_in_transaction_session_timeout", "10000".to_owned()),
                // Lanes that may answer earlier say so themselves.
                ("synchronous_commit", "on".to_owned()),
                // Planning over many partitions costs more than the statements.
                ("plan_cache_mode", "force_generic_plan".to_owned()),
            ])
            .application_name("dms");
        let pool = PgPoolOptions::new()
            .max_connections(options.pool_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(connect.clone());
        Ok(Self { pool, options: connect, statement_timeout: options.statement_timeout })
    }

    /// Whether Postgres answers. A message of the protocol, not a statement. A pool whose connections are all in use says nothing of
    /// Postgres, and one that gets none does not say why: a connection of its own finds out.
    pub async fn ping(&self) -> Result<()> {
        match tokio::time::timeout(PING_POOL_LIMIT, self.pool.acquire()).await {
            Ok(Ok(mut connection)) => Ok(connection.ping().await?),
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => self.try_connect().await,
            Ok(Err(error)) => Err(error.into()),
        }
    }

    async fn try_connect(&self) -> Result<()> {
        let tried = tokio::time::timeout(ACQUIRE_TIMEOUT, async { self.options.connect().await?.close().await });
        Ok(tried.await.map_err(|_| Error::unavailable("the database did not answer in time"))??)
    }

    /// Where it is, for the log.
    pub fn place(&self) -> String {
        let options = &self.options;
        format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or_default())
    }

    /// Closes the pool.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn connect_options(database_url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(database_url)
        .map_err(|error| Error::internal(format!("database url: {error}")))?
        .disable_statement_logging();
    Ok(options)
}
